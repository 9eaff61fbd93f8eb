"""The phantom, its CT scanner, ages and diseases against closed forms, symmetry and the laws that tie its pictures together."""

from dataclasses import replace
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import voxlate
from refusals import refuses
from rows import every_row
from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.anatomy.signal import (
    Exposure,
    Head,
    expose,
    image,
    metal_rate_per_ms,
    signal,
    tissue_map,
)
from voxlate.anatomy.tissue import BRAIN, METAL, OTHER_BRAIN, TUMOUR, VESSEL, Label, patient
from voxlate.base.files import read_json

SIZE = (60, 72, 48)
SMALL = (24, 24, 12)
of_the_phantom = pytest.mark.slow  # physics and anatomy that no other code depends on


@pytest.fixture(scope="module")
def stroke() -> Head:
    return make_head(3, 1, SIZE, "stroke")


@pytest.fixture(scope="module")
def tumour() -> Head:
    return make_head(3, 0, (80, 96, 64), "tumour")  # so fine that voxels hold grey matter alone


def average(head: Head) -> Head:
    """The same head with textbook constants and no texture, so that every tissue has one value."""
    textbook = patient(SimpleNamespace(standard_normal=np.zeros))
    return replace(head, tissue=textbook, texture=np.zeros_like(head.texture))


def fraction(head: Head, *labels: Label) -> np.ndarray:
    """The share of each voxel that these tissues fill, 0..1."""
    first, second = np.isin(head.labels, labels), np.isin(head.second, labels)
    return first * head.share + second * (1 - head.share)


@of_the_phantom
def test_tissue_plateaus_on_ct_have_their_hounsfield_units_within_the_noise(tumour):
    noise_hu = 2.5
    # The smooth kernel of a brain's CT divides the noise of the scanner by 1.6 squared.
    scanner = Exposure(0.01, 2.56 * noise_hu, 1e-3)
    picture = image(replace(average(tumour), exposure=scanner), "ncct")
    for label, units in ((Label.WHITE, 30), (Label.MUSCLE, 55), (Label.AIR, -1000)):
        inside = ndimage.binary_erosion((tumour.labels == label) & (tumour.share == 1))
        inside &= tumour.lesion_map == 0
        assert inside.sum() > 200
        # Whole Hounsfield units and 99.99 % of a normal law.
        error_hu = 4 * noise_hu / np.sqrt(inside.sum()) + 0.3
        assert picture[inside].mean() == pytest.approx(units, abs=error_hu)
        assert picture[inside].std() == pytest.approx(np.sqrt(noise_hu**2 + 1 / 12), rel=0.15)


def test_tmax_exceeds_six_seconds_in_core_and_penumbra_and_nowhere_else(stroke):
    assert {1, 2} <= set(np.unique(stroke.lesion_map))
    assert np.array_equal(image(stroke, "tmax") > 6, stroke.lesion_map > 0)


@of_the_phantom
def test_core_has_under_thirty_percent_of_the_normal_flow_and_the_penumbra_more(
    stroke,
):
    cbf = signal(average(stroke), "cbf")
    whole = (stroke.labels == Label.WHITE) & (stroke.share == 1)
    normal, core, penumbra = (
        np.median(cbf[whole & (stroke.lesion_map == value)]) for value in (0, 1, 2)
    )
    assert core < 0.3 * normal < penumbra < normal
    volume = np.median(signal(average(stroke), "cbv")[whole & (stroke.lesion_map == 0)])
    assert 60 * volume / normal == pytest.approx(6.0, rel=1e-3)  # s, the mean transit time


