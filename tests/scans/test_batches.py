from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from voxlate.base.items import stable_id
from voxlate.scans.images.intensity import Intensity, MinMax, Window
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Problem
from voxlate.science.nets.interface import NetworkInput
from voxlate.training import recipe as recipes
from voxlate.training.batches.augment import AugmentSettings
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.data_settings import DataSettings, missing_modalities
from voxlate.training.batches.patches import Patches, read_pair

WINDOWS: Mapping[str, Intensity] = {"t1": Window(low=0, high=1000), "t2": Window(low=0, high=500)}
SLICES = DataSettings(source=["t1"], target=["t2"], patch=(1, 6, 8))
MOVED = replace(
    SLICES,
    augment=AugmentSettings(
        flip_lr=0.5, rotate_degrees=30, scale=0.2, elastic_mm=1, gamma=0.5, noise=0.1
    ),
)


def equal(a, b):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("source", "target", "mask", "present", "item")
    )


def scaled(cohort, case, name):
    """The whole volume in network units, the slow way."""
    scale = WINDOWS[name].scale(None)
    return torch.from_numpy(scale.forward(cohort.case(case).volume(name).data[0]))


def batches_of(cohort, data, batch=4, steps=4):
    batches = Batches(cohort, data, WINDOWS, batch=batch)
    return [batches[step] for step in range(steps)]


def validation_batches(cohort, data, batch=8, limit=None):
    patches = Patches(cohort, data, WINDOWS, "val")
    return [*patches.in_batches(patches.even_places(limit), batch)]


def mask_of(cohort, case):
    return torch.from_numpy(cohort.case(case).mask()).float()


def read(cohort, data, start, maps=WINDOWS, case="case1"):
    return read_pair(cohort.case(case), data, maps, start)


@every_row("start", [(1, 2, 3), (-1, -2, -3), (2, 4, 6), (7, 0, 0)])
def test_a_patch_is_that_part_and_background_beyond_the_volume(six, start):
    size = (3, 4, 5)
    patch = read(six, replace(SLICES, patch=size), start)
    place = tuple(slice(first + 9, first + 9 + length) for first, length in zip(start, size))
    for part, whole, beyond in (
        (patch.source, scaled(six, "case1", "t1"), -1.0),
        (patch.target, scaled(six, "case1", "t2"), -1.0),
        (patch.mask, mask_of(six, "case1"), 0.0),
    ):
        padded = torch.nn.functional.pad(whole, (9,) * 6, value=beyond)
        assert torch.equal(part[0, 0], padded[place])


def test_neighbouring_slices_follow_the_slice_itself_repeat_at_the_ends_and_are_named(six):
    data = replace(SLICES, source=["t1", "t2"], stack=2)
    patch = read(six, data, (1, 0, 0))
    depths = [1, 0, 2, 0, 3]  # itself, below, above, two below (the end again), two above
    expected = torch.stack([scaled(six, "case1", name)[d] for d in depths for name in ("t1", "t2")])
    assert torch.equal(patch.source[0, :, 0], expected)
    assert patch.present.shape == (1, 10)
    names = replace(data, stack=1).source_names
    assert names == ("t1", "t2", "t1[-1]", "t2[-1]", "t1[+1]", "t2[+1]")


def test_minmax_by_slice_takes_the_whole_slices_range_for_a_patch(six):
    ranges = {"t1": MinMax(per="slice"), "t2": MinMax(per="volume")}
    patch = read(six, replace(SLICES, patch=(2, 3, 3)), (1, 2, 2), ranges)

    def in_range(whole):
        return 2 * (whole - whole.min()) / (whole.max() - whole.min()) - 1

    t1, t2 = (six.case("case1").volume(name).data[0] for name in ("t1", "t2"))
    for d in (0, 1):
        expected = in_range(t1[d + 1])[2:5, 2:5]
        assert np.allclose(patch.source[0, 0, d], expected, atol=1e-6)
    assert np.allclose(patch.target[0, 0], in_range(t2)[1:3, 2:5, 2:5], atol=1e-6)


@pytest.fixture
def one_case(tmp_path, save):
    """one_case(values): a cohort of one case whose t1 and t2 have these values."""

    def make(values, **place):
        for name in ("t1", "t2"):
            save(tmp_path / "in" / "a" / f"{name}.nii.gz", values, **place)
        save(tmp_path / "in" / "a" / "mask.nii.gz", np.ones_like(values), **place)
        return prepare(tmp_path / "in", tmp_path / "out", workers=1)

    return make


