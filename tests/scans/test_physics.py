"""MR contrasts that are drawn from tissue-parameter maps at batch time."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from voxlate.anatomy.acquisition import (
    Effects,
    Smooth,
    draw_effects,
    draw_spread,
    in_plane,
    rician,
)
from voxlate.anatomy.cohort import write_cohort
from voxlate.anatomy.contrast import Protocol, magnitude
from voxlate.anatomy.drawn import SURFACE, Draw
from voxlate.anatomy.maps import MAPS
from voxlate.anatomy.physics import USUAL, Contrast, PhysicsSettings, Ranges
from voxlate.anatomy.sequences import FULL_SCALE
from voxlate.anatomy.tissue import INTRACRANIAL, Label
from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND, stable_id
from voxlate.base.lazy import PROVIDERS
from voxlate.checks.prepare import prepare
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.cases.layout import lay_out
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.intensity import Percentile, Window
from voxlate.scans.images.slice_profile import through_plane
from voxlate.training.batches.batches import Batches, validation_batches
from voxlate.training.batches.patches import DataSettings, read_pair
from voxlate.training.recipe import read

SIZE = (40, 48, 20)
PATCH = (1, 48, 40)
QUIET = {
    **dict.fromkeys(("tissue_spread", "b1", "bias", "noise", "motion", "slice_mm"), 0.0),
    "resolution": 1.0,
}
ANY = Contrast(sequence="any", agent=0.5, fat_saturation=0.5)
T2 = Contrast(sequence="spin_echo", tr_ms=(4000, 6000), te_ms=(80, 110))
EVERYTHING = (slice(0, SIZE[2]), slice(None), slice(None))
SPREADLESS = draw_spread(np.random.default_rng(0), 0.0)
INTENSITY = {
    "mr": Percentile(),
    "t1": Percentile(),
    "t2": Percentile(),
    "ct": Window(low=-1000, high=2000),
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    write_cohort(folder / "scans", cases=2, size=SIZE, modalities=("ct", "maps"))
    prepare(folder / "scans", folder / "prepared", workers=0, audit=False, shares=(1, 1, 0))
    return folder


@pytest.fixture
def cohort(phantoms):
    return open_cohort(phantoms / "prepared")


def _settings(contrast: Contrast = ANY, **effects: object) -> PhysicsSettings:
    return PhysicsSettings(contrasts={"mr": contrast}, **effects)


def _data(physics: PhysicsSettings, **keys: object) -> DataSettings:
    return DataSettings(source=["mr"], target=["ct"], patch=PATCH, physics=physics, **keys)


def _loaded(cohort, physics, seed=5, **keys):
    batches = Batches(
        cohort.with_physics(physics, ["ct"]), _data(physics), INTENSITY, seed=seed, **keys
    )
    return batches


@pytest.mark.slow
def test_prepared_maps_are_those_of_the_files_in_two_bytes(phantoms, cohort):
    for name in MAPS:
        prepared = cohort.case("phantom_000").volume(name)
        scan = read_volume(phantoms / "scans" / "phantom_000" / f"{name}.nii.gz", name)
        assert np.array_equal(np.sort(prepared.data, axis=None), np.sort(scan.data, axis=None))
        assert cohort.case("phantom_000").arrays[name].dtype == np.float16
    assert cohort.units["t1_map"] == "ms"
    assert cohort.units["chi_map"] == "ppm"


def test_a_voxel_has_the_closed_form_of_the_drawn_sequence(cohort):
    physics = _settings(**QUIET)
    view = cohort.with_physics(physics, ["ct"])
    case = view.case("phantom_000")
    item = view.drawn.draw(7)
    protocol = view.drawn._acquire("mr", item, "source").protocol
    maps = {name: case.arrays[name][10].astype(np.float32) for name in MAPS}
    signal = FULL_SCALE * magnitude(protocol, maps)
    drawn = read_pair(case, _data(physics), INTENSITY, (10, 0, 0), seed=7).source[0, 0, 0]
    inside = (drawn > -1) & (drawn < 1)
    low, high = np.polyfit(signal[inside], drawn[inside], 1)
    np.testing.assert_allclose(drawn[inside], low * signal[inside] + high, atol=1e-4)
    assert inside.sum() > 300


def test_a_stored_ct_has_the_slice_thickness_of_the_drawn_mr(cohort):
    physics = _settings(**{**QUIET, "slice_mm": 20.0}, same_slices=True)
    view = cohort.with_physics(physics, ["ct"])
    case = view.case("phantom_000")
    spacing_mm = case.header.spacing_mm[0]
    hu = case.arrays["ct"].astype(np.float32)
    for seed in range(8):
        thickness_mm = view.drawn.slice_mm(view.drawn.draw(seed))
        beside = (
            max(0.0, thickness_mm / spacing_mm - 1) / 2
        )  # of each neighbour that the slice holds
        expected = (hu[10] + beside * (hu[9] + hu[11])) / (1 + 2 * beside)
        target = read_pair(case, _data(physics), INTENSITY, (10, 0, 0), seed=seed).target[0, 0, 0]
        np.testing.assert_allclose(target, np.clip((expected - 500) / 1500, -1, 1), atol=1e-4)
    thick = [view.drawn.slice_mm(view.drawn.draw(seed)) > spacing_mm for seed in range(8)]
    assert any(thick)
    assert not all(thick)


def test_a_phantom_image_at_synthesis_is_scaled_as_in_its_batch(cohort):
    """The whole image of one draw goes the way of a user's scan; its slice equals that of the batch."""
    physics = _settings(T2, **{**QUIET, "bias": 0.3, "b1": 0.1})
    view = cohort.with_physics(physics, ["ct"])
    data = _data(physics)
    case = view.case("phantom_001")
    seed = stable_id("physics", "phantom_001")
    rician_noise = np.random.default_rng(0).standard_normal((2, *case.header.shape))
    whole = case.volume("mr")
    noisy = np.hypot(whole.data[0] + 4 * rician_noise[0], 4 * rician_noise[1])
    scan = Volume(noisy[None].astype(np.float32), whole.affine, "a.u.", "mr")
    prepared = prepare_case("user", {"mr": scan}, Preparation())
    for z in (6, 10, 14):
        at_synthesis = read_pair(prepared, data, INTENSITY, (z, 0, 0)).source
        in_batch = read_pair(case, data, INTENSITY, (z, 0, 0), seed=seed).source
        assert (at_synthesis - in_batch).abs().mean() < 0.03  # of 2, by the sample
        assert (at_synthesis - in_batch).abs().max() < 0.2
    assert view.header("phantom_001").statistics["mr"].foreground.at(99.5) == pytest.approx(
        prepared.header.statistics["mr"].foreground.at(99.5), rel=0.1
    )


