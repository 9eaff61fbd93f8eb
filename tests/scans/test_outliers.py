"""Cases of a cohort that differ from the others, named by `prepare`: hand-made heads, of which one is spoilt."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.random import default_rng
from scipy.ndimage import gaussian_filter

from rows import every_row, slow
from voxlate.checks.check_table import first
from voxlate.checks.cohort_outliers import check_outliers
from voxlate.checks.pairs import Pairs
from voxlate.checks.thumbnail import resemblance, thumbnails
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import PreparedCase, prepare_case
from voxlate.scans.images.grid import Volume

CASES = 5
SHAPES = {"1 mm": (40, 48, 48), "thick": (10, 64, 64)}
SPACING_MM = {"1 mm": (4.0, 4.0, 4.0), "thick": (16.0, 3.0, 3.0)}
Spoil = Callable[[dict[str, np.ndarray]], None]
Change = Callable[[np.ndarray], np.ndarray]


@cache
def head(patient: int, grid: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1 and CT of a head with ventricles and lesions of its own, and where it is, [D, H, W]."""
    rng = default_rng(patient)
    shape = SHAPES[grid]
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    high, long, wide = rng.uniform(0.65, 0.85, 3)
    sides = (z / high, (y + 0.3 * z**2) / long, x / wide * (1 + 0.15 * y + 0.3 * z))
    radius = np.linalg.norm(sides, axis=0)
    brain = radius <= 0.88
    field = gaussian_filter(rng.normal(size=shape), np.array(shape) / 12)
    field = (field - field[brain].mean()) / field[brain].std()
    fluid = brain & (field > np.quantile(field[brain], 0.85))
    parts = [fluid, brain, radius < 0.95, radius < 1]  # then bone, and skin
    t1 = np.select(parts, [30, 90 - 15 * field, 15, 120])
    ct = np.select(parts, [5, 35 + 15 * field, 700, 30], -1000)
    return np.abs(t1 + rng.normal(0, 2, shape)), ct + rng.normal(0, 3, shape), radius < 1


def volumes_of(arrays: dict[str, np.ndarray], grid: str) -> dict[str, Volume]:
    affine = np.diag([*SPACING_MM[grid][::-1], 1.0])
    return {
        name: Volume(np.float32(values)[None], affine, "HU" if name == "ct" else "a.u.", name, name)
        for name, values in arrays.items()
    }


def prepared(patient: int, grid: str, masks: bool, spoil: Spoil | None = None) -> PreparedCase:
    t1, ct, body = head(patient, grid)
    arrays = {"t1": t1, "ct": ct, "mask": body.astype(float)}
    if spoil is not None:
        spoil(arrays)
    volumes = volumes_of(arrays, grid)
    mask = volumes.pop("mask")
    return prepare_case("abcde"[patient], volumes, Preparation(), mask=mask if masks else None)


ordinary = cache(prepared)


def cohort(grid: str, spoil: Spoil | None = None, masks: bool = False) -> list[PreparedCase]:
    """Heads of which `spoil` changes the arrays of case b."""
    cases = [ordinary(patient, grid, masks) for patient in range(CASES)]
    if spoil is not None:
        cases[1] = prepared(1, grid, masks, spoil)
    return cases


def named(cases: list[PreparedCase]) -> list[str]:
    by_name = {case.header.case: case.arrays for case in cases}
    said = check_outliers([case.header for case in cases], by_name.__getitem__)
    assert {one.grade for one in said} <= {"caution"}
    return [one.text for one in said]


def change(name: str, function: Change) -> Spoil:
    return lambda arrays: arrays.update({name: function(arrays[name])})


def z_scored(values):
    return (values - values.mean()) / values.std()


def padded(values):
    return np.pad(values[:, 4:-4], [(0, 0), (4, 4), (0, 0)], constant_values=65535)


