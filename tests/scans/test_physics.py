"""MR contrasts that are drawn from tissue-parameter maps at batch time."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from numpy.testing import assert_allclose
from scipy import ndimage

from preparing import prepare
from refusals import refuses
from rows import every_row, slow
from voxlate.anatomy.contrast import FULL_SCALE, magnitude
from voxlate.anatomy.drawn import SURFACE
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.anatomy.physics import (
    USUAL,
    Contrast,
    Effects,
    PhysicsSettings,
    Ranges,
    draw_effects,
    draw_regions,
    draw_spread,
    in_plane,
    rician,
)
from voxlate.anatomy.signal import MAPS
from voxlate.anatomy.tissue import INTRACRANIAL, Label
from voxlate.base.items import BACKGROUND, stable_id
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import PreparedCase, lay_out, prepare_case
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.images.intensity import Percentile, Window
from voxlate.science.batch import Batch
from voxlate.training.batches.batches import Batches
from voxlate.training.batches.data_settings import DataSettings
from voxlate.training.batches.patches import read_pair
from voxlate.training.recipe import read

SIZE = (40, 48, 20)
PATCH = (1, 48, 40)
QUIET = dict.fromkeys(("tissue_spread", "b1", "bias", "noise", "motion", "slice_mm"), 0.0)
QUIET["resolution"] = 1.0
ANY = Contrast(sequence="any", agent=0.5, fat_saturation=0.5)
T2 = Contrast(sequence="spin_echo", tr_ms=(4000, 6000), te_ms=(80, 110))
EVERYTHING = (slice(0, SIZE[2]), slice(None), slice(None))
INTENSITY = {
    **dict.fromkeys(("mr", "t1", "t2"), Percentile()),
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


DATA = DataSettings(source=["mr"], target=["ct"], patch=PATCH)


def _case(cohort, contrast: Contrast = ANY, **effects: object) -> PreparedCase:
    """The first phantom with an MR that is drawn for the source."""
    return cohort.with_physics(_settings(contrast, **effects), ["ct"]).case("phantom_000")


def _pair(case: PreparedCase, seed: int | None, z: int = 10, data: DataSettings = DATA) -> Batch:
    return read_pair(case, data, INTENSITY, (z, 0, 0), seed=seed)


def _acquired(case: PreparedCase, seed: int):
    """What is drawn for the source of an item."""
    return _item(case, seed).acquire("mr", "source")


def _item(case: PreparedCase, seed: int):
    return case.contrasts.item(case, seed)


def _loaded(cohort, seed=5, batch=4, **keys):
    physics = _settings(stripped=0.3)
    data = replace(DATA, physics=physics)
    view = cohort.with_physics(physics, ["ct"])
    return Batches(view, data, INTENSITY, seed=seed, batch=batch, **keys)


def test_a_voxel_has_the_closed_form_of_the_drawn_sequence(cohort):
    case = _case(cohort, **QUIET)
    assert {case.arrays[name].dtype for name in MAPS} == {np.dtype(np.float16)}
    assert (cohort.units["t1_map"], cohort.units["chi_map"]) == ("ms", "ppm")
    maps = {name: case.arrays[name][10].astype(np.float32) for name in MAPS}
    signal = FULL_SCALE * magnitude(_acquired(case, 7).protocol, maps)
    drawn = _pair(case, 7).source[0, 0, 0]
    inside = (drawn > -1) & (drawn < 1)
    low, high = np.polyfit(signal[inside], drawn[inside], 1)
    assert_allclose(drawn[inside], low * signal[inside] + high, atol=1e-4)
    assert inside.sum() > 300


def test_a_stored_ct_has_the_slice_thickness_of_the_drawn_mr(cohort):
    case = _case(cohort, **{**QUIET, "slice_mm": 20.0}, same_slices=True)
    spacing_mm = case.header.spacing_mm[0]
    hu = case.arrays["ct"].astype(np.float32)
    thick = []
    for seed in range(8):
        thickness_mm = _item(case, seed).slice_mm
        thick.append(thickness_mm > spacing_mm)
        # of each neighbour that the slice holds
        beside = max(0.0, thickness_mm / spacing_mm - 1) / 2
        expected = (hu[10] + beside * (hu[9] + hu[11])) / (1 + 2 * beside)
        target = _pair(case, seed).target[0, 0, 0]
        assert_allclose(target, np.clip((expected - 500) / 1500, -1, 1), atol=1e-4)
    assert {*thick} == {True, False}


def test_a_phantom_image_at_synthesis_is_scaled_as_in_its_batch(cohort):
    """The whole image of one draw goes the way of a user's scan; its slice equals that of the batch."""
    view = cohort.with_physics(_settings(T2, **{**QUIET, "bias": 0.3, "b1": 0.1}), ["ct"])
    case = view.case("phantom_001")
    seed = stable_id("physics", "phantom_001")
    whole = case.volume("mr")
    noisy = rician(whole.data, 4.0, default_rng(0))
    prepared = prepare_case("user", {"mr": replace(whole, data=noisy)}, Preparation())
    for z in (6, 10, 14):
        apart = (_pair(prepared, None, z).source - _pair(case, seed, z).source).abs()
        assert apart.mean() < 0.06  # of 2, by the sample
        assert apart.max() < 0.3
    own, scanned = (
        header.statistics["mr"].foreground.at(99.5)
        for header in (view.header("phantom_001"), prepared.header)
    )
    assert own == pytest.approx(scanned, rel=0.15)  # of 7000 voxels in blocks


