"""One network for the slices of three planes: what it learns from, and the mean and spread of its three volumes."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from rows import every_row
from stand_ins import model_of, recipe_of
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.layout import lay_out
from voxlate.scans.cases.prepared import Cohort
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.model import Model
from voxlate.training.batches.batches import Planes, training_batches
from voxlate.training.batches.patches import DataSettings
from voxlate.training.recipe import Recipe

SHAPE = (5, 9, 7)  # from below to above, from back to front, from left to right
PLANES = ("SAR", "ASR", "RSA")


def tiny_recipe(synth: dict[str, Any] | None = None, **data: Any) -> Recipe:
    window = {"kind": "window", "low": 0, "high": 1200}
    settings = {"source": ["t1"], "target": ["t2"], "patch": [1, 24, 24], "planes": "all"}
    return recipe_of({**settings, **data}, {"t1": window, "t2": window}, synth=synth or {})


def stand_in(function, recipe: Recipe, unit: str = "a.u.") -> Model:
    """A model whose network is a function of its batch; it notes the shapes that it saw."""

    class Method(torch.nn.Module):
        net = torch.nn.Identity()

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, ...]] = []

        def synthesise(self, batch, noise, sampling):
            self.seen += [tuple(batch.source.shape[1:])] * len(batch.source)
            return function(batch.source, noise)

    return model_of(Method(), recipe, {"t1": "a.u.", "t2": unit})


def scan(affine=None) -> Volume:
    values = np.random.default_rng(0).uniform(1, 1200, SHAPE).astype(np.float32)
    return Volume(values[None], np.diag([2.0, 2, 2, 1]) if affine is None else affine, "a.u.", "t1")


def made_by(
    function,
    recipe: Recipe | None = None,
    of: Volume | None = None,
    unit: str = "a.u.",
    **options: Any,
):
    model = stand_in(function, recipe or tiny_recipe(), unit)
    return model.synthesise({"t1": of or scan()}, **options), model.network.method.seen


@every_row("codes", ["RAS", "LPS", "ASL"])
def test_a_network_that_copies_its_input_gives_the_scan_and_no_spread(codes):
    step = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1)}
    affine = np.zeros((4, 4))
    for column, letter in enumerate(codes):
        axis, sign = step[letter]
        affine[axis, column] = 2 * sign
    affine[3, 3] = 1
    own = scan(affine)
    of_one_plane, _ = made_by(lambda x, _: x, tiny_recipe(planes=""), own)
    made, seen = made_by(lambda x, _: x, of=own)
    assert_array_equal(made.volume.data, of_one_plane.volume.data)
    assert_allclose(made.volume.data, own.data, atol=1e-3)
    assert made.volume.grid == own.grid
    assert not of_one_plane.std
    assert not made.std["t2"].data.any(), "planes that agree have no spread"
    assert made.provenance["planes"] == "all; HU by mean and median"
    assert made.provenance["planes_read"] == [*PLANES]
    assert len(seen) == sum(SHAPE)


def test_each_plane_has_its_own_rows_and_comes_back_in_place():
    """A network that answers with the height of a pixel in its slice: rows grow forward once, and twice upward."""

    def height(x, _):
        rows = torch.arange(x.shape[-2]).view(-1, 1) / 10
        return (rows - 1).expand_as(x)

    made, seen = made_by(height)
    depth, front, side = SHAPE
    planes = [(front, side), (depth, side), (depth, front)]
    counts = [depth, front, side]
    assert seen == [
        (1, 1, *plane) for plane, count in zip(planes, counts, strict=True) for _ in range(count)
    ]
    up, forward, _ = np.indices(SHAPE)
    images = np.stack([forward, up, up]) * 60.0  # a tenth of half the window of 0 to 1200
    assert_allclose(made.volume.data[0], images.mean(0), atol=1e-3)
    assert_allclose(made.std["t2"].data[0], images.std(0, ddof=1), atol=1e-3)
    in_hu, _ = made_by(height, unit="HU")
    half = (images.mean(0) + np.median(images, axis=0)) / 2
    assert_allclose(in_hu.volume.data[0], half, atol=1e-3)


def test_neighbours_are_those_of_the_plane_and_the_batch_size_changes_nothing():
    """A network that answers with the slice above, in front or to the right."""
    recipe = tiny_recipe(stack=1)
    made, _ = made_by(lambda x, _: x[:, 2:], recipe)
    again, _ = made_by(lambda x, _: x[:, 2:], recipe, batch=1)
    assert_array_equal(made.volume.data, again.volume.data)
    values = scan().data[0]
    shifted = [
        np.take(values, np.minimum(np.arange(length) + 1, length - 1), axis)
        for axis, length in enumerate(SHAPE)
    ]
    assert_allclose(made.volume.data[0], np.mean(shifted, axis=0), atol=1e-3)


def test_a_sagittal_slice_is_not_mirrored_and_others_keep_left_and_right():
    made, seen = made_by(lambda x, _: x, tiny_recipe({"mirror": True}))
    assert_allclose(made.volume.data, scan().data, atol=1e-3)
    depth, front, side = SHAPE
    assert len(seen) == 2 * depth + 2 * front + side


def test_planes_have_noise_of_their_own_whatever_the_batch_size():
    def noisy(x, noise):
        return 0.1 * noise.normal_like(x)

    made, _ = made_by(noisy)
    again, _ = made_by(noisy, batch=2)
    of_one_plane, _ = made_by(noisy, tiny_recipe(planes=""))
    assert_array_equal(made.volume.data, again.volume.data)
    spread, of_one = made.volume.data.std(), of_one_plane.volume.data.std()
    assert spread == pytest.approx(of_one / 3**0.5, rel=0.15)  # three draws, not one three times
    assert made.std["t2"].data.mean() == pytest.approx(0.886 * of_one, rel=0.1)  # of three normals


@pytest.fixture(scope="module")
def cohort(small_head, tmp_path_factory) -> Cohort:
    """A prepared cohort of one case, 20 voxels wide, 24 deep and 6 high."""
    folder = tmp_path_factory.mktemp("planes")
    small_head(folder / "cohort" / "a", 1)
    return prepare(folder / "cohort", folder / "out", workers=0, shares=(1, 0, 0), audit=False)


def test_a_training_takes_a_batch_of_each_plane_in_turn(cohort):
    recipe = tiny_recipe(stack=1)
    batches = training_batches(cohort, recipe.data, recipe.intensity, batch=2, steps=30)
    assert isinstance(batches, Planes)
    assert len(batches.items) == 6 + 24 + 20
    orders = set()
    for turn in range(10):
        three = [batches[3 * turn + k] for k in range(3)]
        own = [plane[turn] for plane in batches.planes]
        order = [
            next(k for k, one in enumerate(own) if torch.equal(one.source, batch.source))
            for batch in three
        ]
        assert sorted(order) == [0, 1, 2]
        orders.add(tuple(order))
    assert len(orders) > 2


@every_row("plane, axes", [*enumerate(PLANES)])
def test_a_training_s_slices_are_those_of_the_plane_with_their_own_neighbours(cohort, plane, axes):
    recipe = tiny_recipe(stack=1)
    batches = training_batches(cohort, recipe.data, recipe.intensity, batch=60).planes[plane]
    case = lay_out(cohort.case("a"), axes)
    scale = recipe.intensity["t1"].scale(case.header.statistics["t1"])
    values = scale.forward(np.asarray(case.arrays["t1"], np.float32))
    length, height, width = values.shape
    expected = set()
    for z in range(length):
        below, above = max(z - 1, 0), min(z + 1, length - 1)
        expected.add(values[[z, below, above]].tobytes())
    drawn = batches[0].source[:, :, 0, :height, :width].contiguous().numpy()
    assert {slices.tobytes() for slices in drawn} == expected


def test_slices_of_each_plane_show_enough_of_the_body(cohort):
    recipe = tiny_recipe(foreground=0.1)
    batches = training_batches(cohort, recipe.data, recipe.intensity)
    mask = cohort.case("a").mask()
    for plane, axis in zip(batches.planes, range(3), strict=True):
        share = mask.mean(axis=tuple({0, 1, 2} - {axis}))
        starts = [start for _, start in plane.items]
        assert starts == np.flatnonzero(share >= 0.1).tolist()
        assert len(starts) < mask.shape[axis] or axis == 0


@every_row("plane", range(3))
def test_left_and_right_are_mirrored_in_the_planes_that_show_them(cohort, plane):
    plain, flipped = (
        training_batches(cohort, recipe.data, recipe.intensity, batch=2, steps=6).planes[plane][0]
        for recipe in (tiny_recipe(), tiny_recipe(augment={"flip_lr": 1.0}))
    )
    expected = plain.target if plane == 2 else plain.target.flip(-1)
    assert torch.equal(flipped.target, expected)


@every_row(
    "data, synth, found",
    [
        ({"patch": [8, 24, 24]}, {}, r"data.patch = \(8, 24, 24\)"),
        ({"centred": True}, {}, "data.centred = True"),
        ({"apart": True}, {}, "data.apart = True"),
        ({}, {"slices": {"kind": "resized"}}, "synth.slices: expected none for data.planes"),
    ],
)
def test_what_knows_one_plane_alone_is_refused(data, synth, found):
    with pytest.raises(BadInput, match=found):
        tiny_recipe(synth, **data)


def test_a_completion_reads_what_a_case_has_in_three_planes():
    table = {"source": ["t1", "t2"], "target": ["t1", "t2"], "planes": "all"}
    recipe = recipe_of(
        {**table, "patch": [1, 24, 24]},
        {name: {"kind": "window", "low": 0, "high": 1200} for name in ("t1", "t2")},
        task={"kind": "complete"},
    )
    made, seen = made_by(lambda x, _: x[:, :1].expand(-1, 2, -1, -1, -1), recipe)
    assert_allclose(made.volumes["t2"].data, scan().data, atol=1e-3)
    assert made.provenance["planes_read"] == [*PLANES]
    assert len(seen) == sum(SHAPE)


def test_settings_of_one_plane_are_their_own():
    data = DataSettings(source=["t1"], target=["t2"])
    assert data.by_plane == (data,)