def half_empty(values):
    return np.where(np.arange(len(values))[:, None, None] < len(values) // 2, -1024, values)


def as_t2(values):
    return np.where(values > 25, 160 - values, values)


def upper_half_as_t2(values):
    lower, upper = np.split(values, 2)
    return np.concatenate([lower, as_t2(upper)])


KINDS = {
    "mirrored left to right": ("ct", lambda values: values[:, :, ::-1], "left to right"),
    "upside down": ("ct", lambda values: values[::-1], "upside down"),
    "ct z-scored": ("ct", z_scored, "ct of b (1 of 5 cases) is not in Hounsfield units"),
    "ct grey": ("ct", lambda values: (values.clip(-100, 155) + 100).round(), "windowed to grey"),
    "ct a mask": ("ct", lambda values: values > 300, "has the values of a CT or of a label map"),
    "ct cut": ("ct", lambda values: values.clip(-160, 240), "is cut to a window (-160 to 240)"),
    "65535": ("ct", padded, "is padded with a value that no tissue has (65535 HU)"),
    "tissue": ("ct", lambda values: values + 100 * (values > -500), "at other HU"),
    "ct of 0 outside": ("ct", lambda values: np.where(values < -500, 0, values), "around the body"),
    "half ct": ("ct", half_empty, "ct of b (1 of 5 cases) holds air or one value in much"),
    "t1 z-scored": ("t1", z_scored, "t1 of b (1 of 5 cases) is z-scored"),
    "t1 scaled": ("t1", lambda values: values / 200, "t1 of b (1 of 5 cases) has another scale"),
    "t2 as t1": ("t1", as_t2, "t1 of b (1 of 5 cases) has another contrast to its ct"),
    "t1 + 1000": ("t1", lambda values: values + 1000, "t1 of b (1 of 5 cases) has another value"),
    "t1 and t2": ("t1", upper_half_as_t2, "in its lower half and another one in its upper half"),
    "t1 blank": ("t1", np.zeros_like, "t1 of b (1 of 5 cases) is blank"),
}


@every_row("grid", SHAPES)
def test_an_ordinary_cohort_names_no_case(grid):
    assert named(cohort(grid)) == []
    assert named(cohort(grid, masks=True)) == []


def test_a_window_that_all_cts_share_is_named_once():
    cut = change("ct", lambda values: values.clip(None, 650))
    (line,) = named([prepared(patient, "thick", False, cut) for patient in range(CASES)])
    assert "(5 of 5 cases) is cut" in line


@slow
@every_row("kind", KINDS)
def test_a_spoilt_scan_is_named_in_one_line(kind):
    name, function, expected = KINDS[kind]
    (line,) = named(cohort("thick", change(name, function)))
    assert expected in line
    assert " of b (1 of 5 cases) " in line


def test_an_inverted_scan_resembles_none_of_its_modality():
    t1, _, body = head(0, "1 mm")
    noisy = t1 + default_rng(1).normal(0, 9, t1.shape)
    scans = {"t1": t1, "noisy": noisy, "inverted": np.where(body, 130 - t1, t1)}
    known, *others = thumbnails(scans, "t1", SPACING_MM["1 mm"]).values()
    alike, inverted = (resemblance(one, [known]) for one in others)
    numbers = {"cases": 3, "alike_usual": alike, "flip": 0}
    assert first("of_cohort", {**numbers, "alike": alike}) is None
    assert first("of_cohort", {**numbers, "alike": inverted}).code == "unlike-cases"


@every_row("grid", SHAPES)
def test_noise_below_zero_in_mr_is_no_z_score_and_no_other_patient(grid):
    noise = default_rng(0).normal(0, 12, SHAPES[grid])
    cases = cohort(grid, change("t1", lambda values: values + noise))
    assert cases[1].header.statistics["t1"].all.at(5) < -10
    assert named(cases) == []


def with_t2(cases: list[PreparedCase]) -> list[PreparedCase]:
    """The cases with a T2; in case b the files of T1 and T2 are exchanged."""
    made = []
    for case in cases:
        names = ("t2", "t1") if case.header.case == "b" else ("t1", "t2")
        t1, ct = case.arrays["t1"], case.arrays["ct"]
        volumes = volumes_of(dict(zip((*names, "ct"), (t1, as_t2(t1), ct))), "1 mm")
        made.append(prepare_case(case.header.case, volumes, Preparation()))
    return made


def test_exchanged_files_of_two_contrasts_are_named_and_not_the_ct():
    lines = named(with_t2(cohort("1 mm")))
    assert [re.findall(r"^t\d of b |that of t\d", line) for line in lines] == [
        ["t1 of b ", "that of t2"],
        ["t2 of b ", "that of t1"],
    ]


OF_T2 = {"cases": 3, "classes": 2.0, "halves": 5.0, "nearest": "t2"}


@every_row(
    "numbers, code",
    [
        (OF_T2 | {"nearest_share": 0.3}, "contrast-of-modality"),
        (OF_T2 | {"nearest_share": 0.9}, "mixed-scan"),
        ({"classes": 2.0, "times": 5.0, "cases": 5}, "other-contrast"),
        ({"classes": 2.0, "times": 5.0, "cases": 4}, None),
    ],
)
def test_a_whole_file_of_another_contrast_is_not_called_mixed_nor_compared_with_three(
    numbers, code
):
    assert getattr(first("pair", numbers), "code", None) == code


@every_row("grid", SHAPES)
def test_exchanged_cts_are_named_and_no_unclear_scan_that_resembles_theirs(grid):
    (b_t1, b_ct, _), (_, c_ct, _) = head(1, grid), head(2, grid)
    b_t1 = b_t1 + default_rng(0).normal(0, 60, SHAPES[grid])
    cases = cohort(grid, change("ct", lambda _: c_ct))
    cases[2] = prepared(2, grid, False, change("ct", lambda _: b_ct))
    cases[3] = prepared(3, grid, False, change("t1", lambda t1: np.abs(t1 + b_t1)))
    (line,) = named(cases)
    assert line.startswith("t1 of b, c (2 of 5 cases)")


@every_row("half, exchanged", [(32, {"b", "c"}), (5, set())])
def test_slices_that_show_little_as_near_the_crown_are_not_compared(half, exchanged):
    def shown(case):
        t1, ct, _ = (scan[5:6] for scan in head("abcde".index(case), "thick"))
        if case in "bc":
            ct = head("acb".index(case), "thick")[1][5:6]
            part = np.zeros(t1.shape, bool)
            part[:, 32 - half : 32 + half, 32 - half : 32 + half] = True
            t1, ct = np.where(part, t1, 0), np.where(part, ct, -1000)
        return thumbnails({"t1": t1, "ct": ct}, "t1", SPACING_MM["thick"])

    pairs = Pairs({case: case for case in "abcde"}, "t1", shown, ["ct"], [])
    for case in "abcde":
        pairs.measure(case, pairs.thumbnails(case))
    assert {finding.case for finding in pairs.findings([])} == exchanged


@slow
@every_row(
    "function, expected",
    [
        (lambda mask: 1 - mask, "mask of b (1 of 5 cases) is inverted"),
        (np.ones_like, "mask of b (1 of 5 cases) is the whole image"),
        (lambda mask: np.roll(mask, 12, 2), "mask of b (1 of 5 cases) holds less of the body"),
        (
            lambda mask: mask[:, ::-1],
            "mask of b (1 of 5 cases) is turned or mirrored against its ct (front to back",
        ),
    ],
)
def test_a_wrong_mask_is_named(function, expected):
    (line,) = named(cohort("1 mm", change("mask", function), masks=True))
    assert expected in line


def test_a_scan_without_spacing_is_named():
    cases = cohort("thick")
    header = cases[1].header
    origin = replace(header.origins["ct"], affine=np.eye(4).tolist())
    header = replace(header, origins=header.origins | {"ct": origin})
    cases[1] = replace(cases[1], header=header)
    (line,) = named(cases)
    assert "1×1×1 mm" in line
    assert "the others 3×3×16 mm" in line


def test_two_cases_are_judged_by_their_unit_alone_and_a_shifted_majority_blames_no_other():
    shift = change("ct", lambda values: values + 1024)
    shifted = [prepared(patient, "1 mm", False, shift) for patient in range(3)]
    sound = cohort("1 mm")
    for cases, of in ([sound[0], shifted[1]], "b"), (shifted + sound[3:], "a, b, c"):
        assert [line.split(" (")[0] for line in named(cases)] == [f"ct of {of}"]
    assert named(sound[:2]) == []