def test_seeds_decide_on_batches_and_their_sizes_do_not(cohort):
    whole = _loaded(cohort)[1]
    for k in range(4):
        alone = _loaded(cohort, batch=1)[4 + k]
        assert torch.equal(alone.source[0], whole.source[k])
        assert torch.equal(alone.target[0], whole.target[k])
    assert not torch.equal(_loaded(cohort, seed=6)[1].source, whole.source)


def test_a_modality_with_further_sequences_draws_each_of_them_and_targets_the_first():
    further = [
        Ranges(sequence="spin_echo", tr_ms=(400, 700), te_ms=(8, 20)),
        Ranges(sequence="gradient_echo"),
    ]
    contrast = Contrast(sequence="mprage", also=further)
    draws = [contrast.draw(default_rng(k), 3.0) for k in range(90)]
    counts = {kind: sum(one.kind == kind for one in draws) for kind in USUAL}
    assert sum(counts.values()) == 90
    assert {kind for kind, count in counts.items() if count > 15} == {
        *("mprage", "spin_echo", "gradient_echo")
    }
    assert all(400 <= one.tr_ms <= 700 for one in draws if one.kind == "spin_echo")
    assert contrast.centre(3.0).kind == "mprage"


def test_a_target_has_the_middle_of_its_ranges_and_no_effects(cohort):
    contrasts = {"t1": Contrast(sequence="mprage"), "t2": T2}
    physics = PhysicsSettings(contrasts=contrasts, tissue_spread=0.0)
    names = ["t1", "t2"]
    data = DataSettings(source=names, target=names, patch=PATCH)
    case = cohort.with_physics(physics, names).case("phantom_000")
    one, other = (_pair(case, seed, data=data) for seed in (1, 2))
    assert torch.equal(one.target, other.target)
    assert not torch.equal(one.source, other.source)
    assert one.present.all()


def test_tissue_spread_leaves_free_water_and_moves_other_tissue():
    values = {"pd_map": (1.0, 0.7), "t1_map": (4300.0, 832.0), "t2_map": (2000.0, 80.0)}
    maps = {name: np.array(pair, np.float32) for name, pair in values.items()}
    times = np.array([draw_spread(default_rng(k), 0.1).of(maps)["t1_map"] for k in range(400)])
    assert times[:, 0] == pytest.approx(4300)
    assert np.log(times[:, 1]).std() == pytest.approx(0.1 * (1 - 832 / 4300), rel=0.15)


def test_noise_in_air_has_the_mean_of_its_rayleigh_law():
    noise = rician(np.zeros((1, 400, 400), np.float32), 3.0, default_rng(1))
    assert noise.mean() == pytest.approx(3 * np.sqrt(np.pi / 2), rel=0.01)


