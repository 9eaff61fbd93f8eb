"""How a model sees the slices of a volume: whole, in tiles, or on the network's own grid, and what comes back."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

from refusals import refuses
from rows import every_row
from stand_ins import Answering, model_of
from voxlate.base.files import read_json
from voxlate.base.items import stable_id
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.tiling import range_of_varied_slices, resize_slices
from voxlate.science.diffusion.noise import SynthesisNoise
from voxlate.synthesis.inputs import _voxels_key
from voxlate.training.recipe import from_dict

RECIPE = {
    "title": "stand-in",
    "data": {"source": ["tof"], "target": ["cta"], "patch": [1, 256, 256]},
    "intensity": {"tof": {"kind": "minmax"}, "cta": {"kind": "window", "low": -50, "high": 350}},
    "method": {"kind": "diffusion"},
    "train": {"precision": "float32"},
}
AFFINE = np.array([[0.4, 0.02, 0, -20], [-0.02, 0.5, 0.1, -30], [0, -0.1, 3, 7], [0, 0, 0, 1]])
RESIZED = {"kind": "resized"}
NETWORKS = {"identity": lambda x, _: x, "affine": lambda x, _: -0.8 * x + 0.3}


def stand_in(function, **synth):
    """A model whose network is a function of the source, voxel by voxel, or the noise."""

    recipe = from_dict({**RECIPE, "synth": synth}, "stand-in")
    return model_of(
        Answering(function or (lambda source, noise: noise(source))), recipe, {"cta": "HU"}
    )


def scan_of(data, affine=AFFINE):
    return {"tof": Volume(np.asarray(data, np.float32)[None], affine, "a.u.", "tof")}


@pytest.fixture
def published(shared):
    """The published pipeline's own volume and results with two stand-in networks, [D, H, W]."""
    folder = shared / "reference/xmodality/dev"
    if not (folder / "pipeline_io.safetensors").is_file():
        pytest.skip("the reference vectors of paper 001 are not here")
    arrays = load_file(folder / "pipeline_io.safetensors")
    facts = read_json(folder / "pipeline.json")["volume"]
    return {name: array.T for name, array in arrays.items() if array.ndim == 3}, facts


@every_row("network", NETWORKS)
def test_resized_slices_give_what_the_published_pipeline_gives(published, network):
    arrays, facts = published
    scan = scan_of(arrays["volume"])
    made = stand_in(NETWORKS[network], slices=RESIZED).synthesise(scan).volume
    assert_allclose(made.data[0], arrays[f"generated_{network}"], atol=1e-3)
    assert (made.data[0, : facts["stripped_bottom"]] == -50).all()
    assert (made.data[0, len(made.data[0]) - facts["stripped_top"] :] == -50).all()
    assert made.affine.tobytes() == scan["tof"].affine.tobytes()


def noise_of(*shape):
    """A volume [D, H, W] of noise."""
    return np.random.default_rng(0).normal(500, 80, shape)


def test_a_volume_that_is_one_value_is_refused():
    with refuses("every voxel 7"):
        stand_in(NETWORKS["affine"]).synthesise(scan_of(np.full((3, 20, 24), 7.0)))


def test_a_slice_of_one_value_between_others_is_all_minus_one():
    data = noise_of(5, 30, 28) / 100  # of air, around a body
    data[:, 5:25, 5:23] *= 100
    data[2] = 1234.5
    made = stand_in(NETWORKS["identity"], slices=RESIZED).synthesise(scan_of(data)).volume.data[0]
    assert (made[2] == -50).all()
    assert (np.ptp(made[[0, 1, 3, 4]], axis=(1, 2)) > 300).all()


def test_only_constant_slices_at_the_ends_are_left_out_and_only_where_all_scans_are():
    data = noise_of(7, 12, 10)
    other = data.copy()
    data[[0, 1, 3, 6]] = 5.0
    data[0, 0, 0] = 5.00001  # numpy.isclose to the others
    other[[0, 6]] = 0.0
    assert range_of_varied_slices([data]) == (2, 6)
    assert range_of_varied_slices([data, other]) == (1, 6)
    assert range_of_varied_slices([np.ones((3, 4, 5))]) == (0, 0)


