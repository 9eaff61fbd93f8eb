"""Slices in another layout: the same voxels, moved and flipped, in the network's input, and back on the scan's grid."""

from dataclasses import replace
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor

from rows import every_row
from stand_ins import model_of, recipe_of
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import MASK, PreparedCase, prepare_case
from voxlate.scans.cases.layout import Axes, lay_out, reorder_axes
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import MinMax
from voxlate.science.batch import Batch
from voxlate.training.batches.batches import Batches, batches_of
from voxlate.training.batches.patches import DataSettings, read_pair
from voxlate.training.recipe import Recipe

SLICEWISE = MinMax(per="slice")


def case_of(shape: tuple[int, int, int] = (4, 5, 7)) -> PreparedCase:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    scan = read_like(values, np.diag([1.5, 2.0, 3.0, 1.0]))
    mask = read_like((values % 7 < 3).astype(np.float32), scan.affine)
    return prepare_case("a", {"t1": scan}, Preparation(), mask=mask)


def read_like(values: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(values[None], affine, "a.u.", "t1", "t1.nii.gz")


@every_row("axes", get_args(Axes))
def test_every_layout_moves_each_voxel_with_its_place(axes):
    case = case_of()
    other = lay_out(case, axes)
    values = np.asarray(case.arrays["t1"][:])
    moved = other.arrays["t1"][:]
    assert other.header.shape == moved.shape
    at = {}
    for array, header in ((values, case.header), (moved, other.header)):
        for z, y, x in np.ndindex(*header.shape):
            place = tuple(np.round(np.array(header.affine) @ (x, y, z, 1), 6))
            at.setdefault(place, set()).add(float(array[z, y, x]))
    assert len(at) == values.size
    assert all(len(found) == 1 for found in at.values())
    codes = "".join(nib.aff2axcodes(np.array(other.header.affine)))
    assert codes[::-1] == axes
    np.testing.assert_array_equal(reorder_axes(moved, axes, "SAR"), values)
    (z, y, x), mask = other.header.mask_box, other.arrays[MASK][:]
    assert [list(one) for one in (z, y, x)] == [
        [
            int(np.flatnonzero(mask.any(axis=rest)).min()),
            int(np.flatnonzero(mask.any(axis=rest)).max()) + 1,
        ]
        for rest in ((1, 2), (0, 2), (0, 1))
    ]


STORED = {  # a file of each orientation, and what brings its array to LPS, as the paper's files are stored
    "topcow_pair/mra.nii.gz": ("LPS", (1, 1)),
    "native_unaligned/chris/mra.nii.gz": ("RAS", (-1, -1)),
    "brats_like/openMS-cs-patient07/t1.nii.gz": ("LAS", (1, -1)),
}


@every_row("name", STORED)
def test_slp_slices_are_the_slices_of_the_stored_lps_array_bit_for_bit(shared, name):
    codes, (left, back) = STORED[name]
    image = nib.load(shared / "data" / name)
    assert "".join(nib.aff2axcodes(image.affine)) == codes
    raw = image.get_fdata(dtype=np.float32)[::left, ::back]
    case = prepare_case(
        "a", {"t1": read_volume(shared / "data" / name, "t1")}, Preparation(), masked=False
    )
    data = DataSettings(source=["t1"], target=["t1"], patch=(1, *raw.shape[:2]), axes="SLP")
    for k in range(0, raw.shape[2], 31):
        seen = read_pair(case, data, {"t1": SLICEWISE}, (k, 0, 0)).source[0, 0, 0].numpy()
        plane = raw[:, :, k]
        expected = SLICEWISE.scale(case.header.statistics["t1"], k).forward(plane.copy())
        np.testing.assert_array_equal(seen, expected)
        low, high = plane.min(), plane.max()
        if high > low:  # the paper's own scaling
            np.testing.assert_allclose(seen, (plane - low) / (high - low) * 2 - 1, atol=1e-6)


@pytest.fixture(scope="module")
def ready(small_head, tmp_path_factory) -> tuple[Cohort, Volume]:
    """A prepared cohort of one case (20 voxels wide, 24 deep, 6 high), and its scan as stored."""
    folder = tmp_path_factory.mktemp("layout")
    small_head(folder / "cohort" / "a", 1)
    cohort = prepare(folder / "cohort", folder / "out", workers=0, shares=(1, 0, 0))
    return cohort, read_volume(folder / "cohort" / "a" / "t1.nii.gz", "t1")


@every_row("axes", get_args(Axes))
def test_training_and_synthesis_see_the_same_slices_and_the_image_lies_on_the_scan_s_grid(
    ready, axes
):
    """A method that answers with its input: the image is then the scan."""
    cohort, scan = ready
    recipe = tiny_recipe(axes)
    made, seen = synthesised(recipe, scan)
    np.testing.assert_allclose(made.data, scan.data.clip(0, 1200), atol=1e-3)
    assert made.grid == scan.grid
    _, height, width = seen[0].shape[1:]
    assert (height, width) == ((24, 20) if axes[1] in "AP" else (20, 24))
    (batch,) = batches_of(
        cohort, recipe.data, recipe.intensity, [("a", (z, 0, 0)) for z in range(6)], 6
    )
    for drawn, one in zip(batch.source, seen, strict=True):
        assert torch.equal(drawn[..., :height, :width], one)
        assert (
            drawn[..., height:, :].eq(-1).all()
        )  # padded at the bottom and at the right, as the network sees it
        assert drawn[..., :, width:].eq(-1).all()


def test_resized_slices_are_those_of_the_layout_resized(ready):
    _, scan = ready
    made, seen = synthesised(
        tiny_recipe("SLP", synth={"slices": {"kind": "resized", "size": [40, 30]}}), scan
    )
    _, plain = synthesised(
        tiny_recipe("SAR", synth={"slices": {"kind": "resized", "size": [30, 40]}}), scan
    )
    for one, other in zip(seen, plain, strict=True):
        assert one.shape[1:] == (1, 40, 30)
        torch.testing.assert_close(one[0, 0], other[0, 0].flip(0, 1).mT, atol=1e-4, rtol=0)
    assert made.grid == scan.grid


@every_row("axes", ["SAR", "SLP", "SRP", "SPL"])
def test_left_and_right_are_mirrored_whatever_the_axis(ready, axes):
    cohort, scan = ready
    axis = -1 if axes[2] in "LR" else -2
    _, seen = synthesised(tiny_recipe(axes, synth={"mirror": True, "batch": 6}), scan)
    assert all(
        torch.equal(once.flip(axis), again) for once, again in zip(seen[:6], seen[6:], strict=True)
    )
    plain, flipped = (
        Batches(
            cohort, tiny_recipe(axes, flip_lr=share).data, tiny_recipe(axes).intensity, batch=6
        )[0]
        for share in (0.0, 1.0)
    )
    assert torch.equal(plain.source.flip(axis), flipped.source)
    assert torch.equal(plain.target.flip(axis), flipped.target)


def test_a_middle_column_needs_columns_from_side_to_side():
    DataSettings(source=["t1"], target=["t2"], centred=True, axes="SPL")
    with pytest.raises(BadInput, match=r"data.axes: expected columns .* found SLP"):
        DataSettings(source=["t1"], target=["t2"], centred=True, axes="SLP")


def test_an_unknown_layout_is_refused():
    with pytest.raises(BadInput, match=r"data\.axes"):
        tiny_recipe("RAS")


def tiny_recipe(axes: str, flip_lr: float = 0.0, **more: Any) -> Recipe:
    window = {"kind": "window", "low": 0, "high": 1200}
    data = {"source": ["t1"], "target": ["t2"], "patch": [1, 24, 24], "axes": axes}
    data["augment"] = {"flip_lr": flip_lr}
    return recipe_of(data, {"t1": window, "t2": window}, **more)


class Echo(torch.nn.Module):
    """A method that keeps what it is given, and answers with it."""

    net = torch.nn.Identity()

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def synthesise(self, batch: Batch, noise: object, sampling: object) -> Tensor:
        self.seen.extend(batch.source)
        return batch.source[:, :1]


def synthesised(recipe: Recipe, scan: Volume) -> tuple[Volume, list[Tensor]]:
    method = Echo()
    recipe = replace(recipe, synth=replace(recipe.synth, batch=6))
    model = model_of(method, recipe, {"t2": "a.u."})
    return model.synthesise({"t1": scan}).volume, method.seen