def _in_plane(image: np.ndarray, **effects: object) -> np.ndarray:
    """The image after these effects alone, in voxels of 1 mm."""
    return in_plane(image, Effects(**effects), (1.0, 1.0))


def test_a_cut_k_space_overshoots_edges_by_nine_percent():
    image = np.zeros((1, 8, 512), np.float32)
    image[..., 128:384] = 1
    assert _in_plane(image, kept=(1.0, 0.25)).max() == pytest.approx(1.09, abs=0.01)
    assert _in_plane(image, kept=(1.0, 0.25), filtered=1.0).max() < 1.02


def test_a_head_that_moved_by_whole_voxels_all_the_time_is_where_it_was():
    """Motion is relative to the middle of k-space, so that source and target stay aligned."""
    image = default_rng(0).random((2, 16, 16), np.float32)
    still, moved = (
        _in_plane(image, cuts=(0.3,), moves_mm=((2.0, 1.0), then)) for then in ((2.0, 1.0), (0, 0))
    )
    assert_allclose(still, image, atol=1e-5)
    assert np.abs(moved - image).max() > 0.05


def test_the_spread_of_the_flip_angle_grows_with_the_field():
    weak, strong = (draw_effects(default_rng(2), _settings(), field).b1 for field in (1.5, 6))
    assert_allclose(strong.strengths, 4 * weak.strengths, rtol=1e-5)


def test_a_black_level_takes_dark_tissue_to_zero_in_half_of_the_items_and_leaves_targets(cohort):
    case = cohort.case("phantom_000")
    body = case.mask(["pd_map"])
    physics = _settings(T2, black=0.4, **QUIET)
    lost = {}
    for role, targets in (("source", []), ("target", ["mr"])):
        drawn = cohort.with_physics(physics, targets).drawn
        images = [
            item.image(item.acquire("mr", role), EVERYTHING)[0]
            for item in (drawn.item(case, seed) for seed in range(12))
        ]
        lost[role] = np.array([(image[body] == 0).mean() for image in images])
    air = (case.arrays["pd_map"][body] == 0).mean()
    assert lost["target"] == pytest.approx(air, abs=0.01)
    assert 3 <= (lost["source"] > air + 0.05).sum() <= 9


def test_lifted_tissue_is_told_from_the_surroundings_in_present_sources_alone(cohort):
    physics = PhysicsSettings(contrasts={"mr": T2, "t1": ANY}, stripped=1.0, black=0.9, **QUIET)
    case = cohort.with_physics(physics, ["ct"]).case("phantom_000")
    plain, lifted = (
        _pair(case, 3, data=replace(DATA, source=["mr", "t1"], lift=lift)) for lift in (0.0, 0.25)
    )
    inside = (plain.mask > 0).expand_as(plain.source)
    assert (plain.source[inside] < -0.5).any()
    torch.testing.assert_close(lifted.source[inside], plain.source[inside].clamp(min=-0.5))
    assert torch.equal(lifted.source[~inside], plain.source[~inside])
    assert torch.equal(lifted.target, plain.target)


def test_a_stripped_item_has_brain_alone_in_source_target_and_mask(cohort):
    case = _case(cohort, stripped=1.0)
    pair = _pair(case, 1)
    inside = np.isin(case.arrays["label.seg"], INTRACRANIAL)
    shown = inside & case.mask(["mr"])
    source, target, mask = (one[0, 0, 0].numpy() for one in (pair.source, pair.target, pair.mask))
    assert np.array_equal(mask > 0, shown[10])
    assert (source[~inside[10]] == BACKGROUND).all()
    assert (target[~inside[10]] == BACKGROUND).all()
    assert (source[inside[10]] > BACKGROUND).mean() > 0.9
    assert not case.volume("mr").data[0][~inside].any()
    brain_ml = shown.sum() * np.prod(case.header.spacing_mm) / 1000
    assert case.header.mask_ml == pytest.approx(brain_ml)
    assert cohort.header("phantom_000").mask_ml > 1.5 * brain_ml


