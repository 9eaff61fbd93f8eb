from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.base.items import stable_id
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import Intensity, MinMax, Window
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.batches import Batches, validation_batches
from voxlate.training.batches.patches import DataSettings, missing_modalities, read_pair

WINDOWS: Mapping[str, Intensity] = {"t1": Window(low=0, high=1000), "t2": Window(low=0, high=500)}
SLICES = DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8))
STRONG = AugmentSettings(
    flip_lr=0.5, rotate_degrees=30, scale=0.2, elastic_mm=1, gamma=0.5, noise=0.1
)


@pytest.fixture
def cohort(six) -> Cohort:
    return six


def equal(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("source", "target", "mask", "present", "item")
    )


def scaled(cohort: Cohort, case: str, name: str) -> torch.Tensor:
    """The whole volume in network units, the slow way."""
    return torch.from_numpy(
        WINDOWS[name].scale(None).forward(cohort.case(case).volume(name).data[0])
    )


def read(
    cohort: Cohort, data: DataSettings, maps: Mapping[str, Intensity], case: str, start
) -> Batch:
    return read_pair(cohort.case(case), data, maps, start)


@every_row("start", [(1, 2, 3), (-1, -2, -3), (2, 4, 6), (7, 0, 0)])
def test_a_patch_is_that_part_and_background_beyond_the_volume(cohort, start):
    data = DataSettings(source=["t1"], target=["t2"], patch=(3, 4, 5))
    patch = read(cohort, data, WINDOWS, "case1", start)
    z, y, x = (slice(first + 9, first + 9 + size) for first, size in zip(start, data.patch))
    whole = torch.nn.functional.pad(scaled(cohort, "case1", "t1"), (9,) * 6, value=-1.0)
    mask = torch.nn.functional.pad(torch.from_numpy(cohort.case("case1").mask()).float(), (9,) * 6)
    target = torch.nn.functional.pad(scaled(cohort, "case1", "t2"), (9,) * 6, value=-1.0)
    assert torch.equal(patch.source[0, 0], whole[z, y, x])
    assert torch.equal(patch.target[0, 0], target[z, y, x])
    assert torch.equal(patch.mask[0, 0], mask[z, y, x])


def test_neighbouring_slices_follow_the_slice_itself_and_repeat_at_the_ends(cohort):
    data = DataSettings(source=["t1", "t2"], target=["t2"], patch=(1, 6, 8), stack=2)
    patch = read(cohort, data, WINDOWS, "case1", (1, 0, 0))
    depths = [1, 0, 2, 0, 3]  # itself, below, above, two below (the end again), two above
    expected = torch.stack(
        [scaled(cohort, "case1", name)[d] for d in depths for name in ("t1", "t2")]
    )
    assert torch.equal(patch.source[0, :, 0], expected)
    assert patch.present.shape == (1, 10)


def test_minmax_by_slice_takes_the_whole_slices_range_for_a_patch(cohort):
    data = DataSettings(source=["t1"], target=["t2"], patch=(2, 3, 3))
    ranges = {"t1": MinMax(per="slice"), "t2": MinMax(per="volume")}
    patch = read(cohort, data, ranges, "case1", (1, 2, 2))
    t1, t2 = (cohort.case("case1").volume(name).data[0] for name in ("t1", "t2"))
    for d in (1, 2):
        expected = 2 * (t1[d] - t1[d].min()) / (t1[d].max() - t1[d].min()) - 1
        assert np.allclose(patch.source[0, 0, d - 1], expected[2:5, 2:5], atol=1e-6)
    assert np.allclose(
        patch.target[0, 0],
        (2 * (t2 - t2.min()) / (t2.max() - t2.min()) - 1)[1:3, 2:5, 2:5],
        atol=1e-6,
    )


def test_random_crops_reach_every_offset_and_the_last_one(tmp_path, save):
    # each pixel of a slice tells its place
    values = np.arange(2 * 20 * 18).reshape(2, 20, 18)
    for name in ("t1", "t2", "mask"):
        save(tmp_path / "in" / "a" / f"{name}.nii.gz", values if name != "mask" else values * 0 + 1)
    cohort = prepare(tmp_path / "in", tmp_path / "out", workers=1)
    data = DataSettings(source=["t1"], target=["t2"], patch=(1, 16, 16))
    maps = dict.fromkeys(("t1", "t2"), Window(low=0, high=1000))
    batch = Batches(cohort, data, maps, batch=150, steps=1)[0]
    seen = set()
    for source in batch.source[:, 0, 0]:
        corner = round(500 * (float(source[0, 0]) + 1))
        z, y, x = np.unravel_index(corner, values.shape)
        expected = maps["t1"].scale(None).forward(values[z, y : y + 16, x : x + 16])
        assert np.allclose(source, expected)
        seen.add((int(y), int(x)))
    assert seen == {(y, x) for y in range(5) for x in range(3)}


