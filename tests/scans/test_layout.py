"""Slices in another layout: the same voxels, moved and flipped, in the network's input, and back on the scan's grid."""

from dataclasses import replace
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from preparing import prepare
from refusals import refuses
from rows import every_row
from scans import indices
from stand_ins import Answering, model_of, recipe_of
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import MASK, Axes, PreparedCase, lay_out, prepare_case, reorder_axes
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Grid, Volume
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.batches.patches import Patches
from voxlate.training.recipe import Recipe


@pytest.fixture(scope="module")
def case() -> PreparedCase:
    values = np.arange(140, dtype=np.float32).reshape(4, 5, 7)
    scan, mask = (
        Volume(data[None], np.diag([1.5, 2.0, 3.0, 1.0]), "a.u.", "t1", "t1.nii.gz")
        for data in (values, np.float32(values % 7 < 3))
    )
    return prepare_case("a", {"t1": scan}, Preparation(), mask=mask)


def values_by_place(case: PreparedCase) -> dict[tuple[float, ...], float]:
    """The value of each voxel by its place in mm."""
    affine = np.array(case.header.affine)
    places = affine @ indices(Grid(case.header.shape, affine)).reshape(4, -1)
    return dict(zip(map(tuple, places.T.round(6)), case.arrays["t1"][:].ravel(), strict=True))


@every_row("axes", get_args(Axes))
def test_every_layout_moves_each_voxel_with_its_place(case, axes):
    other = lay_out(case, axes)
    moved = other.arrays["t1"][:]
    assert other.header.shape == moved.shape
    assert values_by_place(other) == values_by_place(case)
    assert "".join(nib.aff2axcodes(np.array(other.header.affine)))[::-1] == axes
    assert_array_equal(reorder_axes(moved, axes, "SAR"), case.arrays["t1"][:])
    inside = np.argwhere(other.arrays[MASK][:])
    assert_array_equal(other.header.mask_box, np.stack([inside.min(0), inside.max(0) + 1], 1))


@pytest.fixture(scope="module")
def ready(small_head, tmp_path_factory) -> tuple[Cohort, Volume]:
    """A prepared cohort of one case (20 voxels wide, 24 deep, 6 high), and its scan as stored."""
    folder = tmp_path_factory.mktemp("layout")
    small_head(folder / "cohort/a", 1)
    cohort = prepare(folder / "cohort", folder / "out", workers=0, shares=(1, 0, 0))
    return cohort, read_volume(folder / "cohort/a/t1.nii.gz", "t1")


@every_row("axes", get_args(Axes))
def test_training_and_synthesis_see_the_same_slices_and_the_image_lies_on_the_scan_s_grid(
    ready, axes
):
    """A method that answers with its input: the image is then the scan."""
    cohort, scan = ready
    recipe = tiny_recipe(axes)
    made, seen = synthesised(recipe, scan)
    assert_allclose(made.data, scan.data.clip(0, 1200), atol=1e-3)
    assert made.grid == scan.grid
    _, height, width = seen[0].shape[1:]
    assert (height, width) == ((24, 20) if axes[1] in "AP" else (20, 24))
    patches = Patches(cohort, recipe.data, recipe.intensity)
    batch = patches.read([("a", (z, 0, 0)) for z in range(6)])
    # padded at the bottom and at the right, as the network sees it
    padded = torch.nn.functional.pad(torch.stack(seen), (0, 24 - width, 0, 24 - height), value=-1)
    assert torch.equal(batch.source, padded)


@every_row("axes", ["SAR", "SLP", "SRP", "SPL"])
def test_left_and_right_are_mirrored_whatever_the_axis(ready, axes):
    cohort, scan = ready
    axis = -1 if axes[2] in "LR" else -2
    _, seen = synthesised(tiny_recipe(axes, synth={"mirror": True, "batch": 6}), scan)
    assert torch.equal(torch.stack(seen[:6]).flip(axis), torch.stack(seen[6:]))
    recipes = [tiny_recipe(axes, flip_lr=share) for share in (0.0, 1.0)]
    plain, flipped = (Batches(cohort, one.data, one.intensity, batch=6)[0] for one in recipes)
    assert torch.equal(plain.source.flip(axis), flipped.source)
    assert torch.equal(plain.target.flip(axis), flipped.target)


def test_a_middle_column_needs_columns_from_side_to_side():
    DataSettings(source=["t1"], target=["t2"], centred=True, axes="SPL")
    with refuses():
        DataSettings(source=["t1"], target=["t2"], centred=True, axes="SLP")
    with refuses():
        tiny_recipe("RAS")


def tiny_recipe(axes: str, flip_lr: float = 0.0, **more: Any) -> Recipe:
    window = {"kind": "window", "low": 0, "high": 1200}
    data = {"source": ["t1"], "target": ["t2"], "patch": [1, 24, 24], "axes": axes}
    data["augment"] = {"flip_lr": flip_lr}
    return recipe_of(data, {"t1": window, "t2": window}, **more)


def synthesised(recipe: Recipe, scan: Volume) -> tuple[Volume, list[Tensor]]:
    method = Answering()
    recipe = replace(recipe, synth=replace(recipe.synth, batch=6))
    return model_of(method, recipe, {"t2": "a.u."}).synthesise({"t1": scan}).volume, method.seen