def test_tight_stripping_removes_the_csf_of_the_surface_and_leaves_tissue_and_ventricles(cohort):
    voxel_mm = cohort.header("phantom_000").spacing_mm[1]
    case = _case(cohort, stripped=1.0, strip_mm=2 * voxel_mm)
    tissues = case.arrays["label.seg"]
    inside = np.isin(tissues, INTRACRANIAL)
    loose, tight = (
        replace(_item(case, 1), strip_mm=depth_mm).remainder(EVERYTHING)
        for depth_mm in (0.0, voxel_mm)
    )
    assert np.array_equal(loose, inside)
    # One voxel deep: each removed one touches the outside along a row or a column.
    cross = ndimage.generate_binary_structure(2, 1)[None]
    surface = inside & ~ndimage.binary_erosion(inside, cross)
    assert np.array_equal(inside & ~tight, surface & np.isin(tissues, SURFACE))
    assert (inside & ~tight).any()


def test_maps_and_physics_that_lack_each_other_and_maps_without_labels_are_refused(
    cohort, prepared
):
    with refuses():
        open_cohort(prepared).with_physics(_settings(), ["t2"])
    with refuses():
        Batches(cohort, DATA, INTENSITY)
    regions = _case(cohort, Contrast(sequence="any", regions=0.5)).contrasts
    with refuses():
        regions.computes(replace(cohort.header("phantom_000"), labels={}))


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


UNPLAYABLE = """
"any", tr_ms = [10, 20]
"spin_echo", ti_ms = [10, 20]
"spin_echo", tr_ms = [5, 5e9]
"mprage", ti_ms = [300, 900]
"gradient_echo", flip_deg = [5, 720]
""".strip().splitlines()


@every_row(
    "change",
    [
        {"intensity.mr": '{kind = "minmax"}'},
        {"data.target": '["mr"]', "data.source": '["ct"]'},
        {"data.source": '["t1"]', "intensity.t1": '{kind="percentile"}'},
        {"data.physics.noise": "-0.1"},
        {"data.physics.field_t": "[3, 3000]"},
        *({"data.physics.contrasts.mr": f"{{sequence = {line}}}"} for line in UNPLAYABLE),
    ],
)
def test_recipes_whose_physics_does_not_fit_or_that_no_scanner_can_play_are_refused(recipe, change):
    with refuses():
        read(str(recipe), change)


def test_drawn_regions_have_a_textured_signal_for_each_tissue_and_leave_dense_bone_dark(cohort):
    case = _case(cohort, Contrast(sequence="any", regions=1.0), **QUIET)
    acquisition = _acquired(case, 3)
    image, _ = _item(case, 3).image(acquisition, EVERYTHING)
    labels, protons = case.arrays["label.seg"], case.arrays["pd_map"]
    for label in (Label.WHITE, Label.GREY, Label.CSF):
        values = image[(labels == label) & (protons > 0.65)]
        expected = FULL_SCALE * acquisition.regions.signals[0, label]
        texture = float(acquisition.regions.contrast[label])
        assert values.mean() == pytest.approx(expected, rel=0.1 * texture + 0.01)
        assert 0.5 * texture < values.std() / expected < 2.5 * texture
    bone = image[(labels == Label.BONE) & (protons < 0.06)]
    assert bone.max() < 0.11 * FULL_SCALE


def test_some_drawn_muscles_have_dark_strands_of_tendon_in_a_fifth_of_them():
    places = [axis.ravel() for axis in np.meshgrid(*[np.linspace(0, 1, 40)] * 3, indexing="ij")]
    muscle = np.full(len(places[0]), Label.MUSCLE)
    shares = []
    for seed in range(60):
        signal = draw_regions(default_rng(seed)).at(muscle, places)
        shares.append(float((signal < 0.62 * np.percentile(signal, 90)).mean()))
    dark = [share for share in shares if share]
    assert 0.25 < len(dark) / len(shares) < 0.75
    assert 0.1 < np.mean([share for share in dark if share < 0.4]) < 0.3