def test_a_mirror_takes_a_landmark_from_the_right_to_the_left(tmp_path, save):
    # stored in LPS: x index grows to the left, so the right of the patient (x mm > 0) has the low indices
    lps = np.diag([-1.0, -1, 1, 1])
    lps[:3, 3] = (4, 3, 0)
    values = np.zeros((1, 8, 10))
    values[0, 2, 1] = 1000  # x = 4 - 1 = +3 mm
    for name in ("t1", "t2", "mask"):
        save(tmp_path / "in" / "a" / f"{name}.nii.gz", values, affine=lps)
    cohort = prepare(tmp_path / "in", tmp_path / "out", workers=1)
    to_voxel = np.linalg.inv(np.array(cohort.header("a").affine))
    sides = {}
    for probability in (0.0, 1.0):
        data = DataSettings(
            source=["t1"],
            target=["t2"],
            patch=(1, 8, 10),
            augment=AugmentSettings(flip_lr=probability),
        )
        batch = Batches(cohort, data, WINDOWS, batch=1, steps=1)[0]
        place = (batch.source[0, 0, 0] == 1).nonzero()[0].tolist()
        sides[probability] = place
        assert batch.target[0, 0, 0, place[0], place[1]] == 1
    x, y, _, _ = to_voxel @ [3, 1, 0, 1]
    assert sides[0.0] == [y, x]
    assert sides[1.0] == [y, 9 - x]


def test_a_batch_depends_on_seed_and_step_alone(cohort):
    data = DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8), augment=STRONG)

    def make(seed):
        return Batches(cohort, data, WINDOWS, seed=seed, batch=3, steps=12)

    forth, back = make(1), make(1)
    batches = [forth[step] for step in range(12)]
    assert all(equal(batches[step], back[step]) for step in reversed(range(12)))
    assert not equal(batches[0], make(2)[0])
    assert not equal(batches[0], batches[1])


@pytest.mark.slow
def test_an_unpaired_target_is_never_of_the_sources_own_patient_and_is_as_likely_of_any_other(
    cohort,
):
    paired = Batches(cohort, SLICES, WINDOWS, seed=2, batch=4, steps=100)
    apart = Batches(cohort, SLICES, WINDOWS, seed=2, batch=4, steps=100, unpaired=True)
    training = cohort.splits["train"]
    places = [(case, z) for case in training for z in range(4)]
    images = {case: scaled(cohort, case, "t2").numpy() for case in training}
    place_of = {images[case][z].tobytes(): (case, z) for case, z in places}
    masks = {case: torch.from_numpy(cohort.case(case).mask()).float() for case in training}
    own = {stable_id(case, z, 0, 0): case for case, z in places}
    drawn = []
    for step in range(100):
        a, b = paired[step], apart[step]
        assert torch.equal(a.source, b.source)
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.item, b.item)
        for i, item in enumerate(b.item[:, 0].tolist()):
            case, z = place_of[b.target[i, 0, 0].numpy().tobytes()]
            assert torch.equal(masks[case][z], b.target_mask[i, 0, 0])
            assert case != own[item]
            drawn.append((case, z))
    counts = [drawn.count(place) for place in places]
    assert min(counts) > 8  # 25 are expected of each of 16 slices
    assert max(counts) < 45


@pytest.mark.parametrize("unpaired", [False, True])
def test_workers_and_processes_share_the_items_that_one_process_would_take(cohort, unpaired):
    data = DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8), augment=STRONG)
    options = {"seed": 4, "steps": 3, "unpaired": unpaired}
    whole = Batches(cohort, data, WINDOWS, batch=4, **options)
    parts = [
        Batches(cohort, data, WINDOWS, batch=2, rank=rank, world=2, **options) for rank in (0, 1)
    ]
    names = ["source", "target", "item"] + ["target_mask"] * unpaired
    for step, loaded in enumerate(DataLoader(whole, batch_size=None, num_workers=2)):
        assert equal(loaded, whole[step])
        for name in names:
            assert torch.equal(getattr(loaded, name), getattr(whole[step], name))
            joined = torch.cat([getattr(part[step], name) for part in parts])
            assert torch.allclose(joined, getattr(whole[step], name), atol=1e-5)


def test_unpaired_scans_of_one_patient_alone_are_refused(cohort):
    one = cohort.with_splits(dict.fromkeys(cohort.splits["train"][1:], "test"))
    with pytest.raises(BadInput):
        Batches(one, SLICES, WINDOWS, unpaired=True)