def test_random_crops_reach_every_offset_and_the_last_one(one_case):
    # each pixel of a slice tells its place
    values = np.arange(2 * 20 * 18).reshape(2, 20, 18)
    maps = dict.fromkeys(("t1", "t2"), Window(low=0, high=1000))
    data = replace(SLICES, patch=(1, 16, 16))
    seen = set()
    for source in Batches(one_case(values), data, maps, batch=150)[0].source[:, 0, 0]:
        corner = round(500 * (float(source[0, 0]) + 1))
        z, y, x = np.unravel_index(corner, values.shape)
        expected = maps["t1"].scale(None).forward(values[z, y : y + 16, x : x + 16])
        assert np.allclose(source, expected)
        seen.add((int(y), int(x)))
    assert seen == {(y, x) for y in range(5) for x in range(3)}


@slow
def test_an_unpaired_target_is_never_of_the_sources_own_patient_and_is_as_likely_of_any_other(six):
    paired, apart = (
        Batches(six, SLICES, WINDOWS, seed=2, batch=4, unpaired=unpaired)
        for unpaired in (False, True)
    )
    places = [(case, z) for case in six.splits["train"] for z in range(4)]
    place_of = {scaled(six, case, "t2")[z].numpy().tobytes(): (case, z) for case, z in places}
    own = {stable_id(case, z, 0, 0): case for case, z in places}
    drawn = []
    for step in range(100):
        a, b = paired[step], apart[step]
        for name in ("source", "mask", "item"):
            assert torch.equal(getattr(a, name), getattr(b, name))
        for i, item in enumerate(b.item[:, 0].tolist()):
            case, z = place_of[b.target[i, 0, 0].numpy().tobytes()]
            assert torch.equal(mask_of(six, case)[z], b.target_mask[i, 0, 0])
            assert case != own[item]
            drawn.append((case, z))
    counts = [drawn.count(place) for place in places]
    assert min(counts) > 8  # 25 are expected of each of 16 slices
    assert max(counts) < 45


@pytest.mark.parametrize("unpaired", [False, True])
def test_workers_and_processes_share_the_items_that_one_process_would_take(six, unpaired):
    options = {"seed": 4, "unpaired": unpaired}
    whole = Batches(six, MOVED, WINDOWS, batch=4, **options)
    parts = [
        Batches(six, MOVED, WINDOWS, batch=2, rank=rank, world=2, **options) for rank in (0, 1)
    ]
    names = ["source", "target", "item"] + ["target_mask"] * unpaired
    reader = DataLoader(whole, batch_size=None, sampler=range(3), num_workers=2)
    for step, loaded in enumerate(reader):
        assert equal(loaded, whole[step])
        for name in names:
            assert torch.equal(getattr(loaded, name), getattr(whole[step], name))
            joined = torch.cat([getattr(part[step], name) for part in parts])
            assert torch.allclose(joined, getattr(whole[step], name), atol=1e-5)


def test_unpaired_scans_of_one_patient_alone_are_refused(six):
    first = six.splits["train"][0]
    one = replace(six, cases=tuple(case for case in six.cases if case.case == first))
    with refuses():
        Batches(one, SLICES, WINDOWS, unpaired=True)


def test_an_epoch_takes_every_slice_once_in_a_new_order_each_time(six):
    batches = batches_of(six, SLICES, steps=8)  # 4 cases of 4 slices: two epochs
    ids = torch.cat([batch.item[:, 0] for batch in batches]).tolist()
    assert len(set(ids[:16])) == 16
    assert set(ids[:16]) == set(ids[16:])
    assert ids[:16] != ids[16:]


def test_slices_with_too_little_foreground_are_skipped(six):
    # the mask covers 18 of 48 pixels in slices 1 to 3 and none in slice 0
    batches = batches_of(six, replace(SLICES, foreground=0.3), batch=1, steps=12)
    wanted = {stable_id(case, d, 0, 0) for case in six.splits["train"] for d in (1, 2, 3)}
    assert {int(batch.item) for batch in batches} == wanted
    with refuses():
        Batches(six, replace(SLICES, foreground=0.5), WINDOWS)


