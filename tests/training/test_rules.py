"""Rules of a plan on cohorts whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from refusals import refuses
from rows import every_row
from voxlate.scans.cases.prepared import CaseEntry
from voxlate.scans.images.volume_statistics import PERCENTILES, Distribution
from voxlate.training.planning import rules
from voxlate.training.planning.cohort_facts import CohortFacts, Scan, roles_of


def scan(name="t1", unit="a.u.", low=0.0, high=1000.0, least=None, tail=1.0, reach=None):
    """A modality whose foreground is uniform over a range; tail: what the last 0.05 % are multiplied by."""
    points = [low + (high - low) * at / 100 * (tail if at > 99.8 else 1) for at in PERCENTILES]
    inside = Distribution((low + high) / 2, (high - low) / 12**0.5, tuple(points))
    ends = low if least is None else least, points[-1]
    return Scan(name, unit, 8, inside, *ends, points[-1] if reach is None else reach, True)


def facts(
    *scans, spacing=(1.0, 1.0, 1.0), shape=(150, 200, 160), box=(140, 180, 140), present=None
):
    """Eight training cases with these modalities; present: those of each case, where they differ."""
    scans = scans or (scan(), CT)
    has = present or [[one.name for one in scans]] * 8
    cases = tuple(
        CaseEntry(f"case{k}", f"patient{k}", "train", own, [], shape, spacing, 1000.0)
        for k, own in enumerate(has)
    )
    known = {one.name: one for one in scans}
    folder = SimpleNamespace(folder="PREPARED")
    wide_mm = box[2] * spacing[2]
    return CohortFacts(folder, cases, known, spacing, shape, box, False, wide_mm=wide_mm)


CT = scan("ct", "HU", -100, 1200, -1024)
USUAL = rules.Size(16, 2, 4)


def draft(known, passes=10, size=USUAL, **options):
    """A recipe after all rules, in whose training each slice is used about so often."""
    steps = round(passes * known.slices / size.batch)
    return rules.first_stage(known, roles_of(known), size, steps, **options)


def window(low, high):
    return {"kind": "window", "low": low, "high": high}


MR = {"kind": "percentile", "low": 0, "high": 99.5, "floor": 0}


@every_row(
    "known, table",
    [
        # Hounsfield units get a window that holds the body in round numbers
        (scan("ct", "HU", -212.0, 1533.0, -1024), window(-1000.0, 1550.0)),
        (scan("ct", "HU", 3, 255), window(0, 255)),  # pictures, whatever their name
        (scan("ct", "grey", 0, 680), window(0, 765)),  # pictures of 16 bits
        # MR is scaled by its own percentiles with air at 0; z-scored, it keeps its dark half
        (scan(), MR),
        (scan(low=-2.5, high=3.0), {"kind": "percentile", "low": 0.5, "high": 99.5}),
        (scan("tof", tail=3.0), MR | {"high": 99.9}),  # bright vessels are not clipped
        # maps with a unit share one window that holds the worst stroke, and values below zero, but no noise
        (scan("tmax", "s", 0, 3.5, reach=19.0), window(0, 20.0)),
        (replace(scan("tmax", "s", -4, 10), depth=-3.9), window(-5.0, 10.0)),
        (replace(scan("tmax", "s", 0, 10), depth=-0.05), window(0, 10.0)),
    ],
)
def test_the_intensities_of_a_target_follow_from_its_unit_and_values(known, table):
    assert rules.intensity(known, side="target")[0] == table


def test_hounsfield_units_that_are_only_given_keep_the_contrast_of_soft_tissue():
    points = [
        {5: -110, 25: 34, 75: 167}.get(at, 900 if at > 90 else 50 if at > 25 else -800)
        for at in PERCENTILES
    ]
    known = replace(scan("cta1", "HU"), inside=Distribution(0, 1, tuple(points)))
    table, _ = rules.intensity(known, side="source")
    assert table == {"kind": "window", "low": -110.0, "high": 370.0}


@every_row(
    "doubtful, ordinary, words, key",
    [
        # a case that alone sets the range of a map is named
        (
            replace(scan("tmax", "s", 0, 3.5, reach=35.0), farthest="case7"),
            scan("tmax", "s", 0, 3.5, reach=13.0),
            "IS case7 IN ANOTHER UNIT?",
            "ANOTHER UNIT",
        ),
        # a CT without air
        (scan("ct", "HU", 800, 2300, 0), CT, "was an offset forgotten?", "offset"),
    ],
)
def test_values_that_seem_to_be_of_another_unit_are_asked_about(doubtful, ordinary, words, key):
    assert words in rules.intensity(doubtful, side="target")[1]
    assert key not in rules.intensity(ordinary, side="target")[1]


BRAIN = ["flair", "t1", "t1c", "t2"]


@every_row(
    "names, source, target, way",
    [
        (["t1", "ct"], ("t1",), ("ct",), "pairs"),
        (["ct", "mr"], ("mr",), ("ct",), "pairs"),
        (["cta", "tof"], ("tof",), ("cta",), "pairs"),
        (["t2", "t1"], ("t1",), ("t2",), "pairs"),
        (["cta1", "cta2", "tmax"], ("cta1", "cta2"), ("tmax",), "pairs"),
        (BRAIN, tuple(BRAIN), tuple(BRAIN), "complete"),
    ],
)
def test_what_is_harder_to_scan_is_made_of_what_is_easier(names, source, target, way):
    units = {"ct": "HU", "cta": "HU", "cta1": "HU", "cta2": "HU", "tmax": "s"}
    found = roles_of(facts(*(scan(name, units.get(name, "a.u.")) for name in names)))
    assert (found.source, found.target, found.pairing) == (source, target, way)
    assert way == "complete" or all(name in found.why for name in names)


def test_roles_that_are_asked_for_win_and_a_guess_says_how_to_turn_it_round():
    three = facts(scan(), scan("t2"), scan("flair"))
    found = roles_of(three, source=["t2"], target=["t1"])
    assert (found.source, found.target, found.pairing) == (("t2",), ("t1",), "pairs")
    assert "--source t2 --target t1" in roles_of(facts(scan(), scan("t2"))).why


def test_scans_that_no_case_has_both_of_are_unpaired():
    assert roles_of(facts(present=[["t1"]] * 4 + [["ct"]] * 4)).pairing == "unpaired"


def test_a_single_modality_and_unknown_names_are_refused():
    with refuses("expected two modalities"):
        roles_of(facts(scan()))
    with refuses("found 'pet'"):
        roles_of(facts(), target=["pet"])
    refusal = r"expected a modality for each of them, found all \(t1, ct\) in one"
    with refuses(refusal):
        roles_of(facts(), target=["t1", "ct"])


def test_patches_hold_the_body_or_the_whole_slice():
    whole = draft(facts(box=(140, 190, 150)))
    assert whole.data["patch"] == [1, 200, 160]
    assert "slices" not in whole.tables["synth"]
    parts = draft(facts(shape=(100, 512, 512), box=(90, 220, 180)))
    assert parts.data["patch"] == [1, 232, 192]
    assert parts.tables["synth"]["slices"] == {"kind": "tiled"}


def test_fine_pixels_get_a_patch_stem_and_coarse_ones_or_small_slices_none():
    sides = {0.45: 4, 0.9: 2, 1.0: 2, 1.6: 1}
    found = {mm: rules.stems(facts(spacing=(3.0, mm, mm)))[0] for mm in sides}
    assert found == sides
    assert rules.stems(facts(shape=(20, 48, 40), box=(20, 40, 36), spacing=(4.0, 4.0, 4.0))) == [1]
    assert rules.stems(facts()) == [2, 4]


@every_row(
    "mm, stem, weight", [(0.0, 2, 0.1), (0.1, 2, 0), (0.3, 2, 0.1), (0.6, 2, 0.4), (1.8, 4, 0.4)]
)
def test_misaligned_scans_get_a_coarser_stem_and_ssim_is_minimised_unless_scans_fit_exactly(
    mm, stem, weight
):
    known = replace(facts(), apart_mm=mm)
    assert rules.stems(known)[0] == stem
    made = draft(known)
    assert made.tables["method"].get("ssim", 0) == weight


def test_heads_are_flipped_and_torsos_are_not():
    torso = draft(facts(box=(140, 300, 400)), 1)
    assert torso.data["augment"] == {}


@every_row(
    "scans, passes, keys, others",
    [
        ((scan(), CT), 1, {"flip_lr"}, {"rotate_degrees", "remap"}),
        ((scan(), CT), 10, {"rotate_degrees", "gamma"}, {"remap", "shear"}),
        ((scan(), CT), 100, {"shear", "remap"}, set()),
        # cases of several scanners
        ((replace(scan(), contrast=0.1), CT), 2, {"remap"}, {"rotate_degrees"}),
        # values with a unit
        ((scan("cta1", "HU", -100, 600, -1024), scan("tmax", "s", 0, 20)), 100, {"shear"}, {"gamma", "bias", "remap"}),
    ],
)  # fmt: skip
def test_augmentation_grows_with_the_passes_and_the_contrast_of_cases(scans, passes, keys, others):
    found = draft(facts(*scans), passes).data["augment"].keys()
    assert keys <= found
    assert not others & found


def test_only_targets_on_a_scale_of_their_own_have_their_peaks_corrected():
    made = draft(facts(scan(), scan("t2")))
    assert made.tables["synth"]["peaks"]
    assert "peaks" not in draft(facts()).tables["synth"]


def test_a_mean_of_nearly_cubic_voxels_is_that_of_three_planes_and_not_mirrored():
    known = facts(spacing=(1.4, 1.0, 1.0))
    made = draft(known, mean_alone=True)
    assert made.data["planes"] == "all"
    assert rules.mirror(made.tables) == {}
    # 150 + 200 + 160 slices of a case in place of 150
    assert made.passes == pytest.approx(10 * 150 / 510, rel=0.01)
    of_samples = draft(known)
    assert "planes" not in of_samples.data
    assert rules.mirror(of_samples.tables) == {"mirror": True}


@every_row(
    "known",
    [
        facts(spacing=(1.6, 1.0, 1.0)),
        facts(shape=(30, 200, 160)),
        facts(*map(scan, BRAIN)),
    ],
)
def test_thick_slices_few_slices_and_completions_keep_one_plane(known):
    assert "planes" not in draft(known, mean_alone=True).data


@every_row(
    "shape, size, multipliers", [((150, 200, 160), 2, [1, 2, 4, 4]), ((8, 24, 20), 1, [1, 2])]
)
def test_levels_leave_about_eight_features_a_side(shape, size, multipliers):
    made = draft(facts(shape=shape, box=shape), size=rules.Size(16, size, 4))
    assert made.tables["net"]["multipliers"] == multipliers


def test_the_average_decay_spans_the_last_tenth():
    for steps in (500, 2000, 10_000):
        assert 1 / (1 - rules.average_decay(steps)) == pytest.approx(steps / 10, rel=0.01)


def test_cases_that_lack_a_modality_are_taken_by_a_completion():
    names = ["flair", "t1", "t2"]
    made = draft(facts(*map(scan, names), present=[names] * 5 + [["t1", "t2"]] * 3))
    assert made.data["allow_missing"]
    assert made.why["data.allow_missing"] == "3 of 8 training cases lack some (flair in 3)"


def test_a_modality_that_is_not_to_be_trusted_is_taken_only_where_it_is_named():
    known = facts(scan("t1"), scan("t2"), scan("läsion"))
    doubted = replace(known, unfit=("läsion",))
    found = roles_of(doubted)
    assert (found.source, found.target, found.pairing) == (("t1",), ("t2",), "pairs")
    assert "läsion" in found.why
    assert roles_of(doubted, source=["t1"]).target == ("t2",)
    assert roles_of(doubted, source=["t1"], target=["läsion"]).target == ("läsion",)
    with refuses("läsion"):
        roles_of(replace(known, unfit=("läsion", "t2")))
