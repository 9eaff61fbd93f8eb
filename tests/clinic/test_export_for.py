"""The command `export --for`: what it writes for each user, and what it refuses."""

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from made_volumes import made_volume
from refusals import refuses
from rows import every_row, slow
from scans import turn_about_z
from voxlate.base.files import read_json
from voxlate.clinic.consumers.planning import transverse
from voxlate.scans.formats.io import content_hash, read_volume
from voxlate.scans.images.grid import Volume, canonical, same_grid
from voxlate.synthesis.result import Synthesised

GRID = np.diag([2.0, 2, 2, 1])


def save(path, hu, affine=GRID):
    """A NIfTI file of voxels [x, y, z]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(hu, np.float32), affine), path)
    return path


def save_ends(folder, low, high):
    """A CT and the ends of its interval, which are so many HU away where the head is."""
    hu = head()
    for name, shift in (("ct", 0), ("ct_low", low), ("ct_high", high)):
        save(folder / f"{name}.nii.gz", np.where(hu > -900, hu + shift, hu))
    return folder.parent


def voxels(path):
    """The voxels of a NIfTI file."""
    return np.asarray(nib.load(path).dataobj)


def head():
    """Voxels [x, y, z] of a ball of brain in a skull of 8 mm, and skin; 2 mm."""
    axis = (np.arange(64) - 31.5) * 2.0
    radius = np.linalg.norm(np.meshgrid(axis, axis, axis), axis=0)
    return np.select([radius < 40, radius < 48, radius < 54], [35, 1100, 30], -1000)


@pytest.fixture
def out(tmp_path):
    """A folder such as synth writes, with a CT and its interval."""
    return save_ends(tmp_path / "OUT/ann", -40, 40)


@pytest.fixture
def export(tmp_path):
    """export(out, consumer, **options): the export of a CT into tmp_path/TO, or the folder `to`."""

    def run(out, consumer, to="TO", **options):
        return package.export_for(out, tmp_path / to, consumer=consumer, progress=False, **options)

    return run


def texts(done):
    """The messages of an export."""
    return " ".join(message.text for message in done.messages)


def test_protons_get_stopping_power_path_length_rays_and_the_table(out, export, tmp_path):
    done = export(out, "proton", beam="90")
    folder = tmp_path / "TO/ann"
    maps = {f"{name}{end}.nii.gz" for name in ("rsp", "wepl") for end in ("_low", "", "_high")}
    assert {path.name for path in folder.iterdir()} == maps | {
        "rays.csv",
        "table.csv",
        "facts.json",
    }
    low, middle, high = (
        voxels(folder / f"wepl{end}.nii.gz").max() for end in ("_low", "", "_high")
    )
    assert low < middle < high
    facts = read_json(folder / "facts.json")
    assert facts["beam_ras"] == pytest.approx([1, 0, 0], abs=1e-9)
    rsp = voxels(folder / "rsp.nii.gz")
    assert rsp[32, 32, 32] == pytest.approx(1.035, abs=0.005)
    # through the centre: 80 mm of brain, two walls of 8 mm, twice 6 mm of skin
    wall = rsp[32, 32, 32 + 22]
    assert middle == pytest.approx(80 * rsp[32, 32, 32] + 16 * wall + 12 * 1.031, abs=3)
    again = export(out, "proton", "AGAIN", beam="90", table=folder / "table.csv")
    first, second = (one.facts["ann"]["wepl_mm"]["ct"] for one in (done, again))
    assert second == pytest.approx(first, rel=1e-4)


def test_ultrasound_gets_the_maps_of_k_wave_the_skull_and_its_rays(out, export, tmp_path):
    done = export(out, "ultrasound", aperture=20)
    folder = tmp_path / "TO/ann"
    assert {"ct.nii.gz", "skull.nii.gz"} <= {path.name for path in folder.iterdir()}
    for name in ("density", "sound_speed", "alpha_coeff"):
        low, middle, high = (
            voxels(folder / f"{name}{end}.nii.gz") for end in ("_low", "", "_high")
        )
        assert (low <= middle).all()
        assert (middle <= high).all()
    assert done.facts["ann"]["skull"]["ct"]["thickness_mm"] == pytest.approx(8, abs=0.6)
    assert done.facts["ann"]["alpha_power"] == 1
    assert voxels(folder / "density.nii.gz")[32, 32, 32] == 1000


def test_pet_gets_attenuation_on_its_own_grid_with_the_couch(out, export, tmp_path):
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = 1
    pet = save(tmp_path / "pet.nii.gz", np.zeros((32, 32, 40)), affine)
    couch = save(tmp_path / "couch.nii.gz", np.full((32, 32, 40), 0.01), affine)
    done = export(out, "pet", like=pet, couch=couch, kvp=100)
    mu = voxels(tmp_path / "TO/ann/mu.nii.gz")
    assert mu.shape == (32, 32, 40)
    assert mu[16, 16, 16] == pytest.approx(9.6e-5 * 1035 + 0.01, rel=1e-3)
    assert done.facts["ann"]["share_of_pet_in_ct"] < 1
    # of less than a third of water, as in 1/mm
    assert "0.01/cm" in texts(done)


def test_planning_gets_transverse_slices_of_a_sagittal_ct_and_air_around_the_body(export, tmp_path):
    hu = head()
    hu[2:4] = 200  # a board beside the head
    sagittal = np.array([[0, 0, 2.0, 0], [2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]])
    path = save(tmp_path / "case.nii.gz", hu.transpose(1, 2, 0), sagittal)
    done = export(path, "planning", clear_outside=True)
    folder = tmp_path / "TO/case"
    assert nib.aff2axcodes(nib.load(folder / "ct.nii.gz").affine) == ("L", "P", "S")
    assert not done.facts["case"]["resampled"]
    found, body = (
        nib.as_closest_canonical(nib.load(folder / f"{name}.nii.gz")).get_fdata()
        for name in ("ct", "body")
    )
    np.testing.assert_array_equal(found, np.where(body > 0, hu, -1000))
    assert voxels(folder / "electron_density.nii.gz").max() == pytest.approx(1.55, abs=0.15)
    assert not done.facts["case"]["dicom"]
    kept = export(path, "planning", "KEPT", plane="source")
    assert kept.facts["case"]["plane"] == "sagittal"


def test_slices_are_square_and_those_where_the_scan_cuts_the_body_off_are_counted(export, tmp_path):
    path = save(tmp_path / "case.nii.gz", head()[20:])  # of a ball from voxel 5 to 58
    done = export(path, "planning")
    facts, folder = done.facts["case"], tmp_path / "TO/case"
    assert facts["grid"].startswith("64×64×64")
    (caution,) = (said for said in done.messages if said.code == "cut-outline")
    assert caution.grade == "caution"
    assert caution.text in facts["cautions"]
    # slices whose circle reaches the cut, over 20 mm or more: half chords of 10 mm at 23 mm from the centre
    assert facts["cut_slices"] == pytest.approx(2 * np.sqrt(54**2 - 23**2 - 10**2) / 2, abs=2)
    assert not facts["resampled"]
    back = canonical(read_volume(folder / "ct.nii.gz", "ct")).data[0]
    np.testing.assert_array_equal(back[..., 20:], head()[20:].transpose(2, 1, 0))
    assert (back[..., :20] == -1000).all()


def test_an_oblique_ct_of_thick_slices_gets_square_pixels_along_the_patient():
    affine = np.eye(4)
    affine[:3, :3] = turn_about_z(20) @ np.diag([1.0, 2.0, 3.0])
    data = np.full((1, 20, 30, 60), 40, np.float32)
    found = transverse(Volume(data, affine, "HU", "ct"))
    assert found.grid.spacing_mm == pytest.approx((3, 1, 1))
    assert (found.data > -500).sum() * 3 == pytest.approx(data.size * 6, rel=0.05)


@pytest.fixture
def sagittal(tmp_path):
    """OUT of a sagittal DICOM series, tmp_path/series; its CT is the series itself."""
    pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    from dicom_slices import write_series

    # slices to the left, rows downwards, columns to the back
    affine = np.array([[0, 0, -2.0, 0], [-2.0, 0, 0, 0], [0, -2.0, 0, 126], [0, 0, 0, 1]])
    source = made_volume(head()[::-1, ::-1, ::-1].transpose(0, 2, 1), affine=affine)
    series = write_series(source, tmp_path / "series", Modality="MR", BodyPartExamined="HEAD")
    inputs = {"mr": {"path": "../../series", "sha256": content_hash(series)}}
    Synthesised({"ct": source}, {}, {"model": {"title": "any"}, "inputs": inputs}).write(
        tmp_path / "OUT/ann"
    )
    return tmp_path / "OUT"


@slow
def test_a_sagittal_series_gives_a_transverse_ct_series_with_the_body_as_contours_and_voxels(
    sagittal, export, tmp_path
):
    import pydicom

    from dicom_slices import change

    source = pydicom.dcmread(tmp_path / "series/0000.dcm")
    assert "patient position" in texts(export(sagittal, "planning"))
    folder = tmp_path / "TO/ann/dicom"
    slices = [pydicom.dcmread(file) for file in (folder / "ct").iterdir()]
    first = slices[0]
    assert len(slices) == 64
    assert first.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.StudyInstanceUID == source.StudyInstanceUID
    back = canonical(read_volume(folder / "ct"))
    np.testing.assert_array_equal(back.data, canonical(read_volume(tmp_path / "series")).data)
    (body,) = map(pydicom.dcmread, (folder / "body").iterdir())
    assert (body.Modality, body.SegmentSequence[0].SegmentAlgorithmType) == ("SEG", "AUTOMATIC")
    (structure,) = map(pydicom.dcmread, (folder / "rtstruct").iterdir())
    contours = structure.ROIContourSequence[0].ContourSequence
    named = {one.ContourImageSequence[0].ReferencedSOPInstanceUID for one in contours}
    assert named < {one.SOPInstanceUID for one in slices}
    assert len(named) == pytest.approx(54, abs=1)  # slices of 2 mm through a ball of 108 mm
    change(tmp_path / "series", PatientPosition="HFS")
    kept = export(sagittal, "planning", "KEPT", plane="source", like=tmp_path / "series")
    assert "patient position" not in texts(kept)
    kept = pydicom.dcmread(tmp_path / "KEPT/ann/dicom/ct/0001.dcm")
    assert list(kept.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "SAGITTAL"]


PET = np.array([[-4.0, 0, 0, -1], [0, -4.0, 0, -1], [0, 0, 4.0, 1], [0, 0, 0, 1]])


@slow
def test_pet_gets_attenuation_as_a_parametric_map_in_the_study_of_the_pet_or_without_one_of_the_source(
    sagittal, export, tmp_path
):
    import pydicom

    from dicom_slices import write_series

    # slices of 4 mm that cover the head
    scan = made_volume(np.ones((32, 32, 32)), "pet", "", PET)
    other = write_series(scan, tmp_path / "other", Modality="PT", PatientID="P2")
    with refuses("PatientID"):
        export(sagittal, "pet", like=other)
    assert not (tmp_path / "TO/ann").exists()
    pet = write_series(scan, tmp_path / "pet", Modality="PT")
    couch = save(tmp_path / "couch.nii.gz", np.full((32, 32, 32), 0.01), PET)
    done = export(sagittal, "pet", like=pet, couch=couch)
    folder = tmp_path / "TO/ann"
    found = read_volume(folder / "dicom/mu", "mu_511kev")
    wanted = read_volume(folder / "mu.nii.gz", "mu")
    np.testing.assert_array_equal(canonical(found).data, canonical(wanted).data)
    assert same_grid(found.grid, read_volume(pet).grid)
    assert found.data[0, 16, 16, 16] == pytest.approx(9.6e-5 * 1035 + 0.01, rel=1e-3)
    (file,) = (folder / "dicom/mu").iterdir()
    one = pydicom.dcmread(file)
    assert one.StudyInstanceUID == pydicom.dcmread(pet / "0000.dcm").StudyInstanceUID
    mapping = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "/cm"
    # of the PET's slices, only the place was taken
    frame = one.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    purpose = frame.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0]
    assert purpose.CodeValue == "GRID"
    assert "120 kVp" in one.private_block(0x0091, "VOXLATE")[0x03].value
    assert "other-source" in {message.code for message in done.messages}
    export(sagittal, "pet", "ALONE")
    one = pydicom.dcmread(tmp_path / "ALONE/ann/dicom/mu/0001.dcm")
    source = pydicom.dcmread(tmp_path / "series/0000.dcm")
    assert one.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert one.NumberOfFrames == 64


def test_what_no_table_was_made_for_is_said(export, tmp_path):
    metal = head()
    metal[20:22, 20:22, 20:22] = 9000
    metal[30:32, 30:32, 30] = -3000
    couch = metal[:, 4:12]  # which the head touches
    couch[couch < -900] = 0
    ct = save(tmp_path / "ct.nii.gz", metal)
    short = tmp_path / "short.csv"
    short.write_text("hu,rsp\n-1000,0\n100,1.1\n")
    said = texts(export(ct, "proton", table=short))
    numbers = ("4 voxels", "-3000 HU", "128 mm", "8 voxels", "3071 HU", "9000", "-1000 to 100 HU")
    assert all(number in said for number in numbers)


def test_a_phantom_whose_skull_is_of_teflon_is_no_ct_with_an_offset(export, tmp_path):
    noise = np.random.default_rng(0).normal(0, 20, head().shape)
    hu = np.where(head() == 1100, 1000, head()) + noise
    assert len(export(save(tmp_path / "ct.nii.gz", hu), "pet").folders) == 1


def test_a_second_body_and_a_spacing_in_centimetres_are_said(export, tmp_path):
    two = save(tmp_path / "two.nii.gz", np.concatenate([head(), head()]))
    small = save(tmp_path / "small.nii.gz", head(), np.diag([0.25, 0.25, 0.25, 1]))
    assert "662 ml" in texts(export(two, "pet"))
    assert "14 mm" in texts(export(small, "pet"))


def test_padding_of_0_hu_a_patient_in_the_couch_and_a_lost_orientation_are_said(export, tmp_path):
    padded = head()
    padded[:, :, :8] = 0  # slices that were not scanned
    ncct = save(tmp_path / "IN/ncct.nii.gz", head())
    image = nib.Nifti1Image(padded.astype(np.float32), GRID)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, ncct.with_name("ct.nii.gz"))
    couch = save(tmp_path / "couch.nii.gz", np.full(head().shape, 0.09))
    said = texts(export(tmp_path / "IN", "pet", couch=couch))
    assert all(part in said for part in ("exactly 0 HU", "couch", "orientation", "ncct"))


def test_a_ray_that_runs_along_bone_at_an_end_has_no_number_there_and_none_is_out_of_order(
    export, tmp_path
):
    out = save_ends(tmp_path / "OUT/ann", -900, 300)  # all is bone at one end
    facts = export(out, "ultrasound").facts["ann"]
    rows = np.genfromtxt(tmp_path / "TO/ann/rays.csv", delimiter=",", names=True)
    assert np.isnan(rows["thickness_high_mm"]).any()
    assert (rows["thickness_low_mm"] == 0).all()
    known = np.isfinite(rows["thickness_high_mm"])
    assert (rows["thickness_mm"] <= rows["thickness_high_mm"])[known].all()
    assert facts["skull"]["low"]["thickness_mm"] == 0


def test_a_caution_of_the_synthesis_and_its_starter_are_repeated(export, tmp_path):
    stated = [
        {"code": "crown-missing", "grade": "caution", "text": "mr: the upper part is missing."},
        {"code": "starter", "grade": "note", "text": "Synthesised by starter:x."},
        {"code": "image-copies", "grade": "note", "text": "Nothing of interest."},
    ]
    ct = made_volume(head(), affine=GRID)
    provenance = {"model": {"title": "any"}, "inputs": {}, "warnings": stated}
    Synthesised({"ct": ct}, {}, provenance).write(tmp_path / "OUT/ann")
    codes = {message.code for message in export(tmp_path / "OUT", "pet").messages}
    assert [one["code"] in codes for one in stated] == [True, True, False]


@every_row(
    "shift, most, code",
    [
        (75, 3e3, "tissue-hu"),
        (-400, 3e3, "tissue-hu"),
        (-120, 3e3, "tissue-hu"),
        (0, 240, "cut-window"),
        (0, 1000, "cut-window"),
    ],
)
def test_a_ct_with_an_offset_of_tissue_or_a_window_is_written_with_a_caution(
    export, tmp_path, shift, most, code
):
    bone = np.random.default_rng(0).uniform(300, 1500, (64, 64, 64))
    drawn = np.where(head() == 1100, bone, head())
    hu = np.where(drawn > -500, drawn + shift, drawn).clip(None, most)
    said = export(save(tmp_path / f"ct{shift}{most}.nii.gz", hu), "proton").messages
    assert {one.code for one in said} == {code, "consumer"}


def test_ends_of_an_interval_on_the_wrong_side_are_refused(out, export):
    save_ends(out / "ann", 40, -40)
    with refuses("low end"):
        export(out, "pet")
