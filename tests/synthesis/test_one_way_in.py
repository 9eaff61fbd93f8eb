"""One way in: the same scans give the network the same numbers in training, from disk, and at synthesis, in memory."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from preparing import prepare
from rows import every_row, slow
from stand_ins import Answering, model_of, recipe_of
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.config import settings
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import resample, with_spacing
from voxlate.scans.images.intensity import IntensityMap, Scale
from voxlate.training.batches.patches import Patches
from voxlate.training.weights import make_header

SIZE, PATCH = (48, 56, 20), [1, 56, 48]  # x, y, z
WINDOW = {"kind": "window", "low": -100, "high": 1200}
MINMAX, PERCENTILE = {"kind": "minmax"}, {"kind": "percentile"}
STRIPPED = {"kind": "translate", "inside": True, "strip": True}


@settings
class HalfOfTheMean(IntensityMap):
    """An intensity map of a user's own."""

    share: float = 0.5

    def scale(self, statistics, slice_index=None):
        assert statistics is not None
        return Scale(0.0, statistics.all.mean / self.share)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Two phantom heads; the second has no t1."""
    out = tmp_path_factory.mktemp("heads") / "cohort"
    write_cohort(out, cases=2, size=SIZE, lesion="tumour", modalities=["ncct", "t1", "t2"])
    (out / "phantom_001/t1.nii.gz").unlink()
    return out


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """ready(root, **preparation): a cohort prepared in this way, once."""

    @cache
    def make(root, **preparation):
        out = tmp_path_factory.mktemp("ready") / "out"
        return prepare(root, out, workers=1, audit=False, shares=(1, 0, 0), **preparation)

    return make


@pytest.fixture
def copied(heads, tmp_path):
    """copied(change): a folder of one case "a", whose scans are change(name, volume)."""

    def copy(change):
        for name in ("ncct", "t1", "t2"):
            volume = read_volume(heads / f"phantom_000/{name}.nii.gz", name)
            write_volume(tmp_path / f"in/a/{name}.nii.gz", change(name, volume))
        return tmp_path / "in"

    return copy


MAPS = {"ncct": WINDOW, "t1": PERCENTILE}


@pytest.fixture
def both_ways(heads, ready):
    """Of one case: the patches that training reads at the places where synthesis reads, and those of synthesis."""

    def read(data=None, intensity=MAPS, task=STRIPPED, root=heads, case=None, **preparation):
        case = case or ("phantom_000" if root == heads else "a")
        recipe = recipe_of(
            {"source": ["ncct", "t1"], "target": ["t2"], "patch": PATCH, **(data or {})},
            {"t2": WINDOW, **intensity},
            task=task,
        )
        cohort = ready(root, **preparation)
        header = make_header(recipe, torch.nn.Identity(), cohort, 0, 0.0)
        model = model_of(Answering(), recipe, header["units"], **header)
        (files,) = [one for one in find_cohort(root).cases if one.case == case]
        scans = {**files.files, **({"mask": files.mask} if files.mask else {})}
        scans = {name: scans[name] for name in model.scan_names if name in scans}
        made = model.synthesise(scans, case=case, batch=1)
        depth = cohort.header(case).shape[0] if recipe.data.patch[0] == 1 else 1
        places = [(case, (z, 0, 0)) for z in range(depth)]
        trained = Patches(cohort, recipe.data, recipe.intensity).read(places)
        return trained, model.network.method.batches, made

    return read


def assert_equal(trained, synthesised, mask=True):
    order = [trained.item.tolist().index(item) for one in synthesised for item in one.item.tolist()]
    for name in ("source", "present", "item", *(["mask"] if mask else [])):
        mine = torch.cat([getattr(batch, name) for batch in synthesised])
        assert torch.equal(getattr(trained, name)[order], mine), name
    assert synthesised[0].source_names == trained.source_names
    assert trained.source.std() > 0.1


OWN = {"kind": f"{__name__}:HalfOfTheMean", "share": 0.4}


@every_row("t1", [WINDOW, MINMAX, PERCENTILE, OWN])
def test_every_intensity_map_gives_the_same_network_input_both_ways(both_ways, t1):
    maps = {"ncct": PERCENTILE, "t1": t1}
    trained, synthesised, _ = both_ways(intensity=maps, task={"kind": "translate"})
    assert len(synthesised) == len(trained) == SIZE[2]
    assert_equal(trained, synthesised, mask=False)  # nothing asks for a mask


@every_row(
    "data, preparation",
    [
        ({}, {}),
        ({}, {"mask": "brain"}),
        ({"stack": 2}, {}),
        ({"patch": [24, 56, 48]}, {}),
        ({"patch": [24, 56, 48], "stack": 1}, {}),
        ({"patch": [1, 27, 20]}, {"spacing_mm": (20.0, 9.0, 10.0)}),
    ],
)
def test_every_preparation_is_repeated_at_synthesis(both_ways, data, preparation):
    trained, synthesised, _ = both_ways(data, **preparation)
    assert_equal(trained, synthesised)
    assert 0.05 < trained.mask.mean() < 0.95


@slow
def test_an_alignment_is_repeated_at_synthesis(both_ways):
    assert_equal(*both_ways(align="midline")[:2])


def test_images_of_resized_scans_come_back_on_the_scans_own_grid(both_ways, copied):
    """The recorder answers with the CT, resized and back; the voxels of t1 and t2 are wider, as those of paper 004's MRA."""
    wider = np.array([2.0, 0.9, 0.9]) / (0.8, 0.34, 0.34)

    def change(name, volume):
        if name == "ncct":
            return volume
        return resample(volume, with_spacing(volume.grid, wider * volume.grid.spacing_mm))

    root, how = copied(change), {"resample": True, "matrix": (25, 44, 64)}
    trained, synthesised, made = both_ways({"patch": [1, 44, 64]}, root=root, **how)
    assert_equal(trained, synthesised, mask=False)
    assert len(trained.source) == 25
    scan, image = read_volume(root / "a/ncct.nii.gz", "ncct"), made.volumes["t2"]
    assert image.grid == scan.grid
    clipped = np.clip(scan.data[0], -100, 1200)
    assert np.corrcoef(clipped.ravel(), image.data[0].ravel())[0, 1] > 0.9