def test_batches_do_not_depend_on_workers_or_their_size(cohort):
    physics = _settings(stripped=0.3, defaced=0.3)
    whole = _loaded(cohort, physics, batch=4, steps=2)[1]
    for k in range(4):
        alone = _loaded(cohort, physics, batch=1, steps=8)[4 + k]
        assert torch.equal(alone.source[0], whole.source[k])
        assert torch.equal(alone.target[0], whole.target[k])
    loader = DataLoader(_loaded(cohort, physics, batch=4, steps=2), batch_size=None, num_workers=1)
    assert torch.equal(list(loader)[1].source, whole.source)


def test_items_have_sequences_of_their_own_and_seeds_decide(cohort):
    physics = _settings()
    first = _loaded(cohort, physics, batch=4, steps=1)[0]
    other = _loaded(cohort, physics, seed=6, batch=4, steps=1)[0]
    again = _loaded(cohort, physics, batch=4, steps=1)[0]
    assert torch.equal(first.source, again.source)
    assert not torch.equal(first.source, other.source)
    view = cohort.with_physics(physics, ["ct"])
    draws = [view.drawn._acquire("mr", view.drawn.draw(k), "source") for k in range(60)]
    kinds = {draw.protocol.kind for draw in draws}
    assert len(kinds) == 7


def test_a_modality_with_further_sequences_draws_each_of_them_and_targets_the_first():
    further = [
        Ranges(sequence="spin_echo", tr_ms=(400, 700), te_ms=(8, 20)),
        Ranges(sequence="gradient_echo"),
    ]
    contrast = Contrast(sequence="mprage", also=further)
    draws = [contrast.draw(np.random.default_rng(k), 3.0) for k in range(90)]
    counts = {kind: sum(one.kind == kind for one in draws) for kind in USUAL}
    assert sum(counts.values()) == 90
    assert {kind for kind, count in counts.items() if count > 15} == {
        *("mprage", "spin_echo", "gradient_echo")
    }
    assert all(400 <= one.tr_ms <= 700 for one in draws if one.kind == "spin_echo")
    assert contrast.centre(3.0).kind == "mprage"
    assert contrast.needs > Contrast(sequence="mprage").needs