def test_the_corner_voxels_of_resized_slices_lie_where_they_lay():
    """Also of 256 rows to 45, the last of which scipy's zoom leaves zero."""
    data = np.random.default_rng(0).normal(size=(4, 256, 7))
    data[0] = 1
    made = resize_slices(scan_of(data), (45, 24), 1, 4)["tof"]
    corners = np.array([[6, 255, 3, 1], [0, 0, 1, 1], [6, 0, 2, 1]])
    moved = np.array([[23, 44, 2, 1], [0, 0, 0, 1], [23, 0, 1, 1]])
    assert_allclose(made.affine @ moved.T, AFFINE @ corners.T, atol=1e-9)
    assert_allclose(made.data[0, :, ::44, ::23], data[1:, ::255, ::6], atol=1e-5)


@every_row("axes", [(1, -1, 1), (-1, 1, -1)])
def test_resized_synthesis_keeps_any_affine_exactly(axes):
    affine = AFFINE @ np.diag([*axes, 1.0])
    data = noise_of(4, 40, 36)
    model = stand_in(NETWORKS["identity"], slices={"kind": "resized", "size": [64, 48]})
    made = model.synthesise(scan_of(data, affine)).volume
    plain = model.synthesise(scan_of(data)).volume
    assert made.affine.tobytes() == affine.tobytes()
    assert_allclose(made.data, plain.data, atol=1e-2)
    assert set(model.network.method.shapes) == {(1, 1, 64, 48)}


@every_row("noise", ["independent", "correlated"])
@every_row("slices", ["whole", "tiled", "resized"])
def test_noise_belongs_to_the_item_whatever_the_batch(slices, noise):
    data = noise_of(2, 264, 260)
    model = stand_in(None, slices={"kind": slices}, noise={"kind": noise})
    few, many = (model.synthesise(scan_of(data), batch=batch).volume.data for batch in (1, 5))
    assert_array_equal(few, many)


def test_slices_draw_the_noise_of_their_places_by_the_strategy():
    """Volumes 3 mm thick: a stand-in that answers with its noise, clipped as images are."""
    model, scan = stand_in(None), scan_of(noise_of(5, 20, 24))
    key = _voxels_key(scan.values())
    length = {"kind": "correlated", "length_mm": 6 * scan["tof"].grid.spacing_mm[0]}
    for noise, weights in (
        ("independent", {0: 1}),
        (length, dict(zip(range(-2, 3), (1, 3**0.5, 2, 3**0.5, 1)))),
    ):
        norm = sum(weight**2 for weight in weights.values()) ** 0.5
        streams = [
            {stable_id(key, z + k, 0, 0): w / norm for k, w in weights.items()} for z in range(5)
        ]
        wanted = SynthesisNoise(4, streams).normal((20, 24)).clamp(-1, 1).numpy()
        kind = noise if isinstance(noise, dict) else {"kind": noise}
        made = model.synthesise(scan, case="a", seed=4, noise=kind).volume.data[0]
        assert_allclose(made, 200 * wanted + 150, atol=1e-3)


def test_windows_see_the_volume_as_one_item_that_starts_from_the_noise_of_its_slices():
    """A stand-in that answers with its noise, as slices would."""
    model, scan = stand_in(None), scan_of(noise_of(5, 20, 24))
    slices = model.synthesise(scan, case="a", samples=2)
    volume = model.synthesise(scan, case="a", samples=2, windows={"size": 3, "overlap": 1})
    assert_array_equal(volume.volume.data, slices.volume.data)
    assert_array_equal(volume.std["cta"].data, slices.std["cta"].data)
    assert model.network.method.shapes[-2:] == [(1, 5, 20, 24)] * 2
    with refuses("of kind 'whole'"):
        model.synthesise(scan, windows={"size": 3, "overlap": 1}, slices={"kind": "tiled"})


@every_row(
    "options, expected",
    [
        ({"slices": {"kind": "tiled"}}, "expected kind 'whole' for patches"),
        ({"noise": {"kind": "correlated"}}, "synth.noise: expected kind"),
    ],
)
def test_a_model_of_volumes_refuses_options_for_slices(options, expected):
    values = {**RECIPE, "data": {**RECIPE["data"], "patch": [8, 64, 64]}}
    model = stand_in(None)
    deep = replace(model, network=replace(model.network, recipe=from_dict(values, "deep")))
    with refuses(expected):
        deep.with_options(**options)