def test_a_target_that_shows_more_than_the_sources_does_not_move_the_mask(both_ways, copied, ready):
    def change(name, volume):
        if name == "t2":
            volume.data[:, 2:-2, 2:-2, 2:-2] += 500
        return volume

    root = copied(change)
    trained, synthesised, _ = both_ways(root=root)
    assert_equal(trained, synthesised)
    assert ready(root).case("a").mask().sum() > 1.2 * trained.mask.sum(), "foreground of all"


def test_a_mask_file_wins_both_ways(both_ways, copied, ready):
    root = copied(lambda _, volume: volume)
    box = read_volume(root / "a/t1.nii.gz", "mask")
    box.data[:] = 0
    box.data[:, 3:9, 2:26, 2:28] = 1
    write_volume(root / "a/mask.nii.gz", box)
    trained, synthesised, made = both_ways(root=root, mask="brain")
    assert_equal(trained, synthesised)
    assert ready(root, mask="brain").header("a").mask_from == "mask.nii.gz"
    assert trained.mask.sum() == box.data.sum()
    # slices outside the mask are not made
    assert (made.volume.data[0, [0, 1, 2, 9, 10, 11]] == -100).all()


def test_unequal_grids_are_resampled_both_ways_and_the_image_has_the_first_source_s_own(
    both_ways, heads, copied
):
    def change(name, volume):
        if name != "t1":
            return volume
        affine = volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        data = np.ascontiguousarray(volume.data[:, ::2, ::2, ::2])
        return replace(volume, data=data, affine=affine)

    root, maps = copied(change), {"ncct": WINDOW, "t1": PERCENTILE}
    options = {"intensity": maps, "root": root, "resample": True}
    trained, synthesised, made = both_ways({"source": ["t1", "ncct"]}, **options)
    assert_equal(trained, synthesised, mask=False)
    assert made.volume.grid == read_volume(root / "a/t1.nii.gz").grid
    assert made.provenance["prepared"]["fixed"] == "ncct"
    _, _, made = both_ways({"source": ["t1"]}, task={"kind": "translate"}, **options)
    stated = made.provenance["prepared"]
    assert stated["fixed"] == "t1"
    spacing = read_volume(heads / "phantom_000/ncct.nii.gz").grid.spacing_mm
    assert stated["spacing_mm"] == pytest.approx(spacing, rel=1e-4), "that of the training is kept"


def test_a_missing_source_is_background_both_ways(both_ways):
    data = {"allow_missing": True, "stack": 1}
    trained, synthesised, _ = both_ways(data, case="phantom_001")
    assert_equal(trained, synthesised, mask=False)
    assert trained.present[0].tolist() == [True, False] * 3
    assert trained.source_names == ("ncct", "t1", "ncct[-1]", "t1[-1]", "ncct[+1]", "t1[+1]")
    assert (trained.source[:, 1::2] == -1).all()