def test_validation_sees_a_fixed_draw_of_each_item(cohort):
    physics = _settings()
    view = cohort.with_physics(physics, ["ct"])
    passes = [
        torch.cat(
            [one.source for one in validation_batches(view, _data(physics), INTENSITY, limit=4)]
        )
        for _ in range(2)
    ]
    assert torch.equal(*passes)


def test_neighbouring_slices_are_of_one_draw(cohort):
    physics = _settings()
    case = cohort.with_physics(physics, ["ct"]).case("phantom_000")
    stacked = _data(physics, stack=1)
    source = read_pair(case, stacked, INTENSITY, (10, 0, 0), seed=3).source[0]
    assert len(source) == 3
    correlations = np.corrcoef(source.flatten(1).numpy())
    assert correlations.min() > 0.6
    first = read_pair(case, stacked, INTENSITY, (0, 0, 0), seed=3).source[0]
    assert torch.equal(first[0], first[1])  # below the first slice, it is repeated


def test_a_target_has_the_middle_of_its_ranges_and_no_effects(cohort):
    contrasts = {"t1": Contrast(sequence="mprage"), "t2": T2}
    physics = PhysicsSettings(contrasts=contrasts, tissue_spread=0.0)
    names = ["t1", "t2"]
    data = DataSettings(source=names, target=names, patch=PATCH, physics=physics)
    case = cohort.with_physics(physics, names).case("phantom_000")
    pairs = [read_pair(case, data, INTENSITY, (10, 0, 0), seed=seed) for seed in (1, 2)]
    assert torch.equal(pairs[0].target, pairs[1].target)
    assert not torch.equal(pairs[0].source, pairs[1].source)
    assert pairs[0].present.all()
    drawn = replace(physics, target="drawn")
    data = replace(data, physics=drawn)
    case = cohort.with_physics(drawn, names).case("phantom_000")
    pair = read_pair(case, data, INTENSITY, (10, 0, 0), seed=1)
    assert torch.equal(pair.source, pair.target)


def test_tissue_spread_leaves_free_water_and_moves_other_tissue():
    maps = {
        "pd_map": np.array([1.0, 0.7], np.float32),
        "t1_map": np.array([4300.0, 832.0], np.float32),
        "t2_map": np.array([2000.0, 80.0], np.float32),
    }
    times = np.array(
        [draw_spread(np.random.default_rng(k), 0.1).of(maps)["t1_map"] for k in range(400)]
    )
    assert times[:, 0] == pytest.approx(4300)
    assert np.log(times[:, 1]).std() == pytest.approx(0.1 * (1 - 832 / 4300), rel=0.15)


def test_noise_in_air_has_the_mean_of_its_rayleigh_law():
    noise = rician(np.zeros((1, 400, 400), np.float32), 3.0, np.random.default_rng(1))
    assert noise.mean() == pytest.approx(3 * np.sqrt(np.pi / 2), rel=0.01)


def _effects(**values: object) -> Effects:
    flat = Smooth(np.zeros(8, np.float32))
    plain = Effects(flat, flat, 0.0, (1.0, 1.0), 0.0, (), (), 0.0)
    return replace(plain, **values)


def test_a_cut_k_space_overshoots_edges_by_nine_percent():
    image = np.zeros((1, 8, 512), np.float32)
    image[..., 128:384] = 1
    ringing = in_plane(image, _effects(kept=(1.0, 0.25)), (1.0, 1.0))
    assert ringing.max() == pytest.approx(1.09, abs=0.01)
    filtered = in_plane(image, _effects(kept=(1.0, 0.25), filtered=1.0), (1.0, 1.0))
    assert filtered.max() < 1.02


