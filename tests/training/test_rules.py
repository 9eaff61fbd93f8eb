"""Rules of a plan on cohorts whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from refusals import refuses
from rows import every_row
from voxlate.scans.cases.prepared import CaseEntry
from voxlate.scans.images.intensity import PERCENTILES, Distribution
from voxlate.training.planning import rules
from voxlate.training.planning.cohort_facts import CohortFacts, Scan, roles_of


def scan(name="t1", unit="a.u.", low=0.0, high=1000.0, least=None, tail=1.0, reach=None):
    """A modality whose foreground is uniform over a range; tail: what the last 0.05 % are multiplied by."""
    points = [low + (high - low) * at / 100 * (tail if at > 99.8 else 1) for at in PERCENTILES]
    inside = Distribution((low + high) / 2, (high - low) / 12**0.5, tuple(points))
    ends = low if least is None else least, points[-1]
    return Scan(name, unit, inside, *ends, points[-1] if reach is None else reach, True)


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
    folder = SimpleNamespace(folder="PREPARED", windows={})
    return CohortFacts(folder, cases, known, spacing, shape, box)


CT = scan("ct", "HU", -100, 1200, -1024)
USUAL = rules.Size(16, 2)


def draft(known, passes=10, size=USUAL, **options):
    """A recipe after all rules, in whose training each slice is used about so often."""
    steps = round(passes * known.slices / rules.FIRST_BATCH)
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


def test_fine_pixels_get_a_patch_stem_and_coarse_ones_or_small_slices_none():
    sides = {0.45: 4, 0.9: 2, 1.0: 2, 1.6: 1}
    found = {mm: rules.stems(facts(spacing=(3.0, mm, mm)))[0] for mm in sides}
    assert found == sides
    assert rules.stems(facts(shape=(20, 48, 40), box=(20, 40, 36), spacing=(4.0, 4.0, 4.0))) == [1]
    assert rules.stems(facts()) == [2, 4]


@every_row(
    "scans, passes, keys, others",
    [
        # the unit is arbitrary: every training changes intensities
        ((scan(), CT), 1, {"flip_lr", "gamma", "remap", "bias", "blur_mm"}, {"rotate_degrees"}),
        ((scan(), CT), 10, {"rotate_degrees", "gamma", "remap"}, {"shear"}),
        ((scan(), CT), 100, {"shear", "remap"}, {"invert"}),
        # values with a unit
        ((scan("cta1", "HU", -100, 600, -1024), scan("tmax", "s", 0, 20)), 100, {"shear"}, {"gamma", "bias", "remap"}),
    ],
)  # fmt: skip
def test_changes_of_shape_grow_with_the_passes_and_those_of_intensity_need_an_arbitrary_unit(
    scans, passes, keys, others
):
    found = draft(facts(*scans), passes).data["augment"].keys()
    assert keys <= found
    assert not others & found


def test_the_average_decay_spans_the_last_tenth():
    for steps in (500, 2000, 10_000):
        assert 1 / (1 - rules.average_decay(steps)) == pytest.approx(steps / 10, rel=0.01)


BRAIN = ["flair", "t1", "t1c", "t2"]
PARTS = facts(shape=(100, 512, 512), box=(90, 220, 180))
WHOLE = facts(box=(140, 190, 150))
CUBIC = facts(spacing=(1.4, 1.0, 1.0))
THREE = ["flair", "t1", "t2"]
GAPS = facts(*map(scan, THREE), present=[THREE] * 5 + [["t1", "t2"]] * 3)
SMALL = facts(shape=(8, 24, 20), box=(8, 24, 20))
SINGLE = rules.Size(16, 1)
MEAN = {"mean_alone": True}


@every_row(
    "known, options, key, value",
    [
        # patches hold the body or the whole slice
        (WHOLE, {}, "data.patch", [1, 200, 160]),
        (WHOLE, {}, "synth.slices", None),
        (PARTS, {}, "data.patch", [1, 232, 192]),
        (PARTS, {}, "synth.slices", {"kind": "tiled"}),
        # torsos are not flipped
        (facts(box=(140, 300, 400)), {"passes": 1}, "data.augment", rules.PARTS["grey"]),
        # SSIM is minimised unless scans fit exactly
        *(
            (replace(facts(), apart_mm=mm), {}, "method.ssim", weight)
            for mm, weight in {0.0: 0.1, 0.1: None, 0.3: 0.1, 0.6: 0.4, 1.8: 0.4}.items()
        ),
        # only targets on a scale of their own have their peaks corrected
        (facts(scan(), scan("t2")), {}, "synth.peaks", True),
        (facts(), {}, "synth.peaks", None),
        # nearly cubic voxels of a mean get three planes; thick or few slices, samples and completions one
        (CUBIC, MEAN, "data.planes", "all"),
        (CUBIC, {}, "data.planes", None),
        (facts(spacing=(1.6, 1.0, 1.0)), MEAN, "data.planes", None),
        (facts(shape=(30, 200, 160)), MEAN, "data.planes", None),
        (facts(*map(scan, BRAIN)), MEAN, "data.planes", None),
        # levels leave about eight features a side
        (facts(), {}, "net.multipliers", [1, 2, 4, 4]),
        (SMALL, {"size": SINGLE}, "net.multipliers", [1, 2]),
        (GAPS, {}, "data.allow_missing", True),
    ],
)
def test_a_plan_has_the_keys_that_follow_from_its_facts(known, options, key, value):
    table, _, name = key.partition(".")
    assert draft(known, **options).tables[table].get(name) == value


def test_three_planes_count_as_their_slices_and_are_not_mirrored():
    made = draft(CUBIC, mean_alone=True)
    # 150 + 200 + 160 slices of a case in place of 150
    assert made.passes == pytest.approx(10 * 150 / 510, rel=0.01)
    assert rules.mirror(made.tables) == {}
    assert rules.mirror(draft(CUBIC).tables) == {"mirror": True}
    assert rules.stems(replace(facts(), apart_mm=1.8))[0] == 4


UNITS = {"ct": "HU", "cta": "HU", "cta1": "HU", "cta2": "HU", "tmax": "s"}


def known_scans(names, **options):
    """Facts of cases with scans of these names."""
    return facts(*(scan(name, UNITS.get(name, "a.u.")) for name in names.split()), **options)


SPLIT = {"present": [["t1"]] * 4 + [["ct"]] * 4}


@every_row(
    "names, asked, source, target, completes",
    [
        # what is harder to scan is synthesised from what is easier
        ("t1 ct", {}, "t1", "ct", False),
        ("ct mr", {}, "mr", "ct", False),
        ("cta tof", {}, "tof", "cta", False),
        ("t2 t1", {}, "t1", "t2", False),
        ("cta1 cta2 tmax", {}, "cta1 cta2", "tmax", False),
        ("flair t1 t1c t2", {}, "flair t1 t1c t2", "flair t1 t1c t2", True),
        ("t1 t2 flair", {"source": ["t2"], "target": ["t1"]}, "t2", "t1", False),
    ],
)
def test_roles_are_those_that_are_asked_for_or_a_guess(names, asked, source, target, completes):
    found = roles_of(known_scans(names), **asked)
    assert (" ".join(found.source), " ".join(found.target)) == (source, target)
    assert found.completes == completes


@every_row(
    "names, options, asked",
    [
        ("t1", {}, {}),
        ("t1 ct", {}, {"source": ["t1"], "target": ["pet"]}),
        ("t1 ct", {}, {"target": ["ct"]}),
        ("t1 ct", SPLIT, {}),
        ("t1 t1c t2 flair pd swi tof ct cbf", {}, {}),
    ],
)
def test_roles_that_cannot_be_are_refused(names, options, asked):
    with refuses():
        roles_of(known_scans(names, **options), **asked)