@of_the_phantom
def test_volumes_of_the_brain_are_those_of_adults(tumour):
    """Intracranial volume 1.2-1.8 l, brain over 1 l: Rushton and Ankney 2009, Int J Neurosci 119:692."""
    litre = np.prod(tumour.spacing_mm) / 1e6
    solid = (Label.GREY, Label.WHITE, Label.DEEP_GREY, Label.OEDEMA, Label.NECROSIS)
    tissue = fraction(tumour, *solid).sum() * litre
    fluid = fraction(tumour, Label.CSF, Label.VENTRICLE).sum() * litre
    assert 1.0 < tissue < 1.6
    assert 1.2 < tissue + fluid < 1.9


def test_a_cohort_has_its_files_units_and_note_and_case_k_whatever_the_number_of_cases(
    tmp_path,
):
    wanted = ["t1", "ct", "tmax"]
    calls = []
    options = {"size": SMALL, "seed": 4, "modalities": wanted}
    write_cohort(tmp_path / "three", cases=3, **options)
    options |= {"progress": lambda *at: calls.append(at)}
    folders = write_cohort(tmp_path / "two", cases=2, **options)
    assert calls == [(1, 2), (2, 2)]
    assert [folder.name for folder in folders] == ["phantom_000", "phantom_001"]
    assert sorted(file.name for file in folders[1].iterdir()) == sorted(
        f"{n}.nii.gz" for n in [*wanted, "seg", "lesion"]
    )
    one, other = (
        nibabel.load(tmp_path / name / "phantom_001/ct.nii.gz") for name in ("two", "three")
    )
    assert np.array_equal(one.get_fdata(), other.get_fdata())
    assert nibabel.aff2axcodes(one.affine) == ("R", "A", "S")
    assert one.shape == SMALL
    assert one.header.get_zooms() == pytest.approx((200 / 24, 240 / 24, 168 / 12))
    note = read_json(tmp_path / "two/phantom.json")
    assert (note["seed"], note["seg"]["white"]) == (4, Label.WHITE)


def test_writing_a_cohort_again_keeps_what_is_there_and_adds_what_is_missing(
    tmp_path,
):
    options = {"size": SMALL, "modalities": ["t1", "t2"]}
    write_cohort(tmp_path, cases=1, **options)
    kept, lost = (tmp_path / f"phantom_000/{name}.nii.gz" for name in ("t1", "t2"))
    before, then = nibabel.load(lost).get_fdata(), kept.stat().st_mtime_ns
    lost.unlink()
    write_cohort(tmp_path, cases=2, **options)
    assert kept.stat().st_mtime_ns == then
    assert np.array_equal(nibabel.load(lost).get_fdata(), before)
    assert (tmp_path / "phantom_001/t1.nii.gz").exists()


@every_row(
    "wrong", [{"size": (4, 32, 16)}, {"spacing_mm": (1, 1, 99)}, {"modalities": ["t1", "pet"]}]
)
def test_wrong_settings_leave_no_folder(wrong, out):
    with refuses():
        voxlate.phantom(out, **{"cases": 1, "size": SMALL, **wrong})
    assert not out.exists()


def test_a_stripped_head_holds_the_brain_as_the_whole_one_does_and_nothing_around_it(tmp_path):
    options = {"cases": 1, "size": (40, 48, 20), "lesion": "tumour", "modalities": ["t1", "ct"]}
    for name, stripped in (("whole", False), ("stripped", True)):
        write_cohort(tmp_path / name, stripped=stripped, **options)
    seg = nibabel.load(tmp_path / "whole/phantom_000/seg.nii.gz").get_fdata()
    brain = np.isin(seg, [Label.GREY, Label.WHITE, Label.VENTRICLE, Label.NECROSIS])
    outer = np.isin(seg, [Label.AIR, Label.SKIN, Label.FAT, Label.BONE, Label.DIPLOE, Label.EYE])
    for name, empty in (("t1", 0), ("ct", -1000)):
        whole, left = (
            nibabel.load(tmp_path / f"{one}/phantom_000/{name}.nii.gz").get_fdata()
            for one in ("whole", "stripped")
        )
        assert np.mean(left[brain] == whole[brain]) > 0.999, "all but specks that hang on nothing"
        assert (left[outer] == empty).all()