def test_a_head_that_moved_by_whole_voxels_all_the_time_is_where_it_was():
    """Motion is relative to the middle of k-space, so that source and target stay aligned."""
    image = np.random.default_rng(0).random((2, 16, 16), np.float32)
    still = in_plane(image, _effects(cuts=(0.3,), moves_mm=((2.0, 1.0), (2.0, 1.0))), (1.0, 1.0))
    np.testing.assert_allclose(still, image, atol=1e-5)
    moved = in_plane(image, _effects(cuts=(0.3,), moves_mm=((2.0, 1.0), (0.0, 0.0))), (1.0, 1.0))
    assert np.abs(moved - image).max() > 0.05


def test_a_thick_slice_is_the_mean_of_those_it_covers():
    image = np.arange(7, dtype=np.float32)[:, None, None] ** 2
    thick = through_plane(image, thickness_mm=2.0, spacing_mm=1.0)
    squares = np.arange(7) ** 2
    expected = (0.5 * squares[:-2] + squares[1:-1] + 0.5 * squares[2:]) / 2
    np.testing.assert_allclose(thick[:, 0, 0], expected)


def test_the_spread_of_the_flip_angle_grows_with_the_field():
    settings = _settings()
    weak, strong = (
        draw_effects(np.random.default_rng(2), settings, field).b1 for field in (1.5, 6)
    )
    np.testing.assert_allclose(strong.strengths, 4 * weak.strengths, rtol=1e-5)


def test_a_black_level_takes_dark_tissue_to_zero_in_half_of_the_items_and_leaves_targets(cohort):
    case = cohort.case("phantom_000")
    body = case.mask(["pd_map"])
    physics = PhysicsSettings(contrasts={"mr": T2}, black=0.4, **QUIET)
    shown = []
    for targets, seed in product(([], ["mr"]), range(12)):
        drawn = cohort.with_physics(physics, targets).drawn
        item = Draw(seed, 3.0, SPREADLESS, False, 0.0, None)
        acquisition = drawn._acquire("mr", item, "target" if targets else "source")
        shown.append(drawn._image(case, item, acquisition, EVERYTHING)[0])
    lost = [float((image[body] == 0).mean()) for image in shown]
    air = float((case.arrays["pd_map"][body] == 0).mean())
    sources, as_targets = np.array(lost[:12]), np.array(lost[12:])
    assert as_targets == pytest.approx(air, abs=0.01)
    assert 3 <= (sources > air + 0.05).sum() <= 9


def test_lifted_tissue_is_told_from_the_surroundings_in_present_sources_alone(cohort):
    physics = PhysicsSettings(contrasts={"mr": T2, "t1": ANY}, stripped=1.0, black=0.9, **QUIET)
    keys = {"source": ["mr", "t1"], "target": ["ct"], "patch": PATCH, "physics": physics}
    case = cohort.with_physics(physics, ["ct"]).case("phantom_000")
    plain, lifted = (
        read_pair(case, DataSettings(**keys, lift=lift), INTENSITY, (10, 0, 0), seed=3)
        for lift in (0.0, 0.25)
    )
    inside = (plain.mask > 0).expand_as(plain.source)
    assert (plain.source[inside] < -0.5).any()
    torch.testing.assert_close(lifted.source[inside], plain.source[inside].clamp(min=-0.5))
    assert torch.equal(lifted.source[~inside], plain.source[~inside])
    assert torch.equal(lifted.target, plain.target)


def test_magnetisation_transfer_is_refused_where_no_tof_is_drawn():
    with pytest.raises(BadInput):
        Contrast(sequence="spin_echo", transfer=(0.2, 0.7))
    assert Contrast(sequence="any", transfer=(0.2, 0.7)).transfer == (0.2, 0.7)


def test_magnetisation_transfer_takes_its_share_from_tissue_and_nothing_from_blood_or_fluid():
    maps = {
        "pd_map": np.array([0.7, 0.85, 1.0], np.float32),
        "t1_map": np.array([832.0, 1650.0, 4300.0], np.float32),
        "t2_map": np.array([80.0, 150.0, 2000.0], np.float32),
        "t2star_map": np.array([50.0, 40.0, 1000.0], np.float32),
        "flow_map": np.array([0.0, 30.0, 0.0], np.float32),
        "inflow_map": np.array([0.0, 5.0, 0.0], np.float32),
        "fluid_map": np.zeros(3, np.float32),
    }
    plain, strong = (
        magnitude(Protocol("tof", 22, 3.5, 0, 20, transfer=transfer), maps)
        for transfer in (0.0, 0.6)
    )
    np.testing.assert_allclose(strong / plain, [0.4, 1, 1], rtol=1e-5)
    contrast = Contrast(sequence="tof", transfer=(0.2, 0.7))
    rng = np.random.default_rng(0)
    drawn = [contrast.draw(rng, 3.0).transfer for _ in range(200)]
    assert 0.2 <= min(drawn) < 0.22
    assert 0.68 < max(drawn) <= 0.7
    assert contrast.centre(3.0).transfer == pytest.approx(0.45)


