"""One grey level of soft tissue in the targets of all patients."""

import pytest
import torch

from made_pictures import write_pictures
from preparing import prepare
from refusals import refuses
from rows import every_row
from voxlate.scans.images.intensity import Window
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.batches.levels import LIMIT, TISSUE, find_levels, to_one_level
from voxlate.training.batches.patches import Patches, can_cache

# The level of the brain, 35 HU, is darkest in the second picture.
WINDOWS = [(0, 80), (10, 90), (-10, 70), (0, 80)]
MAPS = {"mr": Window(low=0, high=255), "ct": Window(low=0, high=255)}
DATA = DataSettings(source=["mr"], target=["ct"], patch=(1, 64, 64), level=True)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Pictures of four patients, of whom the last one validates."""
    root = write_pictures(tmp_path_factory.mktemp("levels") / "pictures", WINDOWS)
    rows = (root / "cases.csv").read_text().splitlines()
    split = ["split", *("val" if ",p3," in row else "train" for row in rows[1:])]
    text = "\n".join(f"{row},{of}" for row, of in zip(rows, split))
    (root / "cases.csv").write_text(text + "\n")
    return prepare(root, root.parent / "prepared", audit=False)


def test_a_level_is_moved_exactly_and_both_ends_of_the_range_stay():
    target = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).view(1, 1, 1, 1, 5)
    moved = to_one_level(target, torch.tensor([[[0.0], [0.5]]]))
    expected = [-1.0, -0.25, 0.5, 0.75, 1.0]
    torch.testing.assert_close(moved.flatten(), torch.tensor(expected))


def test_each_target_has_a_level_of_its_own_and_its_own_level_changes_nothing():
    target = torch.rand(2, 2, 1, 4, 4) * 2 - 1
    levels = torch.tensor([[[0.2, 0.2], [0.2, -0.1]]] * 2)
    moved = to_one_level(target, levels)
    torch.testing.assert_close(moved[:, 0], target[:, 0])
    own = torch.full((2, 2, 1, 1, 1), 0.2)
    torch.testing.assert_close(to_one_level(own, levels)[:, 1].flatten(), torch.full((2,), -0.1))


def test_the_common_level_is_that_of_the_median_training_patient(cohort):
    headers = [cohort.header(case) for case in cohort.splits["train"]]
    levels = find_levels(headers, headers, ["ct"], MAPS)
    common = {case: float(both[1, 0]) for case, both in levels.items()}
    own = {case: float(both[0, 0]) for case, both in levels.items()}
    assert set(common.values()) == {own["p0s0"]}, "the window of p0 is the middle one"
    assert own["p1s0"] < own["p0s0"] < own["p2s0"]
    assert own["p0s0"] == own["p0s1"], "a patient has one level"


def test_levels_near_the_ends_of_the_range_stay_off_them(cohort):
    headers = [cohort.header(case) for case in cohort.splits["train"]]
    levels = find_levels(headers, headers, ["ct"], MAPS | {"ct": Window(low=0, high=40)})
    assert float(levels["p0s0"][0, 0]) == pytest.approx(LIMIT)


def test_targets_of_training_and_validation_have_the_level_of_the_training(cohort):
    headers = {entry.case: cohort.header(entry.case) for entry in cohort.cases}
    common = 2 * headers["p0s0"].statistics["ct"].foreground.at(TISSUE) / 255 - 1
    training, validation = (Patches(cohort, DATA, MAPS, split) for split in ("train", "val"))
    for patches, case in ((training, "p1s0"), (training, "p2s0"), (validation, "p3s0")):
        (own, wanted) = patches.levels[case][:, 0].tolist()
        assert wanted == pytest.approx(common, abs=0.02)
        plain = Patches(cohort, DATA_AS_IT_IS, MAPS, patches.split)
        (moved, kept) = (one.read([(case, (0, 0, 0))]).target for one in (patches, plain))
        at_level = (kept - own).abs().argmin()
        assert float(moved.flatten()[at_level]) == pytest.approx(wanted, abs=0.02)
        assert (moved.min(), moved.max()) == (kept.min(), kept.max())
        source = [one.read([(case, (0, 0, 0))]).source for one in (patches, plain)]
        assert torch.equal(*source)


DATA_AS_IT_IS = DataSettings(source=["mr"], target=["ct"], patch=(1, 64, 64))


def test_training_batches_have_one_level(cohort):
    batches = Batches(cohort, DATA, MAPS, seed=1, batch=6)
    plain = Batches(cohort, DATA_AS_IT_IS, MAPS, seed=1, batch=6)
    spread = [_spread_of_brain(each[0].target) for each in (batches, plain)]
    assert spread[0] < 0.1 * spread[1]


def _spread_of_brain(target):
    """The standard deviation between items of the median of what is neither black nor white."""
    medians = [item[(item > -0.9) & (item < 0.99)].median() for item in target]
    return float(torch.stack(medians).std())


def test_latents_of_levelled_targets_are_not_kept(cohort):
    assert can_cache(cohort, DATA_AS_IT_IS)
    assert not can_cache(cohort, DATA)


@every_row("other", [{"target": ["mr"]}, {"apart": True}])
def test_a_level_needs_pairs_of_sources_and_other_targets(other):
    with refuses("data.level"):
        DataSettings(**{"source": ["mr"], "target": ["ct"], "level": True, **other})
