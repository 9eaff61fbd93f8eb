"""The command `export --for`: what it writes for each user, and what it refuses."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

import voxlate as package
from dicom_slices import image
from dicom_slices import save as save_slice
from rows import every_row
from voxlate.consumers.planning import transverse
from voxlate.formats.io import content_hash, read_volume
from voxlate.images.grid import Volume, canonical
from voxlate.synthesis.result import Synthesised
from voxlate.system.errors import BadInput


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
    assert any("no DICOM series" in told.text for told in done.messages)
    kept = package.export_for(
        path, tmp_path / "KEPT", consumer="planning", plane="source", progress=False
    )
    assert kept.facts["case"]["plane"] == "sagittal"


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


def test_errors_of_the_command_are_those_against_the_true_ct(out, tmp_path, capsys):
    from voxlate.cli.commands import app

    truth = save(tmp_path / "COHORT" / "ann" / "ct.nii.gz", head())
    app(
        [
            "export",
            str(out),
            "--for",
            "proton",
            "--truth",
            str(truth.parents[1]),
            "--out",
            str(tmp_path / "TO"),
        ],
        standalone_mode=False,
    )
    assert "range error 0.00 mm on average, 95th percentile 0.00 mm" in capsys.readouterr().out
    errors = json.loads((tmp_path / "TO" / "errors.json").read_text())
    assert errors["cases"]["ann"]["coverage"] == 1


@every_row(
    ("change", "sentence"),
    [
        ({}, "--for: expected planning, proton, ultrasound or pet, found none"),
        ({"consumer": "pet", "kvp": 90}, "--kvp: expected a tube voltage"),
        ({"consumer": "proton", "beam": "left"}, "--beam: expected a gantry angle"),
        ({"consumer": "proton", "kvp": 100}, "--kvp: expected it with --for pet, found --for proton"),
        ({"consumer": "planning", "truth": "COHORT"}, "--truth: expected it with --for proton, ultrasound, pet"),
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


def test_a_sagittal_series_gives_a_transverse_ct_series_and_the_body_on_it(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    hu = head()
    for level in range(64):
        # slices to the left, rows downwards, columns to the back
        plane = np.ascontiguousarray(hu[63 - level, ::-1, ::-1].T.astype(np.int16))
        tags = {
            "PatientID": "P1", "PatientName": "Nobody", "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4",
            "FrameOfReferenceUID": "1.2.3.5", "StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1",
            "AccessionNumber": "", "PatientBirthDate": "", "PatientSex": "O", "ReferringPhysicianName": "",
            "SeriesNumber": 1, "InstanceNumber": level + 1, "PixelSpacing": [2, 2], "SliceThickness": 2,
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": [2 * level, 0, 126],
            "RescaleSlope": 1, "RescaleIntercept": 0, "PositionReferenceIndicator": "",
        }  # fmt: skip
        save_slice(image(plane, **tags), tmp_path / "series" / f"{level:03d}.dcm")
    source = read_volume(tmp_path / "series")
    case = tmp_path / "OUT" / "ann"
    inputs = {"mr": {"path": "../../series", "sha256": content_hash(tmp_path / "series")}}
    Synthesised(
        {"ct": replace(source, modality="ct")}, {}, {"model": {"title": "any"}, "inputs": inputs}
    ).write(case)
    package.export_for(case.parent, tmp_path / "TO", consumer="planning", progress=False)
    files = sorted((tmp_path / "TO" / "ann" / "dicom" / "ct").glob("*.dcm"))
    first = pydicom.dcmread(files[0])
    assert len(files) == 64
    assert first.ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.StudyInstanceUID == "1.2.3"
    back = canonical(read_volume(files[0].parent))
    np.testing.assert_array_equal(back.data, canonical(source).data)
    body = pydicom.dcmread(tmp_path / "TO" / "ann" / "dicom" / "body" / "0001.dcm")
    assert body.Modality == "SEG"
