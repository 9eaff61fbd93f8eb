import shutil
from functools import partial

import numpy as np
import pytest

from preparing import prepare
from refusals import refuses
from voxlate.base.config import fill
from voxlate.base.items import stable_id
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.intensity import Intensity, MinMax, Window
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.data_settings import DataSettings, SliceFilter, select_slices
from voxlate.training.batches.patches import Patches

PAPER = SliceFilter(overlap=0.3, pixels=200, above={"tof": "mean", "cta": 0.0})
MAPS: dict[str, Intensity] = {"tof": MinMax(), "cta": Window(low=-50, high=350)}


prepare_pairs = partial(prepare, workers=1, audit=False, shares=(0.67, 0.33, 0))


def box(height: int, width: int, across: int = 0) -> np.ndarray:
    """A slice of 40 × 40 with a bright box."""
    plane = np.zeros((40, 40))
    plane[2 : 2 + height, across : across + width] = 1
    return plane


def data_of(slices: SliceFilter) -> DataSettings:
    return DataSettings(source=["tof"], target=["cta"], patch=(1, 40, 40), slices=slices)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, save) -> Cohort:
    """Three patients whose seven slices each break one rule, or none."""
    folder = tmp_path_factory.mktemp("slices")
    full = [
        # tof, cta
        (box(20, 20), box(20, 20)),  # the same 400 pixels: kept
        (box(20, 20), box(20, 20, 14)),  # 120 of 400 in common, Dice 0.3: kept
        (box(20, 20), box(20, 20, 15)),  # 100 of 400 in common, Dice 0.25
        (box(20, 10), box(20, 10)),  # 200 pixels: kept
        (box(20, 10), box(20, 10) - box(1, 1)),  # 199 pixels in cta
        # cta is 1 or 2 HU everywhere, all bright: Dice 2·400/(400+1600) = 0.4: kept
        (box(20, 20), box(40, 40) + 1),
        (box(20, 20), box(0, 0) + 5),  # cta is the same everywhere
    ]
    for k in range(3):
        tof, cta = map(np.stack, zip(*full))
        scans = {"tof": tof * (1000 + k), "mask": np.ones_like(tof)}
        scans["cta"] = np.where(cta > 0, 40 * cta, -1000)
        for name, values in scans.items():
            save(folder / f"in/p{k}/{name}.nii.gz", values)
    return prepare_pairs(folder / "in", folder / "out")


KEPT = [0, 1, 3, 5]


def test_training_and_validation_take_the_same_slices(cohort):
    data = data_of(PAPER)
    batches = Batches(cohort, data, MAPS, batch=1)
    wanted = {stable_id(case, d, 0, 0) for case in cohort.splits["train"] for d in KEPT}
    assert {int(batches[step].item) for step in range(8)} == wanted
    (case,) = cohort.splits["val"]
    patches = Patches(cohort, data, MAPS, "val")
    (batch,) = patches.in_batches(patches.even_places(), 8)
    assert batch.item.tolist() == [[stable_id(case, d, 0, 0)] for d in KEPT]


def test_a_case_prepared_anew_is_counted_anew(cohort, tmp_path, save, out):
    scans = shutil.copytree(cohort.folder.parent / "in", tmp_path / "in")
    before = prepare_pairs(scans, out)
    assert select_slices(before, PAPER, ["p0"])["p0"].sum() == 4
    save(scans / "p0/tof.nii.gz", np.stack([box(20, 20, 20)] * 7))
    changed = prepare_pairs(scans, out)
    assert np.flatnonzero(select_slices(changed, PAPER, ["p0"])["p0"]).tolist() == [1, 2, 5]


def test_a_filter_that_leaves_nothing_is_refused(cohort):
    strict = SliceFilter(pixels=1601, above={"tof": "mean"})
    with refuses():
        Batches(cohort, data_of(strict), MAPS)


def test_settings_of_the_filter_are_checked():
    read = {"overlap": 0.3, "pixels": 200, "above": {"tof": "mean", "cta": 0}}
    assert fill(SliceFilter, read, "recipe") == PAPER
    for wrong in ({"overlap": 0.3, "above": {"cta": 0}}, {"above": {"cta": "median"}}):
        with refuses():
            fill(SliceFilter, wrong, "recipe")