def test_a_stripped_item_has_brain_alone_in_source_target_and_mask(cohort):
    physics = _settings(stripped=1.0)
    case = cohort.with_physics(physics, ["ct"]).case("phantom_000")
    pair = read_pair(case, _data(physics), INTENSITY, (10, 0, 0), seed=1)
    brain = torch.from_numpy(np.isin(case.arrays["label.seg"][10], INTRACRANIAL))
    assert torch.equal(pair.mask[0, 0, 0] > 0, brain & (case.mask(["mr"])[10] > 0))
    assert (pair.source[0, 0, 0][~brain] == BACKGROUND).all()
    assert (pair.target[0, 0, 0][~brain] == BACKGROUND).all()
    assert (pair.source[0, 0, 0][brain] > BACKGROUND).float().mean() > 0.9
    whole = case.volume("mr").data[0]
    inside = np.isin(case.arrays["label.seg"], INTRACRANIAL)
    assert not whole[~inside].any()
    voxel_ml = np.prod(case.header.spacing_mm) / 1000
    brain_ml = (inside & case.mask(["mr"])).sum() * voxel_ml
    assert case.header.mask_ml == pytest.approx(brain_ml)
    assert cohort.header("phantom_000").mask_ml > 1.5 * brain_ml


def test_tight_stripping_removes_the_csf_of_the_surface_and_leaves_tissue_and_ventricles(cohort):
    voxel_mm = cohort.header("phantom_000").spacing_mm[1]
    view = cohort.with_physics(_settings(stripped=1.0, strip_mm=2 * voxel_mm), ["ct"])
    case = view.case("phantom_000")
    tissues = case.arrays["label.seg"]
    inside = np.isin(tissues, INTRACRANIAL)
    place = (slice(None), slice(None), slice(None))
    loose = replace(view.drawn.draw(1), strip_mm=0.0)
    assert np.array_equal(view.drawn.remainder(case, loose, place), inside)
    tight = view.drawn.remainder(case, replace(loose, strip_mm=voxel_mm), place)
    removed = inside & ~tight
    assert np.isin(tissues[removed], SURFACE).all()
    # One voxel deep: each removed one touches the outside along a row or a column.
    outside = np.pad(~inside, ((0, 0), (1, 1), (1, 1)))
    touches = (
        *(outside[:, :-2, 1:-1], outside[:, 2:, 1:-1]),
        *(outside[:, 1:-1, :-2], outside[:, 1:-1, 2:]),
    )
    surface = inside & np.logical_or.reduce(touches)
    assert np.array_equal(removed, surface & np.isin(tissues, SURFACE))
    assert removed.any()


@pytest.mark.parametrize("axes", ["SAR", "SPL"])
def test_defacing_removes_the_front_of_low_slices_alone(cohort, axes):
    def masks(defaced):
        physics = _settings(defaced=defaced)
        case = cohort.with_physics(physics, ["ct"]).case("phantom_000")
        data = _data(physics, axes=axes)
        pairs = [read_pair(case, data, INTENSITY, (z, 0, 0), seed=1) for z in (2, 17)]
        return [pair.mask[0, 0, 0] for pair in pairs]

    low, high = masks(1.0)
    whole_low, whole_high = masks(0.0)
    front, back = (slice(28, 48), slice(0, 24)) if axes == "SAR" else (slice(0, 20), slice(24, 48))
    assert low[front].sum() < 0.6 * whole_low[front].sum()
    assert torch.equal(low[back], whole_low[back])
    assert torch.equal(high, whole_high)


def test_a_cohort_without_maps_is_refused(prepared):
    with pytest.raises(BadInput):
        open_cohort(prepared).with_physics(_settings(), ["t2"])


def test_a_cohort_of_maps_without_physics_is_refused(cohort):
    with pytest.raises(BadInput):
        Batches(cohort, DataSettings(source=["mr"], target=["ct"], patch=PATCH), INTENSITY)


