"""The series of a mixed DICOM study: what is left out, what fits a modality, and what is asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.scans.formats.dicom import SeriesInfo
from voxlate.synthesis.dicom_study import pick_series, why_excluded
from voxlate.synthesis.scan_checks import ELSEWHERE

AXIAL = frozenset({"1.0 0.0 0.0 0.0 1.0 0.0"})
THREE = AXIAL | {"0.0 1.0 0.0 0.0 0.0 -1.0", "1.0 0.0 0.0 0.0 0.0 -1.0"}


def series(
    number: int,
    description: str,
    modality: str = "MR",
    image_type: str = "ORIGINAL\\PRIMARY\\M",
    images: int = 100,
    directions: frozenset[str] = AXIAL,
) -> SeriesInfo:
    return SeriesInfo(
        Path("STUDY"),
        f"{number:08x}",
        modality,
        description,
        "",
        image_type,
        number=str(number),
        uid=f"1.2.{number}",
        study="1.2",
        images=images,
        directions=directions,
    )


STUDY = [
    series(1, "localizer", images=3, directions=THREE),
    series(2, "t1_mprage_sag"),
    series(3, "t2_tse_tra", images=30),
    series(4, "t2_tirm_tra_dark-fluid", images=30),
    series(5, "t1_mprage_sag Gd"),
    series(6, "MIP", image_type="DERIVED\\SECONDARY\\MIP"),
    series(7, "SYNTHETIC, NOT FOR DIAGNOSIS: t1"),
    series(8, "Screen", "OT", "DERIVED\\SECONDARY\\SCREEN SAVE", 1),
    series(9, "Head 1.0", "CT", images=160),
]
REASONS = ["localiser", "", "", "", "", "projection", "synthetic", "screenshot", ""]
PICKED = {"t1": 2, "t2": 3, "flair": 4, "t1c": 5, "ct": 9, "ncct": 9, "cta": None, "swi": None}


def test_localisers_screenshots_derived_and_synthetic_series_are_no_candidates():
    assert [why_excluded(one) for one in STUDY] == REASONS
    assert why_excluded(series(1, "t1", images=2)) == "of fewer than 3 images"
    assert why_excluded(series(1, "t1", directions=frozenset())) == "without a place in the patient"


@every_row("modality", list(PICKED))
def test_each_modality_takes_the_only_series_that_fits(modality):
    number = PICKED[modality]
    if number is None:
        with pytest.raises(BadInput, match=r"among its 9 series \(.*projection"):
            pick_series(Path("STUDY"), STUDY, {modality: ()}, None)
        return
    picked = pick_series(Path("STUDY"), STUDY, {modality: ()}, None)
    assert picked.files == {modality: Path(f"STUDY#{number:08x}")}
    assert "left out: 1 localiser, 1 projection, 1 screenshot, 1 synthetic" in picked.notes[0].text


def test_two_that_fit_are_listed_and_one_is_named_by_its_number_or_uid():
    study = [*STUDY, series(12, "t1_space_cor", images=90), series(13, "t1 few", images=20)]
    with pytest.raises(
        BadInput, match=r"found 2 that fit \(series 2 .*; series 12 .*--series t1=2"
    ):
        pick_series(Path("STUDY"), study, {"t1": ()}, None)
    for name in ("t1=12", "12", "1.2.12", "T1=0000000c"):
        picked = pick_series(Path("STUDY"), study, {"t1": ()}, [name])
        assert picked.files == {"t1": Path("STUDY#0000000c")}


def test_an_accepted_name_is_tried_after_the_models_own():
    picked = pick_series(Path("STUDY"), STUDY[3:], {"t2": ("flair",)}, None)
    assert picked.files == {"t2": Path("STUDY#00000004")}


WRONG = {
    "t1 and t2 unnamed": (["4"], "expected MODALITY=NUMBER for a model of t1 and t2"),
    "another modality": (["pd=4"], "expected each of t1, t2 at most once"),
    "twice": (["t1=2", "t1=5"], "expected each of t1, t2 at most once"),
    "no such series": (["t1=99"], r"key 99 .* found 0 in the study \(series 1"),
}


@every_row("case", WRONG)
def test_a_name_that_names_no_series_is_one_sentence(case):
    named, sentence = WRONG[case]
    with pytest.raises(BadInput, match=sentence):
        pick_series(Path("STUDY"), STUDY, {"t1": (), "t2": ()}, named)


def test_one_number_in_two_studies_names_the_series_by_their_uids():
    twice = [replace(STUDY[0], uid="1.3.1"), replace(STUDY[0], uid="1.4.1")]
    number = STUDY[0].number
    with pytest.raises(BadInput, match=r"\(--series t1=1\.3\.1 or t1=1\.4\.1\)"):
        pick_series(Path("STUDY"), twice, {"t1": ()}, [f"t1={number}"])


def test_a_series_whose_images_are_in_several_folders_is_refused_with_their_names():
    whole = series(2, "t1_mprage_sag", images=60)
    parts = [replace(whole, folder=Path(f"STUDY/{name}"), images=20) for name in "ab"]
    for study in (parts, [whole, parts[0]]):
        for named in (None, ["t1=2"]):
            with pytest.raises(BadInput) as refused:
                pick_series(Path("STUDY"), study, {"t1": ()}, named)
            assert all(str(one.folder) in str(refused.value) for one in study)
            assert "--series" not in str(refused.value)


@every_row(
    ("part", "elsewhere"),
    [("KNEE", True), ("T-SPINE", True), ("Right Foot", True), ("CHEST_ABDOMEN", True)]
    + [(part, False) for part in ("", "HEAD", "BRAIN", "NECKCHEST", "CSPINE", "HIPPOCAMPUS", "X")],
)
def test_parts_of_the_body_without_a_head_are_known_by_their_words(part, elsewhere):
    assert bool(ELSEWHERE.search(part)) == elsewhere