def test_random_patches_lie_in_the_volume_and_find_the_foreground(six):
    data = replace(SLICES, patch=(2, 3, 4), foreground=0.4)
    batches = batches_of(six, data, batch=20, steps=3)
    masks = torch.cat([batch.mask for batch in batches])
    assert (masks.mean(dim=(1, 2, 3, 4)) >= 0.4).float().mean() > 0.9
    assert len({int(item) for batch in batches for item in batch.item[:, 0]}) > 20


@pytest.fixture
def ragged(cohort_folder, tmp_path):
    """case0 lacks t1, case1 lacks t2, all are for training."""
    (cohort_folder / "case0" / "t1.nii.gz").unlink()
    (cohort_folder / "case1" / "t2.nii.gz").unlink()
    rows = [f"case{k},train" for k in range(4)]
    (cohort_folder / "cases.csv").write_text("\n".join(["case,split", *rows]))
    return prepare(cohort_folder, tmp_path / "prepared", workers=1)


def test_cases_without_source_or_target_are_left_out_and_listed_and_a_split_of_none_is_refused(
    ragged,
):
    batches = Batches(ragged, SLICES, WINDOWS, batch=1)
    assert set(batches.starts) == {"case2", "case3"}
    assert missing_modalities(ragged, SLICES, "train") == {"case0": ["t1"], "case1": ["t2"]}
    assert batches[0].present.all()
    with refuses():
        validation_batches(ragged, SLICES)


def test_targets_may_be_absent_for_some_items_but_not_all(ragged):
    """As completion of incomplete cases needs it: each case has a source and a target, if not all of them."""
    data = replace(SLICES, source=["t1", "t2"], target=["t1", "t2"], allow_missing=True)
    batches = Batches(ragged, data, WINDOWS, batch=16)
    assert set(batches.starts) == {"case0", "case1", "case2", "case3"}
    assert missing_modalities(ragged, data, "train") == {}
    batch = batches[0]
    assert torch.equal(batch.target_present, batch.present)
    assert (~batch.target_present).sum(dim=0).tolist() == [4, 4]
    assert (batch.target[~batch.target_present] == -1).all()
    assert torch.equal(batch.target, batch.source)
    assert batch.source_names == batch.target_names == ("t1", "t2")
    alone = Batches(ragged, replace(data, target=["t2"]), WINDOWS, batch=12)
    assert set(alone.starts) == {"case0", "case2", "case3"}  # case1 has none


def test_label_maps_are_read_and_are_minus_one_where_a_case_has_none(six):
    data = replace(SLICES, patch=(2, 8, 10), labels=["seg"])
    seg = torch.from_numpy(np.array(six.case("case0").arrays["label.seg"])).float()
    for case, inside, beyond in (("case0", seg[1:3], 0), ("case1", torch.full((2, 6, 8), -1), -1)):
        labels = read(six, data, (1, 0, 0), case=case).labels
        assert torch.equal(labels[0, 0, :, :6, :8], inside.float())
        assert (labels[0, 0, :, 6:] == beyond).all()
    batch = batches_of(six, data, batch=2)[0]
    assert batch.labels.shape == (2, 1, 2, 8, 10)
    moves = AugmentSettings(flip_lr=1.0, rotate_degrees=20.0)
    for batch in batches_of(six, replace(data, weigh={"seg=3": 5.0}, augment=moves), steps=3):
        assert torch.equal(batch.weight == 5, batch.labels == 3)  # after both were moved
    with refuses():
        Batches(six, replace(data, labels=["lesion"]), WINDOWS)


def test_the_slices_of_a_patch_have_the_ids_that_they_have_alone(six):
    ids = read(six, replace(SLICES, patch=(3, 6, 8)), (1, 0, 0)).item[0].tolist()
    alone = [read(six, SLICES, (z, 0, 0)).item[0].tolist() for z in (1, 2, 3)]
    assert [[one] for one in ids] == alone


def test_validation_takes_every_slice_in_order_without_augmentation(six):
    (case,) = six.splits["val"]
    batches = validation_batches(six, MOVED, batch=3)
    assert [len(batch) for batch in batches] == [3, 1]
    images = torch.cat([batch.source for batch in batches])
    assert torch.equal(images[:, 0, 0], scaled(six, case, "t1"))
    (limited,) = validation_batches(six, MOVED, batch=3, limit=2)
    assert [int(item) for item in limited.item] == [stable_id(case, d, 0, 0) for d in (1, 3)]


