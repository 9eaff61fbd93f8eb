"""The series of a mixed DICOM study: what is left out, what fits a modality, and what is asked."""

from dataclasses import replace
from pathlib import Path

from refusals import refuses
from rows import every_row
from voxlate.scans.formats.dicom import SeriesInfo
from voxlate.synthesis.scans import pick_series, why_excluded

AXIAL = frozenset({"1.0 0.0 0.0 0.0 1.0 0.0"})
THREE = AXIAL | {"0.0 1.0 0.0 0.0 0.0 -1.0", "1.0 0.0 0.0 0.0 0.0 -1.0"}


def series(
    number,
    description,
    modality="MR",
    image_type="ORIGINAL\\PRIMARY\\M",
    images=100,
    directions=AXIAL,
):
    own = {"number": str(number), "uid": f"1.2.{number}", "study": "1.2"}
    own |= {"images": images, "directions": directions}
    stated = (f"{number:08x}", modality, description, "", image_type)
    return SeriesInfo(Path("STUDY"), *stated, **own)


def picked(study, accepted):
    """The choice of series for modalities with their accepted names, and the messages on it."""
    return pick_series(Path("STUDY"), study, accepted)


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
PICKED = {"t1": 2, "t2": 3, "flair": 4, "t1c": 5, "ct": 9, "ncct": 9}


def test_localisers_screenshots_derived_and_synthetic_series_are_no_candidates():
    assert [why_excluded(one) for one in STUDY] == REASONS
    assert "echo-planar" in why_excluded(series(1, "ep2d_bold_rest"))
    assert "echo-planar" in why_excluded(series(1, "b0", image_type="ORIGINAL\\PRIMARY\\DIFFUSION"))
    assert why_excluded(series(1, "t1", images=2)) == "of fewer than 3 images"
    assert why_excluded(series(1, "t1", directions=frozenset())) == "without a place in the patient"


@every_row("modality, number", PICKED.items())
def test_each_modality_takes_the_only_series_that_fits(modality, number):
    files, _ = picked(STUDY, {modality: ()})
    assert files == {modality: Path(f"STUDY#{number:08x}")}


@every_row("modality", ["cta", "swi"])
def test_a_modality_that_no_series_fits_is_refused(modality):
    with refuses(r"among its 9 series \(.*projection"):
        picked(STUDY, {modality: ()})


def test_of_several_the_one_of_most_images_is_taken_t1_first_and_the_others_are_named():
    space = series(12, "t1_space_cor", images=101)
    study = [*STUDY, space, series(13, "t1 few", images=20), series(14, "pd_tse", images=150)]
    for accepted, number, others in (("t1", 12, "series 2 "), ("mr", 12, "series 14 ")):
        files, (said,) = picked(study, {accepted: ()})
        assert files == {accepted: Path(f"STUDY#{number:08x}")}
        assert others in said.text
        assert not any(absent in said.text for absent in ("series 6 ", "series 13 "))


@every_row("modality, number", [("t1", 2), ("t1c", 5), ("t1n", 2), ("t2f", 4), ("mra", 10)])
def test_a_contrast_agent_and_other_names_of_a_contrast_are_told_apart(modality, number):
    study = [series(2, "3D T1"), series(5, "3D T1 post"), STUDY[3], series(10, "TOF 3D")]
    assert picked(study, {modality: ()})[0] == {modality: Path(f"STUDY#{number:08x}")}


def test_an_accepted_name_is_tried_after_the_models_own():
    assert picked(STUDY[3:], {"t2": ("flair",)})[0] == {"t2": Path("STUDY#00000004")}


WHOLE = series(2, "t1_mprage_sag", images=60)
PART = replace(WHOLE, images=20, folder=Path("STUDY/a"))


@every_row("other", ["STUDY", "STUDY/b"])
def test_a_series_that_lies_in_several_folders_is_refused_with_these(other):
    with refuses(f"{other}#.*STUDY/a#"):
        picked([PART, replace(PART, folder=Path(other), images=60)], {"t1": ()})
