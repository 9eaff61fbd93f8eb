"""The command `export --for`: what it writes for each user, and what it refuses."""

import json

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from dciodvfy import TOOL, errors_in
from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.clinic.consumers.planning import transverse
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import Volume, canonical, same_grid
from voxlate.synthesis.result import Synthesised


def save(path, hu, affine=None):
    """A NIfTI file of voxels [x, y, z]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(
            np.asarray(hu, np.float32), np.diag([2.0, 2, 2, 1]) if affine is None else affine
        ),
        path,
    )
    return path


def voxels(path):
    """The voxels of a NIfTI file."""
    return np.asarray(nib.load(path).dataobj)


def head():
    """Voxels [x, y, z] of a ball of brain in a skull of 8 mm, and skin; 2 mm."""
    axis = (np.arange(64) - 31.5) * 2.0
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    return np.select([radius < 40, radius < 48, radius < 54], [35, 1100, 30], -1000)


@pytest.fixture
def out(tmp_path):
    """A folder such as synth writes, with a CT and its interval."""
    folder = tmp_path / "OUT" / "ann"
    hu = head()
    for name, shift in (("ct", 0), ("ct_low", -40), ("ct_high", 40)):
        save(folder / f"{name}.nii.gz", np.where(hu > -900, hu + shift, hu))
    return folder.parent


def test_protons_get_stopping_power_path_length_rays_and_the_table(out, tmp_path):
    done = package.export_for(out, tmp_path / "TO", consumer="proton", beam="90", progress=False)
    folder = tmp_path / "TO" / "ann"
    assert {path.name for path in folder.iterdir()} == {
        "rsp.nii.gz", "rsp_low.nii.gz", "rsp_high.nii.gz", "wepl.nii.gz", "wepl_low.nii.gz", "wepl_high.nii.gz",
        "rays.csv", "table.csv", "facts.json",
    }  # fmt: skip
    low, middle, high = (
        voxels(folder / f"wepl{end}.nii.gz").max() for end in ("_low", "", "_high")
    )
    assert low < middle < high
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["beam_ras"] == pytest.approx([1, 0, 0], abs=1e-9)
    rsp = voxels(folder / "rsp.nii.gz")
    assert rsp[32, 32, 32] == pytest.approx(1.035, abs=0.005)
    # through the centre: 80 mm of brain, two walls of 8 mm, twice 6 mm of skin
    wall = rsp[32, 32, 32 + 22]
    assert middle == pytest.approx(80 * rsp[32, 32, 32] + 16 * wall + 12 * 1.031, abs=3)
    again = package.export_for(
        out,
        tmp_path / "AGAIN",
        consumer="proton",
        beam="90",
        table=folder / "table.csv",
        progress=False,
    )
    assert again.facts["ann"]["wepl_mm"]["ct"] == pytest.approx(
        done.facts["ann"]["wepl_mm"]["ct"], rel=1e-4
    )


def test_ultrasound_gets_the_maps_of_k_wave_the_skull_and_its_rays(out, tmp_path):
    done = package.export_for(
        out, tmp_path / "TO", consumer="ultrasound", aperture=20, progress=False
    )
    folder = tmp_path / "TO" / "ann"
    for name in (
        "ct",
        "skull",
        "density",
        "sound_speed",
        "alpha_coeff",
        "density_low",
        "density_high",
    ):
        assert (folder / f"{name}.nii.gz").is_file(), name
    assert done.facts["ann"]["skull"]["ct"]["thickness_mm"] == pytest.approx(8, abs=0.6)
    assert done.facts["ann"]["alpha_power"] == 1
    assert voxels(folder / "density.nii.gz")[32, 32, 32] == 1000


def test_pet_gets_attenuation_on_its_own_grid_with_the_couch(out, tmp_path):
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = 1
    pet = save(tmp_path / "pet.nii.gz", np.zeros((32, 32, 40)), affine)
    couch = save(tmp_path / "couch.nii.gz", np.full((32, 32, 40), 0.01), affine)
    done = package.export_for(
        out, tmp_path / "TO", consumer="pet", like=pet, couch=couch, kvp=100, progress=False
    )
    mu = voxels(tmp_path / "TO" / "ann" / "mu.nii.gz")
    assert mu.shape == (32, 32, 40)
    assert mu[16, 16, 16] == pytest.approx(9.6e-5 * 1035 + 0.01, rel=1e-3)
    assert done.facts["ann"]["share_of_pet_in_ct"] < 1
    assert any("lie within the CT" in told.text for told in done.messages)


def test_planning_gets_transverse_slices_of_a_sagittal_ct_and_air_around_the_body(tmp_path):
    hu = head()
    hu[2:4] = 200  # a board beside the head
    sagittal = np.array([[0, 0, 2.0, 0], [2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "case.nii.gz", hu.transpose(1, 2, 0), sagittal)
    done = package.export_for(
        path, tmp_path / "TO", consumer="planning", clear_outside=True, progress=False
    )
    folder = tmp_path / "TO" / "case"
    image = nib.load(folder / "ct.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert not done.facts["case"]["resampled"]
    found = np.asarray(nib.as_closest_canonical(image).dataobj)
    body = np.asarray(nib.as_closest_canonical(nib.load(folder / "body.nii.gz")).dataobj) > 0
    np.testing.assert_array_equal(found[body], hu[body])
    assert (found[~body] == -1000).all()
    assert voxels(folder / "electron_density.nii.gz").max() == pytest.approx(1.55, abs=0.15)
    assert any("no DICOM: it states which series" in told.text for told in done.messages)
    kept = package.export_for(
        path, tmp_path / "KEPT", consumer="planning", plane="source", progress=False
    )
    assert kept.facts["case"]["plane"] == "sagittal"


def test_slices_are_square_and_those_where_the_scan_cuts_the_body_off_are_counted(tmp_path):
    path = save(tmp_path / "case.nii.gz", head()[20:])  # of a ball from voxel 5 to 58
    done = package.export_for(path, tmp_path / "TO", consumer="planning", progress=False)
    folder = tmp_path / "TO" / "case"
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["grid"].startswith("64×64×64")
    # slices whose circle reaches the cut, over 20 mm or more: half chords of 10 mm at 23 mm from the centre
    assert facts["cut_slices"] == pytest.approx(2 * np.sqrt(54**2 - 23**2 - 10**2) / 2, abs=2)
    assert not facts["resampled"]
    assert any("the scan cuts the body off in" in told.text for told in done.messages)
    back = canonical(read_volume(folder / "ct.nii.gz", "ct")).data[0]
    np.testing.assert_array_equal(back[..., 20:], head()[20:].transpose(2, 1, 0))
    assert (back[..., :20] == -1000).all()


def test_an_oblique_ct_of_thick_slices_gets_square_pixels_along_the_patient():
    angle = np.radians(20)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 2.0, 3.0])
    data = np.full((1, 20, 30, 60), 40, np.float32)
    found = transverse(Volume(data, affine, "HU", "ct"))
    assert found.grid.spacing_mm == pytest.approx((3, 1, 1))
    assert (found.data > -500).sum() * 3 == pytest.approx(data.size * 6, rel=0.05)


@every_row(
    ("change", "sentence"),
    [
        ({}, "--for: expected planning, proton, ultrasound or pet, found none"),
        ({"consumer": "pet", "kvp": 90}, "--kvp: expected a tube voltage"),
        ({"consumer": "proton", "beam": "left"}, "--beam: expected a gantry angle"),
        ({"consumer": "proton", "kvp": 100}, "--kvp: expected it with --for pet, found --for proton"),
        ({"consumer": "proton", "table": "none.csv"}, "--table none.csv: expected a file, found none"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(change, sentence, out, tmp_path):
    with pytest.raises(BadInput) as refused:
        package.export_for(out, tmp_path / "TO", progress=False, **change)
    assert sentence in str(refused.value)


@every_row("values", [(0, 1), (0, 4095), (-1000, -900)])
def test_values_that_are_no_hu_are_refused(values, tmp_path):
    path = save(tmp_path / "mr.nii.gz", np.linspace(*values, 4096).reshape(16, 16, 16))
    with pytest.raises(BadInput, match="expected a CT in HU, with air below -500"):
        package.export_for(path, tmp_path / "TO", consumer="proton", progress=False)


@pytest.fixture
def sagittal(tmp_path):
    """OUT of a sagittal DICOM series, tmp_path/series; its CT is the series itself."""
    pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from dicom_slices import write_series

    # slices to the left, rows downwards, columns to the back
    affine = np.array([[-2.0, 0, 0, 0], [0, -2.0, 0, 0], [0, 0, -2.0, 126], [0, 0, 0, 1]])[
        :, [1, 2, 0, 3]
    ]
    hu = np.ascontiguousarray(head()[::-1, ::-1, ::-1].transpose(0, 2, 1))
    source = Volume(hu[None].astype(np.float32), affine, "HU", "ct")
    series = write_series(source, tmp_path / "series", Modality="MR", BodyPartExamined="HEAD")
    inputs = {"mr": {"path": "../../series", "sha256": content_hash(series)}}
    Synthesised({"ct": source}, {}, {"model": {"title": "any"}, "inputs": inputs}).write(
        tmp_path / "OUT" / "ann"
    )
    return tmp_path / "OUT"


def test_a_sagittal_series_gives_a_transverse_ct_series_with_the_body_as_contours_and_voxels(
    sagittal, tmp_path
):
    import pydicom

    source = pydicom.dcmread(tmp_path / "series" / "0000.dcm")
    done = package.export_for(sagittal, tmp_path / "TO", consumer="planning", progress=False)
    said = " ".join(one.text for one in done.messages)
    assert "states no patient position" in said
    folder = tmp_path / "TO" / "ann" / "dicom"
    files = sorted((folder / "ct").glob("*.dcm"))
    slices = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, files)}
    first = next(iter(slices.values()))
    assert len(files) == 64
    assert first.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.StudyInstanceUID == source.StudyInstanceUID
    back = canonical(read_volume(folder / "ct"))
    np.testing.assert_array_equal(back.data, canonical(read_volume(tmp_path / "series")).data)
    (body,) = map(pydicom.dcmread, (folder / "body").iterdir())
    assert (body.Modality, body.SegmentSequence[0].SegmentAlgorithmType) == ("SEG", "AUTOMATIC")
    (structure,) = map(pydicom.dcmread, (folder / "rtstruct").iterdir())
    # by shoelaces, which a mask's area is not
    cubic_mm = 0.0
    for contour in structure.ROIContourSequence[0].ContourSequence:
        assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID in slices
        x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
        cubic_mm += abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 * 2.0
    assert cubic_mm == pytest.approx(4 / 3 * np.pi * 54**3, rel=0.01)
    for file in (files[0], *(folder / "body").iterdir(), *(folder / "rtstruct").iterdir()):
        assert TOOL is None or errors_in(file) == []
    package.export_for(
        sagittal, tmp_path / "KEPT", consumer="planning", plane="source", progress=False
    )
    kept = pydicom.dcmread(tmp_path / "KEPT" / "ann" / "dicom" / "ct" / "0001.dcm")
    assert list(kept.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "SAGITTAL"]


PET = np.array([[-4.0, 0, 0, -1], [0, -4.0, 0, -1], [0, 0, 4.0, 1], [0, 0, 0, 1]])


def pet_series(folder, **tags):
    """A PET of slices of 4 mm that covers the head, as DICOM."""
    from dicom_slices import write_series

    return write_series(
        Volume(np.ones((1, 32, 32, 32), np.float32), PET, "", "pet"),
        folder,
        Modality="PT",
        **tags,
    )


def test_a_position_that_the_source_states_is_not_said_to_be_absent(sagittal, tmp_path):
    import pydicom

    like = tmp_path / "series"
    for path in like.iterdir():
        header = pydicom.dcmread(path)
        header.PatientPosition = "HFS"
        header.save_as(path)
    done = package.export_for(
        sagittal, tmp_path / "TO", consumer="planning", like=like, progress=False
    )
    assert not any("patient position" in one.text for one in done.messages)


def test_pet_gets_attenuation_as_a_parametric_map_in_the_study_of_the_pet(sagittal, tmp_path):
    import pydicom

    pet = pet_series(tmp_path / "pet")
    couch = tmp_path / "couch.nii.gz"
    save(couch, np.full((32, 32, 32), 0.01), PET)
    done = package.export_for(
        sagittal, tmp_path / "TO", consumer="pet", like=pet, couch=couch, progress=False
    )
    folder = tmp_path / "TO" / "ann"
    found = read_volume(folder / "dicom" / "mu", "mu_511kev")
    wanted = read_volume(folder / "mu.nii.gz", "mu")
    np.testing.assert_array_equal(canonical(found).data, canonical(wanted).data)
    assert same_grid(found.grid, read_volume(pet).grid)
    assert found.data[0, 16, 16, 16] == pytest.approx(9.6e-5 * 1035 + 0.01, rel=1e-3)
    (file,) = (folder / "dicom" / "mu").iterdir()
    one = pydicom.dcmread(file)
    assert one.StudyInstanceUID == pydicom.dcmread(pet / "0000.dcm").StudyInstanceUID
    mapping = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "/cm"
    # of the PET's slices, only the place was taken
    frame = one.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    purpose = frame.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0]
    assert purpose.CodeValue == "GRID"
    assert (
        "Carney et al. 2006, 120 kVp, couch added"
        in one.private_block(0x0091, "VOXLATE")[0x03].value
    )
    assert TOOL is None or errors_in(file) == []
    assert any("in another frame of reference" in told.text for told in done.messages)


def test_attenuation_without_a_pet_is_in_the_study_of_the_source(sagittal, tmp_path):
    import pydicom

    package.export_for(sagittal, tmp_path / "TO", consumer="pet", progress=False)
    one = pydicom.dcmread(tmp_path / "TO" / "ann" / "dicom" / "mu" / "0001.dcm")
    source = pydicom.dcmread(tmp_path / "series" / "0000.dcm")
    assert one.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert one.NumberOfFrames == 64


def test_a_pet_of_another_patient_is_refused(sagittal, tmp_path):
    pet = pet_series(tmp_path / "pet", PatientID="P2")
    with pytest.raises(BadInput, match="--like: expected a series of the patient"):
        package.export_for(sagittal, tmp_path / "TO", consumer="pet", like=pet, progress=False)
    assert not (tmp_path / "TO" / "ann").exists()


def test_what_no_table_was_made_for_is_said(tmp_path):
    metal = head()
    metal[20:22, 20:22, 20:22] = 9000
    metal[30:32, 30:32, 30] = -3000
    metal[:, 4:12, :] = np.where(
        metal[:, 4:12, :] > -900, metal[:, 4:12, :], 0
    )  # a couch that the head touches
    ct = save(tmp_path / "ct.nii.gz", metal)
    short = tmp_path / "short.csv"
    short.write_text("hu,rsp\n-1000,0\n100,1.1\n")
    done = package.export_for(ct, tmp_path / "TO", consumer="proton", table=short, progress=False)
    said = " ".join(one.text for one in done.messages)
    assert "4 voxels in the body are below air, down to -3000 HU" in said
    assert "the same outline in all slices over 128 mm, as a couch" in said
    assert "8 voxels are above 3071 HU, as metal is, up to 9000" in said
    assert "beyond the rows of the table (-1000 to 100 HU) and get its last value" in said


def test_a_phantom_whose_skull_is_of_teflon_is_no_ct_with_an_offset(tmp_path):
    hu = np.where(head() == 1100, 1000, head()) + np.random.default_rng(0).normal(
        0, 20, head().shape
    )
    done = package.export_for(
        save(tmp_path / "ct.nii.gz", hu), tmp_path / "TO", consumer="pet", progress=False
    )
    assert len(done.folders) == 1


def test_a_second_body_and_a_spacing_in_centimetres_are_said(tmp_path):
    two = save(tmp_path / "two.nii.gz", np.concatenate([head(), head()]))
    small = save(tmp_path / "small.nii.gz", head(), np.diag([0.25, 0.25, 0.25, 1]))
    for ct, text in ((two, "lie beside the body of 662 ml"), (small, "at most 14 mm long")):
        done = package.export_for(ct, tmp_path / "TO", consumer="pet", progress=False)
        assert any(text in one.text for one in done.messages), [one.text for one in done.messages]


def test_padding_of_0_hu_a_patient_in_the_couch_and_a_lost_orientation_are_said(tmp_path):
    padded = head()
    padded[:, :, :8] = 0  # slices that were not scanned
    image = nib.Nifti1Image(padded.astype(np.float32), np.diag([2.0, 2, 2, 1]))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    (tmp_path / "IN").mkdir()
    nib.save(image, tmp_path / "IN" / "ct.nii.gz")
    save(tmp_path / "IN" / "ncct.nii.gz", head())
    couch = save(tmp_path / "couch.nii.gz", np.full(head().shape, 0.09))
    options = {"consumer": "pet", "couch": couch, "progress": False}
    done = package.export_for(tmp_path / "IN", tmp_path / "TO", **options)
    said = " ".join(one.text for one in done.messages)
    assert "of the body are exactly 0 HU, as padding is" in said
    assert "of the body are in attenuating voxels of the couch" in said
    assert "orientation" in said
    assert "ncct of the same folder is not read" in said


def test_a_ray_that_runs_along_bone_at_an_end_has_no_number_there_and_none_is_out_of_order(
    tmp_path,
):
    folder = tmp_path / "OUT" / "ann"
    hu = head()
    for name, shift in (("ct", 0), ("ct_low", -900), ("ct_high", 300)):  # all is bone at one end
        save(folder / f"{name}.nii.gz", np.where(hu > -900, hu + shift, hu))
    done = package.export_for(folder.parent, tmp_path / "TO", consumer="ultrasound", progress=False)
    assert any("rays run along bone at the high end" in one.text for one in done.messages)
    rows = np.genfromtxt(tmp_path / "TO" / "ann" / "rays.csv", delimiter=",", names=True)
    assert np.isnan(rows["thickness_high_mm"]).any()
    assert (rows["thickness_low_mm"] == 0).all()
    known = np.isfinite(rows["thickness_high_mm"])
    assert (rows["thickness_mm"] <= rows["thickness_high_mm"])[known].all()
    facts = json.loads((tmp_path / "TO" / "ann" / "facts.json").read_text())
    assert facts["skull"]["low"]["thickness_mm"] == 0


def test_a_couch_of_less_than_a_third_of_water_is_asked_about(out, tmp_path):
    couch = save(tmp_path / "couch.nii.gz", np.full((8, 8, 8), 0.01), np.diag([16.0, 16, 16, 1]))
    done = package.export_for(out, tmp_path / "TO", consumer="pet", couch=couch, progress=False)
    assert "attenuates at most 0.01/cm" in " ".join(one.text for one in done.messages)


def test_a_caution_of_the_synthesis_and_its_starter_are_repeated(tmp_path):
    stated = [
        {"code": "crown-missing", "grade": "caution", "text": "mr: the upper part is missing."},
        {"code": "starter", "grade": "note", "text": "Synthesised by starter:x."},
        {"code": "image-copies", "grade": "note", "text": "Nothing of interest."},
    ]
    ct = Volume(head()[None].astype(np.float32), np.diag([2.0, 2, 2, 1]), "HU", "ct")
    provenance = {"model": {"title": "any"}, "inputs": {}, "warnings": stated}
    Synthesised({"ct": ct}, {}, provenance).write(tmp_path / "OUT" / "ann")
    done = package.export_for(tmp_path / "OUT", tmp_path / "TO", consumer="pet", progress=False)
    said = [one.text for one in done.messages]
    assert [text in said for text in (one["text"] for one in stated)] == [True, True, False]


@every_row("conversion", ["aubry2003", "mcdannold2020", "kplan"])
def test_the_ends_of_an_acoustic_map_are_below_and_above_it(conversion, out, tmp_path):
    package.export_for(
        out, tmp_path / "TO", consumer="ultrasound", conversion=conversion, progress=False
    )
    for name in ("density", "sound_speed", "alpha_coeff"):
        low, middle, high = (
            voxels(tmp_path / "TO" / "ann" / f"{name}{end}.nii.gz") for end in ("_low", "", "_high")
        )
        assert (low <= middle).all()
        assert (middle <= high).all()


def test_ends_of_an_interval_on_the_wrong_side_are_refused(out, tmp_path):
    low, high = (out / "ann" / f"ct_{end}.nii.gz" for end in ("low", "high"))
    swapped = high.read_bytes(), low.read_bytes()
    low.write_bytes(swapped[0])
    high.write_bytes(swapped[1])
    with pytest.raises(
        BadInput, match="expected the low end of the interval on its side of the CT"
    ):
        package.export_for(out, tmp_path / "TO", consumer="pet", progress=False)
