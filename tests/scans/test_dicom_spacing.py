"""DICOM series whose files are missing by a rule, and sound ones whose headers look as if they were."""

import json

import pytest

from refusals import refuses
from rows import every_row
from voxlate.checks.prepare import prepare
from voxlate.scans.formats.io import read_volume, write_volume

pydicom = pytest.importorskip("pydicom")
from test_dicom import FIRST, NORMAL, write_slice  # noqa: E402 - needs pydicom


def write(folder, step=3.0, count=6, number=1, numbers=None, **tags):
    """Slices `step` mm apart; number: what InstanceNumber counts by (0: none is written)."""
    if number and not numbers:
        numbers = [7 + number * k for k in range(count)]
    for k in range(count):
        place = [f"{v:.8f}" for v in FIRST + step * k * NORMAL]
        named = {"InstanceNumber": numbers[k]} if numbers else {}
        write_slice(folder, str(k), k, ImagePositionPatient=place, **named, **tags)
    return folder


STATED = "step, number, count, spacing, thickness"
MISSING = [  # every second, third ... file was deleted
    (6.0, 1, 6, 3, 3),  # half of the slices, and InstanceNumber hides it
    (6.0, 2, 6, 3, 3),
    (6.0, -2, 4, 3, None),
    (6.0, 2, 6, -3, None),
    (1.25, 2, 6, 0.6, 0.6),  # the spacing is rounded
    (9.0, 3, 6, 3, 2.5),  # two of three
    (6.0, 1, 2, 3, None),
    (12.0, 2, 6, 6, 5),  # of slices with gaps
    (12.0, 2, 6, 1, 5),  # of slices with gaps, which SpacingBetweenSlices states
    (4.0, 4, 6, 1, 3),  # of slices that overlap
    (6.0, 2, 6, None, 3),
    (11.0, -2, 6, None, 5),
]


def tags_of(spacing, thickness):
    tags = {"SpacingBetweenSlices": spacing, "SliceThickness": thickness}
    return {key: value for key, value in tags.items() if value is not None}


@every_row(STATED, MISSING)
def test_a_series_that_misses_slices_by_a_rule_is_refused(
    tmp_path, step, number, count, spacing, thickness
):
    folder = write(tmp_path, step, count, number, **tags_of(spacing, thickness))
    with refuses(r"only one of \d+"):
        read_volume(folder)


SOUND = [
    (3.0, 1, 6, 3, 3),
    (3.0, 1, 6, -3, 3),
    (5.5, 1, 6, 5.5, 5),
    (6.0, 1, 6, 6, 3),  # the gap is as thick as a slice
    (6.0, 1, 6, 1, 5),  # SpacingBetweenSlices states the gap
    (7.5, 1, 6, 2.5, 5),
    (1.5, 1, 6, 1.5, 3),  # slices overlap
    (1.5, 1, 6, None, 3),
    (7.5, 1, 6, None, 5),
    (3.0, 2, 6, 3, 3),  # of two echoes
    (3.0, 0, 6, None, None),
    (3.0, 1, 6, 0, 0),
]


@every_row(STATED, SOUND)
def test_what_scanners_write_of_whole_series_passes_without_a_word(
    tmp_path, step, number, count, spacing, thickness
):
    volume = read_volume(write(tmp_path, step, count, number, **tags_of(spacing, thickness)))
    assert volume.grid.spacing_mm[0] == pytest.approx(step, rel=1e-6)
    assert volume.guesses == ()


@every_row(
    "step, number, thickness, words",
    [
        (10.0, 1, 1, "1 mm thick are 10.00 mm apart"),
        (5.0, 2, 5, "InstanceNumber counts by 2"),
    ],
)
def test_what_may_be_missing_slices_is_said(tmp_path, step, number, thickness, words):
    folder = write(tmp_path, step, number=number, SliceThickness=thickness)
    (said,) = read_volume(folder).guesses
    assert (said.code, said.grade) == ("guess", "note")
    assert words in said.text


@every_row(
    "tags, guesses",
    [
        ({"SpacingBetweenSlices": 6, "GantryDetectorTilt": 20}, 2),
        ({"SliceThickness": 3, "numbers": [1, 4, 2, 6, 3, 5]}, 0),
    ],
)
def test_tags_that_contradict_the_positions_of_slices_are_named_and_numbers_of_no_rule_are_not(
    tmp_path, tags, guesses
):
    assert len(read_volume(write(tmp_path, **tags)).guesses) == guesses


def test_info_prepare_and_evaluate_say_what_was_guessed_of_a_series(tmp_path, voxlate):
    cohort = tmp_path / "cohort"
    folder = write(cohort / "p0" / "ct", step=5.8, number=0, SliceThickness=3)
    guessed = json.loads(voxlate("info", folder, "--json").out)["guessed"][0]["text"]
    warnings = prepare(cohort, tmp_path / "prepared", workers=1, audit=False).warnings
    write_volume(tmp_path / "out" / "p0" / "ct.nii.gz", read_volume(folder))
    answer = voxlate("evaluate", tmp_path / "out", "--truth", cohort, "--json").done()
    moved = json.loads(answer.out)["moved"]["p0/ct"]
    for said in (guessed, moved, " ".join(one.text for one in warnings)):
        assert "3 mm thick are 5.80 mm apart" in said


def test_every_second_file_of_a_real_series_is_refused(tmp_path, shared):
    for name in ("t1_studyforrest", "ct_head_phantom"):
        folder = shared / "data" / "dicom" / name
        (tmp_path / name).mkdir()
        for file in sorted(folder.iterdir())[::2]:
            (tmp_path / name / file.name).symlink_to(file)
        with refuses("only one of 2 is here"):
            read_volume(tmp_path / name)


@every_row("thickness", ["NaN", "inf", "-3"])
def test_a_single_slice_whose_thickness_is_no_length_is_refused(tmp_path, thickness):
    with refuses("SliceThickness"):
        read_volume(write(tmp_path, count=1, SliceThickness=thickness))


def test_a_single_slice_that_states_no_thickness_is_said_to_be_of_one_millimetre(tmp_path):
    for name, tags, mm in (("without", {}, 1), ("with", {"SliceThickness": 5}, 5)):
        volume = read_volume(write(tmp_path / name, count=1, **tags))
        assert volume.grid.spacing_mm[0] == pytest.approx(mm)
        assert ("1 mm is assumed" in " ".join(map(str, volume.guesses))) == (mm == 1)
