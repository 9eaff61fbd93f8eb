"""One network for the slices of three planes: what it learns from, and the mean and spread of its three volumes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from preparing import prepare
from refusals import refuses
from rows import every_row
from stand_ins import Answering, model_of, recipe_of
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import lay_out, prepare_case, thin_slices
from voxlate.scans.images.grid import Grid, Volume
from voxlate.synthesis.sampling import planes_read, thinner_slices
from voxlate.training.batches.batches import Planes, training_batches

SHAPE = (5, 9, 7)  # from below to above, from back to front, from left to right
PLANES = ("SAR", "ASR", "RSA")


WINDOW = {"kind": "window", "low": 0, "high": 1200}


def tiny_recipe(synth=None, **data):
    settings = {"source": ["t1"], "target": ["t2"], "patch": [1, 24, 24], "planes": "all"}
    windows = {"t1": WINDOW, "t2": WINDOW}
    return recipe_of({**settings, **data}, windows, synth=synth or {})


def scan(affine=None):
    values = np.random.default_rng(0).uniform(1, 1200, SHAPE).astype(np.float32)
    return Volume(values[None], np.diag([2.0, 2, 2, 1]) if affine is None else affine, "a.u.", "t1")


def made_by(function, recipe=None, of=None, unit="a.u.", **options):
    method, units = Answering(function), {"t1": "a.u.", "t2": unit}
    model = model_of(method, recipe or tiny_recipe(), units)
    return model.synthesise({"t1": of or scan()}, **options), method.shapes


@every_row("axes", [(1, 2, 3), (-1, -2, 3), (2, 3, -1)])
def test_a_network_that_copies_its_input_gives_the_scan_and_no_spread(axes):
    """Files of RAS, LPS and ASL."""
    affine = np.zeros((4, 4))
    for column, axis in enumerate(axes):
        affine[abs(axis) - 1, column] = 2 * np.sign(axis)
    affine[3, 3] = 1
    own = scan(affine)
    of_one_plane, _ = made_by(lambda x, _: x, tiny_recipe(planes=""), own)
    made, seen = made_by(lambda x, _: x, of=own)
    assert_array_equal(made.volume.data, of_one_plane.volume.data)
    assert_allclose(made.volume.data, own.data, atol=1e-3)
    assert made.volume.grid == own.grid
    assert not of_one_plane.std
    assert not made.std["t2"].data.any(), "planes that agree have no spread"
    assert len(seen) == sum(SHAPE)


@every_row(
    "slice_mm, slices, parts, planes",
    [(5, 20, 4, 3), (6.5, 20, 5, 3), (1.3, 60, 1, 3), (8, 20, 1, 1), (5, 8, 1, 1)],
)
def test_a_starter_cuts_thick_slices_into_thinner_ones_and_reads_these_in_three_planes(
    slice_mm, slices, parts, planes
):
    """Very thick slices and few ones are read in their own plane alone."""
    made = model_of(Answering(lambda x, _: x), tiny_recipe(), {"t1": "a.u.", "t2": "HU"})
    used = Preparation(spacing_mm=(1.333, 1, 1))
    facts = replace(made.facts, starter={"name": "one"}, preparation=used)
    grid = Grid((slices, 64, 64), np.diag([1.0, 1, slice_mm, 1]))
    header = SimpleNamespace(spacing_mm=grid.spacing_mm, shape=grid.shape)
    assert thinner_slices(facts, header) == parts
    assert len(planes_read(facts, header)) == planes
    assert thinner_slices(made.facts, header) == 1, (
        "a model of the user's own reads what it was trained on"
    )


def test_thinner_slices_lie_between_the_middles_of_slices_whose_place_stays():
    scanned = Volume(
        np.arange(4, dtype=np.float32).repeat(64).reshape(1, 4, 8, 8) * 40 + 100,
        np.diag([1.0, 1, 6, 1]),
        "a.u.",
        "t1",
    )
    thick = prepare_case("one", {"t1": scanned}, Preparation(fixed="t1"))
    thin = thin_slices(thick, 4)
    heights = thin.header.affine[2][3] + thin.header.affine[2][2] * np.arange(16)
    assert_allclose(heights, np.arange(16) * 1.5 - 2.25)
    expected = np.interp(heights, np.arange(4) * 6, np.arange(4) * 40 + 100)
    assert_allclose(thin.volume("t1").data[0, :, 3, 3], expected)
    assert thin.header.statistics == thick.header.statistics
    assert thin_slices(thick, 1) is thick


def test_each_plane_has_its_own_rows_and_comes_back_in_place():
    """A network that answers with the height of a pixel in its slice: rows grow forward once, and twice upward."""

    def height(x, _):
        rows = torch.arange(x.shape[-2]).view(-1, 1) / 10
        return (rows - 1).expand_as(x)

    made, seen = made_by(height)
    depth, front, side = SHAPE
    planes = {(front, side): depth, (depth, side): front, (depth, front): side}
    assert seen == [(1, 1, *plane) for plane, count in planes.items() for _ in range(count)]
    up, forward, _ = np.indices(SHAPE)
    images = np.stack([forward, up, up]) * 60.0  # a tenth of half the window of 0 to 1200
    mean = images.mean(0)
    assert_allclose(made.volume.data[0], mean, atol=1e-3)
    assert_allclose(made.std["t2"].data[0], images.std(0, ddof=1), atol=1e-3)
    in_hu, _ = made_by(height, unit="HU")
    assert_allclose(in_hu.volume.data[0], (mean + np.median(images, axis=0)) / 2, atol=1e-3)


def test_neighbours_are_those_of_the_plane_and_the_batch_size_changes_nothing():
    """A network that answers with the slice above, in front or to the right."""
    made, again = (
        made_by(lambda x, _: x[:, 2:], tiny_recipe(stack=1), **options)[0].volume.data
        for options in ({}, {"batch": 1})
    )
    assert_array_equal(made, again)
    shifted = [
        np.take(scan().data[0], np.minimum(np.arange(length) + 1, length - 1), axis)
        for axis, length in enumerate(SHAPE)
    ]
    assert_allclose(made[0], np.mean(shifted, axis=0), atol=1e-3)


def test_a_sagittal_slice_is_not_mirrored_and_others_keep_left_and_right():
    made, seen = made_by(lambda x, _: x, tiny_recipe({"mirror": True}))
    assert_allclose(made.volume.data, scan().data, atol=1e-3)
    depth, front, side = SHAPE
    assert len(seen) == 2 * depth + 2 * front + side


def test_planes_have_noise_of_their_own_whatever_the_batch_size():
    def noisy(recipe=None, **options):
        return made_by(lambda x, noise: 0.1 * noise(x), recipe, **options)[0]

    made, again, of_one_plane = noisy(), noisy(batch=2), noisy(tiny_recipe(planes=""))
    assert_array_equal(made.volume.data, again.volume.data)
    spread, of_one = made.volume.data.std(), of_one_plane.volume.data.std()
    assert spread == pytest.approx(of_one / 3**0.5, rel=0.15)  # three draws, not one three times
    assert made.std["t2"].data.mean() == pytest.approx(0.886 * of_one, rel=0.1)  # of three normals


@pytest.fixture(scope="module")
def cohort(small_head, tmp_path_factory):
    """A prepared cohort of one case, 20 voxels wide, 24 deep and 6 high."""
    folder = tmp_path_factory.mktemp("planes")
    small_head(folder / "cohort/a", 1)
    return prepare(folder / "cohort", folder / "out", workers=0, shares=(1, 0, 0), audit=False)


@pytest.fixture(scope="module")
def batches(cohort):
    """batches(recipe, batch=2): those of the cohort."""
    return lambda recipe, **sizes: training_batches(cohort, recipe.data, recipe.intensity, **sizes)


def test_a_training_takes_a_batch_of_each_plane_in_turn(batches):
    drawn = batches(tiny_recipe(stack=1), batch=2)
    assert isinstance(drawn, Planes)
    assert len(drawn.items) == 6 + 24 + 20
    orders = set()
    for turn in range(10):
        own = [plane[turn].source for plane in drawn.planes]
        three = [drawn[3 * turn + k].source for k in range(3)]
        order = [
            next(k for k, one in enumerate(own) if torch.equal(one, source)) for source in three
        ]
        assert sorted(order) == [0, 1, 2]
        orders.add(tuple(order))
    assert len(orders) > 2


@every_row("plane, axes", [*enumerate(PLANES)])
def test_a_training_s_slices_are_those_of_the_plane_with_their_own_neighbours(
    batches, cohort, plane, axes
):
    recipe = tiny_recipe(stack=1)
    drawn = batches(recipe, batch=60).planes[plane][0].source
    case = lay_out(cohort.case("a"), axes)
    scale = recipe.intensity["t1"].scale(case.header.statistics["t1"])
    values = scale.forward(np.asarray(case.arrays["t1"], np.float32))
    length, height, width = values.shape
    expected = {values[[z, max(z - 1, 0), min(z + 1, length - 1)]].tobytes() for z in range(length)}
    shown = drawn[:, :, 0, :height, :width].contiguous().numpy()
    assert {slices.tobytes() for slices in shown} == expected


def test_slices_of_each_plane_show_enough_of_the_body(batches, cohort):
    mask = cohort.case("a").mask()
    for axis, plane in enumerate(batches(tiny_recipe(foreground=0.1)).planes):
        share = mask.mean(axis=tuple({0, 1, 2} - {axis}))
        starts = [start for _, start in plane.items]
        assert starts == np.flatnonzero(share >= 0.1).tolist()
        assert len(starts) < mask.shape[axis] or axis == 0


@every_row("plane", range(3))
def test_left_and_right_are_mirrored_in_the_planes_that_show_them(batches, plane):
    plain, flipped = (
        batches(recipe, batch=2).planes[plane][0].target
        for recipe in (tiny_recipe(), tiny_recipe(augment={"flip_lr": 1.0}))
    )
    assert torch.equal(flipped, plain if plane == 2 else plain.flip(-1))


@every_row(
    "data, synth, found",
    [
        ({"patch": [8, 24, 24]}, {}, "data.planes: expected one plane"),
        ({"centred": True}, {}, "data.planes: expected one plane"),
        ({"apart": True}, {}, "data.planes: expected one plane"),
        ({}, {"slices": {"kind": "resized"}}, "synth.slices: expected slices as they are"),
    ],
)
def test_what_knows_one_plane_alone_is_refused(data, synth, found):
    with refuses(found):
        tiny_recipe(synth, **data)