def test_an_epoch_takes_every_slice_once_in_a_new_order_each_time(cohort):
    batches = Batches(
        cohort, SLICES, WINDOWS, batch=4, steps=8
    )  # 4 training cases of 4 slices: two epochs
    ids = torch.cat([batches[step].item[:, 0] for step in range(8)]).tolist()
    assert len(set(ids[:16])) == 16
    assert set(ids[:16]) == set(ids[16:])
    assert ids[:16] != ids[16:]
    with pytest.raises(IndexError):
        batches[8]


def test_slices_with_too_little_foreground_are_skipped(cohort):
    training = cohort.splits["train"]
    # the mask covers 18 of 48 pixels in slices 1 to 3 and none in slice 0
    data = DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8), foreground=0.3)
    batches = Batches(cohort, data, WINDOWS, batch=1, steps=12)
    wanted = {stable_id(case, d, 0, 0) for case in training for d in (1, 2, 3)}
    assert {int(batches[step].item) for step in range(12)} == wanted
    with pytest.raises(BadInput):
        Batches(
            cohort,
            DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8), foreground=0.5),
            WINDOWS,
        )


def test_random_patches_lie_in_the_volume_and_find_the_foreground(cohort):
    data = DataSettings(source=["t1"], target=["t2"], patch=(2, 3, 4), foreground=0.4)
    batches = Batches(cohort, data, WINDOWS, batch=20, steps=3)
    masks = torch.cat([batches[step].mask for step in range(3)])
    assert (masks.mean(dim=(1, 2, 3, 4)) >= 0.4).float().mean() > 0.9
    assert len({int(item) for step in range(3) for item in batches[step].item[:, 0]}) > 20


@pytest.fixture
def ragged(cohort_folder, tmp_path) -> Cohort:
    """case0 lacks t1, case1 lacks t2, all are for training."""
    (cohort_folder / "case0" / "t1.nii.gz").unlink()
    (cohort_folder / "case1" / "t2.nii.gz").unlink()
    (cohort_folder / "cases.csv").write_text(
        "case,split\n" + "".join(f"case{k},train\n" for k in range(4))
    )
    return prepare(cohort_folder, tmp_path / "prepared", workers=1)


def test_cases_without_source_or_target_are_left_out_and_listed(ragged):
    batches = Batches(ragged, SLICES, WINDOWS, batch=1, steps=1)
    assert set(batches.starts) == {"case2", "case3"}
    assert missing_modalities(ragged, SLICES, "train") == {"case0": ["t1"], "case1": ["t2"]}
    assert batches[0].present.all()


def test_targets_may_be_absent_for_some_items_but_not_all(ragged):
    """As completion of incomplete cases needs it: each case has a source and a target, if not all of them."""
    data = DataSettings(
        source=["t1", "t2"], target=["t1", "t2"], patch=(1, 6, 8), allow_missing=True
    )
    batches = Batches(ragged, data, WINDOWS, batch=16, steps=1)
    assert set(batches.starts) == {"case0", "case1", "case2", "case3"}
    assert missing_modalities(ragged, data, "train") == {}
    batch = batches[0]
    assert torch.equal(batch.target_present, batch.present)
    assert (~batch.target_present).sum(dim=0).tolist() == [4, 4]
    assert (batch.target[~batch.target_present] == -1).all()
    assert torch.equal(batch.target, batch.source)
    assert (batch.source_names, batch.target_names) == (("t1", "t2"), ("t1", "t2"))
    alone = Batches(ragged, replace(data, target=["t2"]), WINDOWS, batch=12, steps=1)
    assert set(alone.starts) == {"case0", "case2", "case3"}  # case1 has none
    strict = missing_modalities(ragged, replace(data, allow_missing=False), "train")
    assert strict == {"case0": ["t1"], "case1": ["t2"]}


def test_label_maps_are_read_and_are_minus_one_where_a_case_has_none(cohort):
    data = DataSettings(source=["t1"], target=["t2"], patch=(2, 8, 10), labels=["seg"])
    seg = np.array(cohort.case("case0").arrays["label.seg"])
    for case, drawn in (("case0", torch.from_numpy(seg).float()), ("case1", None)):
        labels = read(cohort, data, WINDOWS, case, (1, 0, 0)).labels
        inside = torch.full((2, 6, 8), -1.0) if drawn is None else drawn[1:3]
        assert torch.equal(labels[0, 0, :, :6, :8], inside)
        assert (labels[0, 0, :, 6:] == (-1 if drawn is None else 0)).all()
    batch = Batches(cohort, data, WINDOWS, batch=2, steps=1)[0]
    assert batch.labels.shape == (2, 1, 2, 8, 10)
    weighed = replace(
        data, weigh={"seg=3": 5.0}, augment=AugmentSettings(flip_lr=1.0, rotate_degrees=20.0)
    )
    for step in range(3):
        batch = Batches(cohort, weighed, WINDOWS, steps=3)[step]
        assert torch.equal(batch.weight == 5, batch.labels == 3)  # after both were moved
    with pytest.raises(BadInput):
        Batches(cohort, replace(data, labels=["lesion"]), WINDOWS)