def test_a_contrast_that_the_cohort_stores_as_well_is_refused(cohort):
    physics = PhysicsSettings(contrasts={"ct": Contrast(sequence="mprage")})
    with pytest.raises(BadInput):
        cohort.with_physics(physics, ["mr"])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"sequence": "any", "tr_ms": (10, 20)}, "expected no tr_ms with sequence = 'any'"),
        ({"sequence": "spin_echo", "ti_ms": (10, 20)}, "expected no ti_ms for the sequence"),
        ({"sequence": "spin_echo", "te_ms": (20, 10)}, "expected te_ms from low to high"),
        ({"sequence": "spin_echo", "te_ms": (20, 500)}, "below every repetition time"),
        ({"sequence": "mprage", "ti_ms": (300, 900)}, "expected every ti_ms of mprage"),
        ({"sequence": "flair", "ti_ms": (2000, 7000)}, "ti_ms of flair to be above 0 and more"),
        (
            {"sequence": "flair", "ti_ms": (5, 10)},
            "found ti_ms 5, which leaves 75% with tr_ms 6000",
        ),
    ],
)
def test_ranges_that_no_scanner_can_play_are_refused(keys, sentence):
    with pytest.raises(BadInput, match=sentence):
        Contrast(**keys)


RECIPE = """
title = "CT from any MR contrast, learned on phantoms"

intensity = { mr = { kind = "percentile" }, ct = { kind = "window", low = -1000, high = 2000 } }
method = { kind = "regression" }
net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }
train = { steps = 4, batch = 2, precision = "float32", workers = 0, validate_every = 2, log_every = 1 }

[data]
source = ["mr"]
target = ["ct"]
patch = [1, 48, 40]

[data.physics]
field_t = [0.5, 7.0]
contrasts.mr = { sequence = "any", agent = 0.25, fat_saturation = 0.4 }
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "any_mr_to_ct.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"intensity.mr": '{kind = "minmax"}'}, "expected a map that is computed in the body"),
        ({"data.target": '["mr"]', "data.source": '["ct"]'}, "expected one sequence for a target"),
        ({"data.source": '["t1"]', "intensity.t1": '{kind="zscore"}'}, "found mr in neither"),
        ({"data.physics.noise": "-0.1"}, "physics.noise': should be greater than or equal to 0"),
        ({"data.physics.strip_mm": "1e9"}, "physics.strip_mm': should be less than or equal to 20"),
        ({"data.physics.field_t": "[3, 3000]"}, "should be less than or equal to 12; found 3000"),
        (
            {"data.physics.contrasts.mr": '{sequence = "gradient_echo", flip_deg = [5, 720]}'},
            "should be less than or equal to 180; found 720",
        ),
        (
            {"data.physics.contrasts.mr": '{sequence = "spin_echo", tr_ms = [5, 5e9]}'},
            "should be less than or equal to 30000; found 5000000000",
        ),
    ],
)
def test_recipes_whose_physics_does_not_fit_are_refused(recipe, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        read(str(recipe), change)


@pytest.mark.slow
def test_training_on_maps_gives_a_model_of_any_contrast(voxlate, phantoms, recipe, tmp_path):
    """Train, then synthesise from a phantom's T1 image as if it were a user's scan."""
    run = tmp_path / "run"
    trained = voxlate("train", recipe, "--data", phantoms / "prepared", "--out", run).done()
    assert "mr=SCAN --out OUT" in trained.out + trained.err
    write_cohort(tmp_path / "user", cases=1, size=SIZE, seed=9, modalities=("t1",))
    scan = tmp_path / "user" / "phantom_000" / "t1.nii.gz"
    voxlate("synth", run, f"mr={scan}", "--out", tmp_path / "out").done()
    assert list((tmp_path / "out").glob("**/ct*.nii.gz"))


def test_auto_refuses_a_cohort_of_maps(voxlate, phantoms, tmp_path):
    said = voxlate("train", "auto", "--data", phantoms / "prepared", "--out", tmp_path / "run")
    assert said.code != 0
    assert "found tissue-parameter maps" in said.err


def test_drawn_regions_have_one_signal_for_each_tissue_and_leave_dense_bone_dark(cohort):
    contrast = Contrast(sequence="any", regions=1.0)
    view = cohort.with_physics(_settings(contrast, **QUIET), ["ct"])
    case = view.case("phantom_000")
    item = view.drawn.draw(3)
    acquisition = view.drawn._acquire("mr", item, "source")
    image, _ = view.drawn._image(case, item, acquisition, EVERYTHING)
    labels = case.arrays["label.seg"].astype(int)
    protons = case.arrays["pd_map"].astype(np.float32)
    for label in (Label.WHITE, Label.GREY, Label.CSF):
        values = image[(labels == label) & (protons > 0.65)]
        expected = FULL_SCALE * acquisition.signals[label]
        np.testing.assert_allclose(values, expected, rtol=1e-3)
    bone = image[(labels == Label.BONE) & (protons < 0.06)]
    assert bone.max() < 0.11 * FULL_SCALE


def test_half_of_the_items_have_regions_where_half_is_asked_for(cohort):
    physics = _settings(Contrast(sequence="any", regions=0.5))
    drawn = cohort.with_physics(physics, ["ct"]).drawn
    signals = [drawn._acquire("mr", drawn.draw(seed), "source").signals for seed in range(200)]
    assert 80 < sum(own is not None for own in signals) < 120


def test_regions_do_not_change_the_draws_of_items_without_them(cohort):
    some = cohort.with_physics(_settings(Contrast(sequence="any", regions=0.5)), ["ct"]).drawn
    none = cohort.with_physics(_settings(Contrast(sequence="any")), ["ct"]).drawn
    for seed in range(20):
        own, others = (d._acquire("mr", d.draw(seed), "source") for d in (some, none))
        assert (own.protocol, own.effects.noise) == (others.protocol, others.effects.noise)


def test_regions_of_a_named_sequence_are_refused():
    with pytest.raises(BadInput):
        Contrast(sequence="flair", regions=0.5)


def test_regions_need_the_label_map_of_tissues(cohort):
    view = cohort.with_physics(_settings(Contrast(sequence="any", regions=0.5)), ["ct"])
    header = replace(cohort.case("phantom_000").header, labels={})
    with pytest.raises(BadInput):
        view.drawn.computes(header)


def test_a_recipe_with_physics_states_the_wing_that_is_missing(recipe, monkeypatch):
    monkeypatch.setitem(PROVIDERS, "data.physics", "voxlate.absent:Settings")
    with pytest.raises(BadInput):
        read(str(recipe))


@pytest.mark.slow
def test_a_process_that_imports_the_training_alone_reads_a_recipe_with_physics(recipe):
    script = f"from voxlate.training.recipe import read\nread({str(recipe)!r})"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_drawn_scalp_is_in_the_mr_the_ct_and_the_mask_of_every_plane(cohort):
    physics = _settings(**QUIET, scalp=1.0)
    view = cohort.with_physics(physics, ["ct"])
    case = view.case("phantom_000")
    items = (view.drawn.draw(seed) for seed in range(100))
    item = next(item for item in items if item.scalp.grown_mm > 4)
    data = _data(physics, planes="all")
    for plane in data.by_plane:
        depth_mm = lay_out(case, plane.axes).arrays["skin_map"]
        z = depth_mm.shape[0] // 2
        size = (1, *depth_mm.shape[1:])
        new = (depth_mm[z] < -1) & (depth_mm[z] > -item.scalp.grown_mm)
        pair = read_pair(case, plane, INTENSITY, (z, 0, 0), size, seed=item.seed)
        stored = lay_out(case, plane.axes).arrays["ct"][z]
        assert new.any()
        assert (stored[new] < -500).all()
        assert pair.target[0, 0, 0].numpy()[new].min() > -0.75  # -600 HU
        assert (pair.mask[0, 0, 0].numpy()[new] == 1).all()
        assert (pair.source[0, 0, 0].numpy()[new] > BACKGROUND).mean() > 0.5


def test_items_that_are_cut_across_their_slices_are_blurred_along_rows_or_columns(cohort):
    physics = _settings(**{**QUIET, "slice_mm": 20.0}, across=1.0, same_slices=True)
    drawn = cohort.with_physics(physics, ["ct"]).drawn
    effects = [drawn._acquire("mr", drawn.draw(seed), "source").effects for seed in range(20)]
    assert {one.along for one in effects} == {1, 2}
    assert all(drawn.slice_mm(drawn.draw(seed)) == 0 for seed in range(20))