SPACING_MM = (3.0, 2.0, 2.0)
SCANNED = (50, 60, 24)
PLAIN = Exposure(0.01, 0.0, 0.5)


@pytest.fixture(scope="module")
def filled():
    """A head with a filling among its teeth and a plate on its vertex."""
    plain = make_head(5, 0, SCANNED)
    labels, share = plain.labels.copy(), plain.share.copy()
    labels[4, 44, 20:22] = Label.METAL
    share[4, 44, 20:22] = 1
    return replace(plain, labels=labels, share=share)


def _exposed(clean: np.ndarray, scanner: Exposure) -> np.ndarray:
    rng = np.random.default_rng(0)
    return expose(clean, scanner, "ct", SPACING_MM, rng)


@of_the_phantom
def test_a_scanner_rounds_and_clips_and_its_noise_has_its_standard_deviation_and_its_grains():
    noise_hu = 10.0
    water = np.zeros((8, 64, 64), np.float32)
    levels = water + np.linspace(-2000, 9000, 64, dtype=np.float32)[:, None]
    assert np.array_equal(_exposed(levels, PLAIN), np.rint(levels.clip(-1024, 3071)))
    noise = _exposed(water, replace(PLAIN, noise_hu=noise_hu, grain_mm=2.0))
    assert noise.std() == pytest.approx(noise_hu, rel=0.05)
    neighbours = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    slices = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    assert neighbours > 0.5
    assert abs(slices) < 0.05


@of_the_phantom
def test_metal_shortens_t2star_with_the_fourth_power_of_the_distance(filled):
    rate = metal_rate_per_ms(filled)
    dx = filled.spacing_mm[2]
    one, two = rate[4, 44, 22], rate[4, 44, 26]  # one and five voxels beside the metal
    assert one / two == pytest.approx(((4 + 5 * dx) / (4 + dx)) ** 4, rel=1e-3)
    plain = replace(
        filled,
        labels=np.where(np.isin(filled.labels, METAL), Label.MUSCLE, filled.labels),
    )
    assert not metal_rate_per_ms(plain).any()
    with_metal, without = tissue_map(filled, "t2star_map"), tissue_map(plain, "t2star_map")
    tissue = (without > 0) & (filled.labels == plain.labels)
    expected = without / (1 + rate * without)
    assert with_metal[tissue] == pytest.approx(expected[tissue], rel=2e-3)
    assert (expected[tissue] < 0.5 * without[tissue]).any()


ILL = (46, 56, 34)


@every_row(
    "kind, case, labels",
    [
        ("tumour", 1, (Label.NECROSIS, Label.ENHANCING, Label.OEDEMA)),
        ("tumour", 4, (Label.LOW_GRADE,)),
        ("none", 8, (Label.RESECTION, Label.GLIOSIS)),
        ("none", 6, (Label.OLD_CAVITY, Label.GLIOSIS)),
        ("none", 17, (Label.HAEMORRHAGE_ACUTE, Label.OEDEMA)),
        ("none", 35, (Label.HAEMORRHAGE_SUBACUTE, Label.HAEMOSIDERIN)),
        ("none", 37, (Label.HAEMOSIDERIN, Label.OLD_CAVITY)),
        ("none", 2, (Label.SHUNT,)),
    ],
)
@of_the_phantom
def test_a_disease_paints_its_tissues_and_the_map_of_a_tumour_marks_those_of_the_brain(
    kind, case, labels
):
    made = make_head(7, case, ILL, kind)
    assert {*labels} <= {*made.labels.flat}
    solid = (*BRAIN, *OTHER_BRAIN, *TUMOUR, *VESSEL)  # a tumour of low grade holds vessels
    if kind == "tumour":
        assert made.lesion_map.max() >= 2
        assert np.isin(made.labels, solid)[made.lesion_map > 0].all()