def test_channels_are_named_by_modality_and_slice():
    data = DataSettings(source=["t1", "pd"], target=["t2"], stack=1)
    assert data.source_names == ("t1", "pd", "t1[-1]", "pd[-1]", "t1[+1]", "pd[+1]")


def test_the_slices_of_a_patch_have_the_ids_that_they_have_alone(cohort):
    thick = DataSettings(source=["t1"], target=["t2"], patch=(3, 6, 8))
    ids = read(cohort, thick, WINDOWS, "case1", (1, 0, 0)).item[0].tolist()
    alone = [read(cohort, SLICES, WINDOWS, "case1", (z, 0, 0)).item[0].tolist() for z in (1, 2, 3)]
    assert [[one] for one in ids] == alone
    batch = Noise(0, torch.tensor([ids])).normal((1, 3, 6, 8))
    slices = Noise(0, torch.tensor(alone)).normal((1, 1, 6, 8))
    assert torch.equal(batch[0, 0], slices[:, 0, 0])


def test_a_recipe_for_other_modalities_is_refused_with_both_lists(cohort):
    with pytest.raises(BadInput):
        Batches(
            cohort,
            DataSettings(source=["t1"], target=["ct"]),
            {**WINDOWS, "ct": Window(low=0, high=1)},
        )


def test_a_split_without_cases_is_one_sentence(ragged):
    with pytest.raises(BadInput):
        list(validation_batches(ragged, SLICES, WINDOWS))


def test_validation_takes_every_slice_in_order_without_augmentation(cohort):
    data = DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8), augment=STRONG)
    (case,) = cohort.splits["val"]
    batches = list(validation_batches(cohort, data, WINDOWS, batch=3))
    assert [len(batch) for batch in batches] == [3, 1]
    assert torch.equal(
        torch.cat([batch.source for batch in batches])[:, 0, 0], scaled(cohort, case, "t1")
    )
    limited = list(validation_batches(cohort, data, WINDOWS, batch=3, limit=2))
    assert [int(item) for item in limited[0].item] == [stable_id(case, d, 0, 0) for d in (1, 3)]


def test_validation_of_thick_patches_takes_them_end_to_end_in_the_centre(cohort):
    (case,) = cohort.splits["val"]
    data = DataSettings(source=["t1"], target=["t2"], patch=(2, 4, 4))
    (batch,) = validation_batches(cohort, data, WINDOWS)
    assert batch.item.tolist() == [[stable_id(case, d + k, 1, 2) for k in (0, 1)] for d in (0, 2)]


def test_the_target_scale_is_the_typical_one_of_training_cases(cohort):
    training = cohort.splits["train"]
    highs = [cohort.case(case).volume("t2").data.max() for case in training]
    assert cohort.target_scale(MinMax(per="volume"), "t2", training).high == pytest.approx(
        np.median(highs)
    )


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(BadInput):
        DataSettings(source=["t1"], target=["t2"], patch=(0, 6, 8))
    with pytest.raises(BadInput):
        DataSettings(source=["t1", "t1"], target=["t2"])


def test_training_moves_each_patients_soft_tissue_to_that_of_the_median_patient(cohort):
    moved = Batches(cohort, replace(SLICES, level=True), WINDOWS, batch=6)
    plain = Batches(cohort, SLICES, WINDOWS, batch=6)
    headers = {case: cohort.header(case) for case in plain.starts}  # a case a patient
    levels = {
        case: one.statistics["t2"].foreground.at(25) / 250 - 1 for case, one in headers.items()
    }
    middle = np.median([*levels.values()])
    assert len({*levels.values()}) > 1
    for number in range(6):
        own = levels[plain.items[plain._item(number)][0]]
        before, after = (of[0].target[number].double() for of in (plain, moved))
        assert np.allclose(after, np.interp(before, [-1, own, 1], [-1, middle, 1]), atol=1e-6)
    assert torch.equal(plain[0].source, moved[0].source)


def test_validation_targets_have_the_soft_tissue_of_the_median_training_patient(cohort):
    def tissue(case):
        return cohort.header(case).statistics["t2"].foreground.at(25) / 250 - 1

    (plain,) = validation_batches(cohort, SLICES, WINDOWS, batch=99)
    (moved,) = validation_batches(cohort, replace(SLICES, level=True), WINDOWS, batch=99)
    middle = np.median([tissue(case) for case in cohort.splits["train"]])
    (case,) = cohort.splits["val"]
    assert tissue(case) != middle
    expected = np.interp(plain.target, [-1, tissue(case), 1], [-1, middle, 1])
    assert np.allclose(moved.target, expected, atol=1e-6)