def test_bone_of_a_stored_ct_is_denser_by_the_items_share_up_to_the_densest(cohort):
    case = _case(cohort, dense=1.1)
    item = case.contrasts.item(case, 3)
    vault, beyond = item.dense
    assert 0 < vault <= 0.55
    assert 0.33 <= beyond <= 1.1
    stored = case.volume("ct").data[0]
    denser = item.stored("ct", EVERYTHING, stored)
    soft = stored <= 150
    assert_allclose(denser[soft], stored[soft])
    away = case.arrays["vault_map"][EVERYTHING] > 0
    share = np.where(away, beyond, vault)
    wanted = np.minimum(stored + share * (stored - 150), np.maximum(stored, 2200))
    assert_allclose(denser[~soft], wanted[~soft], rtol=1e-6)
    plain = _case(cohort)
    assert_allclose(plain.contrasts.item(plain, 3).stored("ct", EVERYTHING, stored), stored)


def test_half_of_the_items_have_regions_where_half_is_asked_for_and_others_are_drawn_as_before(
    cohort,
):
    some, none = (_case(cohort, Contrast(sequence="any", regions=share)) for share in (0.5, 0.0))
    drawn = [_acquired(some, seed).regions for seed in range(200)]
    assert 80 < sum(own is not None for own in drawn) < 120
    for seed in range(20):
        own, others = (_acquired(case, seed) for case in (some, none))
        assert (own.protocol, own.effects.noise) == (others.protocol, others.effects.noise)


def test_neighbours_of_a_slice_lie_as_far_apart_as_the_slices_that_are_drawn_are_thick(cohort):
    data = replace(DATA, stack=1)
    case = _case(cohort, **{**QUIET, "slice_mm": 20.0}, same_slices=True)
    items = (_item(case, seed) for seed in range(50))
    item = next(item for item in items if item.slice_mm > 15)
    apart = round(item.slice_mm / case.header.spacing_mm[0])
    assert apart == 2
    here, below, above = (
        _pair(case, item.seed, z, data).source[0] for z in (10, 10 - apart, 10 + apart)
    )
    assert data.channels == [("mr", 0), ("mr", -1), ("mr", 1)]
    assert_allclose(here[1], below[0], atol=0.05)
    assert_allclose(here[2], above[0], atol=0.05)


@slow
def test_a_process_that_imports_the_training_alone_reads_a_recipe_with_physics(recipe):
    script = f"from voxlate.training.recipe import read\nread({str(recipe)!r})"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_drawn_scalp_is_in_the_mr_the_ct_and_the_mask_of_every_plane(cohort):
    case = _case(cohort, **QUIET, scalp=1.0)
    items = (_item(case, seed) for seed in range(100))
    item = next(item for item in items if item.scalp.grown_mm > 4)
    for plane in replace(DATA, planes="all").by_plane:
        arrays = lay_out(case, plane.axes).arrays
        depth_mm, stored = arrays["skin_map"], arrays["ct"]
        z = depth_mm.shape[0] // 2
        size = (1, *depth_mm.shape[1:])
        new = (depth_mm[z] < -1) & (depth_mm[z] > -item.scalp.grown_mm)
        pair = read_pair(case, plane, INTENSITY, (z, 0, 0), size, seed=item.seed)
        air = stored[z][new] < -500  # elsewhere it holds some of the skin, or the head's holder
        assert air.mean() > 0.8
        assert pair.target[0, 0, 0][new].min() > -0.75  # -600 HU
        assert (pair.mask[0, 0, 0][new] == 1).all()
        assert (pair.source[0, 0, 0][new] > BACKGROUND).float().mean() > 0.5


def test_items_that_are_cut_across_their_slices_are_blurred_along_rows_or_columns(cohort):
    case = _case(cohort, **{**QUIET, "slice_mm": 20.0}, across=1.0, same_slices=True)
    assert {_acquired(case, seed).effects.along for seed in range(20)} == {1, 2}
    assert all(_item(case, seed).slice_mm == 0 for seed in range(20))