def test_validation_of_thick_patches_takes_them_end_to_end_in_the_centre(six):
    (case,) = six.splits["val"]
    (batch,) = validation_batches(six, replace(SLICES, patch=(2, 4, 4)))
    assert batch.item.tolist() == [[stable_id(case, d + k, 1, 2) for k in (0, 1)] for d in (0, 2)]


@pytest.fixture(scope="module")
def symmetric(tmp_path_factory, save):
    """A cohort of heads of one width that are their own mirror images."""

    @cache
    def make(width):
        folder = tmp_path_factory.mktemp(f"width{width}")
        for k in range(3):
            head = np.random.default_rng(k).uniform(100, 1000, (3, 12, width))
            head = np.maximum(head, head[..., ::-1])
            for name, image in (("t1", head), ("t2", head), ("mask", head > 600)):
                save(folder / "cohort" / f"case{k}" / f"{name}.nii.gz", image)
        return prepare(folder / "cohort", folder / "prepared", workers=1, audit=False)

    return make


CENTRED = replace(SLICES, patch=(1, 8, 10), centred=True)
RESIZED = replace(CENTRED, augment=AugmentSettings(scale=0.2, stretch=0.1, flip_lr=0.5))


@every_row("width", [6, 14])
def test_a_symmetric_head_is_learned_from_symmetric_pieces_whatever_its_width(symmetric, width):
    cohort = symmetric(width)
    validation = validation_batches(cohort, CENTRED)
    for batch in [*batches_of(cohort, CENTRED), *validation]:
        for part in (batch.source, batch.target, batch.mask):
            assert torch.equal(part, part.flip(-1))
            assert part.std() > 0.1
    for batch in batches_of(cohort, RESIZED):
        torch.testing.assert_close(batch.source, batch.source.flip(-1))


VOXELWISE = {"source": ["t1"], "target": ["t2"], "patch": (1, 4, 4)}


def test_marked_voxels_weigh_as_stated_and_those_without_a_map_once():
    data = DataSettings(**VOXELWISE, labels=["seg", "lesion"], weigh={"lesion": 10.0, "seg=3": 2.0})
    seg, lesion = torch.tensor([0.0, 3, 3, 2]), torch.tensor([0.0, 1, 0, 4])
    labels = torch.stack([torch.stack([seg, lesion]), torch.full((2, 4), -1.0)]).view(2, 2, 1, 2, 2)
    weight = data.weight(labels)
    assert weight[0].flatten().tolist() == [1, 20, 2, 10]
    assert weight[1].flatten().tolist() == [1, 1, 1, 1]
    assert DataSettings(**VOXELWISE, labels=["seg"]).weight(labels[:, :1]) is None


@every_row(
    "change",
    [
        {"patch": (0, 6, 8)},
        {"source": ["t1", "t1"]},
        {"weigh": {"lesion": 10.0}},
        {"weigh": {"seg=high": 2.0}},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change):
    with refuses():
        DataSettings(**VOXELWISE | {"labels": ["seg"]} | change)


WEIGHED = {"data.labels": '["lesion"]', "data.weigh": "{ lesion = 9 }"}


def test_the_loss_is_the_weighted_mean_of_the_errors(tiny):
    method = recipes.read(str(tiny), {"method.loss": "mse", **WEIGHED}).build()
    zeros, ones = torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 1, 8, 8)
    batch = Batch(
        source=zeros,
        mask=ones,
        present=torch.ones(1, 1, dtype=torch.bool),
        item=torch.zeros(1, 1, dtype=torch.int64),
        target=zeros,
        source_names=("t1",),
        target_names=("t2",),
    )
    problem = method.task.pose(batch, noise=object())
    image = zeros.clone()
    image[..., :2] = 1.0  # a quarter of the voxels is wrong by 1
    for weight, loss in ((None, 1 / 4), (ones + 8 * image, 9 / 12)):
        total = method.compare(image, problem.with_weight(weight))["total"]
        assert total.item() == pytest.approx(loss)


def test_a_latents_voxel_weighs_as_the_mean_of_the_images_below_it():
    coarse = Problem(NetworkInput({}), torch.ones(1, 1, 1, 2, 2))
    weight = torch.ones(1, 1, 1, 4, 4)
    weight[..., 0, 0] = 5.0
    assert coarse.with_weight(weight).loss_mask.flatten().tolist() == [2, 1, 1, 1]


def test_methods_whose_loss_is_not_of_voxels_refuse_weights():
    with refuses():
        recipes.read("cyclegan_3d_swi_mra_small", WEIGHED)
