"""What `export --for` refuses: one sentence, exit code 2, and no folder of the case."""

import errno

import nibabel as nib
import numpy as np
import pytest

from rows import every_row
from voxlate.clinic import dicom_structure
from voxlate.clinic import export_for as export
from voxlate.scans.formats.io import content_hash
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.result import Synthesised

GRID = np.diag([3.0, 3.0, 3.0, 1.0])


def save(path, data, affine=GRID):
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


def ball():
    """A ball of water with a shell of bone in air, HU."""
    axis = np.arange(32) - 15.5
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(axis, axis, axis, indexing="ij")))
    return np.select([radius < 11, radius < 13], [30, 1100], -1000).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    """Images and tables in tmp_path/bad."""
    folder = tmp_path / "bad"
    folder.mkdir()
    hu = ball()
    hole = hu.copy()
    hole[4, 4, 4] = np.nan
    noise = np.random.default_rng(0).normal(0, 10, hu.shape)
    padded = np.where(hu > 0, hu, hu + noise) + 1024 + noise
    padded[0] = -1000
    far = GRID.copy()
    far[:3, 3] = 900
    images = {
        "ct": (hu, GRID), "mr": ((hu + 1000) / 3, GRID), "raised": (hu + 1024, GRID), "padded": (padded, GRID), "speck": (np.where(hu > 900, hu, -1000)[9:10, 9:10, 9:10], GRID), "mu": ((hu + 1000) * 9.6e-5, GRID),
        "nan": (hole, GRID), "thin": (np.where(hu > 0, -400, -1000), GRID), "far": (hu * 0, far),
    }  # fmt: skip
    for name, (data, affine) in images.items():
        save(folder / f"{name}.nii.gz", data, affine)
    tables = {
        "falls": "hu,rsp\n0,1\n100,0.9\n", "commas": "hu,rsp\n-1000,0,0\n100,1,1\n", "twice": "hu,rsp,rsp\n-1000,0,0\n100,1.1,9\n",
        "metal": "hu,rsp\n-1000,0\n0,1\n3000,300\n", "raised": "hu,rsp\n24,0\n1024,1\n", "thousand": "hu,rsp\n-1000,0\n100,1100\n",
    }  # fmt: skip
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "file").touch()
    return folder


@every_row(
    ("image", "arguments", "sentence"),
    [
        ("ct.nii.gz", "pet --kvp 90", "--kvp: expected a tube voltage with published coefficients"),
        ("mr.nii.gz", "proton", "mr.nii.gz: expected a CT in HU, with air below -500"),
        ("raised.nii.gz", "ultrasound", "raised.nii.gz: expected a CT in HU, with air below -500"),
        ("padded.nii.gz", "ultrasound", "as in a CT to which 1000 or 1024 was added. Subtract it."),
        ("ct.nii.gz", "proton --table bad/commas.csv", "a row of more fields than columns, or a column twice"),
        ("ct.nii.gz", "proton --table bad/twice.csv", "a row of more fields than columns, or a column twice"),
        ("ct.nii.gz", "proton --table bad/metal.csv", "0.9 to 2.2 at 1000 HU, found 100.667 there"),
        ("ct.nii.gz", "proton --table bad/raised.csv", "0.9 to 1.1 at 0 HU, found 0 there"),
        ("ct.nii.gz", "proton --table bad/thousand.csv", "0.9 to 1.1 at 0 HU, found 1000 there"),
        ("ct.nii.gz", "proton --beam=1e999,0,0", "--beam: expected a gantry angle in degrees"),
        ("ct.nii.gz", "ultrasound --aperture 1e6", "--aperture: expected at most 400, found 1e+06"),
        ("mu.nii.gz", "planning", "mu.nii.gz: expected a CT in HU, with air below -500"),
        ("nan.nii.gz", "planning", "nan.nii.gz: expected finite voxels, found 1 NaN"),
        ("thin.nii.gz", "proton", "thin.nii.gz: expected a CT in HU"),
        ("ct.nii.gz", "ultrasound --beam 1,0,0 --conversion none", "--conversion: expected 'kplan'"),
        ("ct.nii.gz", "proton --beam up", "--beam: expected a gantry angle in degrees"),
        ("ct.nii.gz", "proton --table bad/falls.csv", "--table bad/falls.csv: expected hu that grow and rsp that never falls"),
        ("ct.nii.gz", "pet --like bad/far.nii.gz", "--like bad/far.nii.gz: expected a PET whose grid overlaps the CT"),
        ("ct.nii.gz", "pet --couch bad/far.nii.gz", "--couch: expected a map that overlaps the PET's grid"),
        ("ct.nii.gz", "pet --couch bad/ct.nii.gz", "--couch: expected attenuation in 1/cm from 0 to 0.96"),
        ("none", "proton", "none: expected a folder that synth wrote, or a CT, found nothing"),
    ],
)  # fmt: skip
def test_what_no_user_can_use_is_refused_in_one_sentence(
    image, arguments, sentence, files, voxlate, monkeypatch
):
    monkeypatch.chdir(files.parent)
    path = "none" if image == "none" else f"bad/{image}"
    answer = voxlate("export", path, "--out", "TO", "--for", *arguments.split())
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1
    assert not [*files.parent.glob("TO/*")]


def test_a_beam_that_misses_the_skull_is_refused(tmp_path, voxlate):
    ct = save(
        tmp_path / "ct.nii.gz", ball()[..., :16]
    )  # cut off: there is no bone towards the head
    small = ("--aperture", "10")
    answer = voxlate("export", ct, "--for", "ultrasound", *small, "--out", tmp_path / "TO")
    assert answer.code == 2
    assert "--beam: expected a direction from which rays meet" in answer.err
    assert not (tmp_path / "TO" / "ct").exists()


@every_row("consumer", ["planning", "proton", "pet", "ultrasound"])
def test_a_speck_is_no_body_for_any_user(consumer, tmp_path, voxlate):
    hu = np.full((16, 16, 16), -1000.0)
    hu[8, 8, 8] = 500
    save(tmp_path / "ct.nii.gz", hu, np.eye(4))
    answer = voxlate("export", tmp_path / "ct.nii.gz", "--out", tmp_path / "TO", "--for", consumer)
    assert answer.code == 2
    assert "expected a body of 1 ml or more above -300 HU" in answer.err


def test_a_synthesis_of_another_modality_is_no_ct(tmp_path, voxlate):
    image = Volume(np.abs(ball())[None], GRID, "a.u.", "t2")
    Synthesised({"t2": image}, {}, {"model": {"title": "any"}}).write(tmp_path / "OUT" / "ann")
    answer = voxlate("export", tmp_path / "OUT", "--for", "planning", "--out", tmp_path / "TO")
    assert answer.code == 2
    assert "OUT: expected a synthesised CT in HU, found none. Name the --out of synth" in answer.err


@every_row("place", ["file", "file/below"])
def test_a_place_that_takes_no_folder_is_refused(place, files, voxlate):
    answer = voxlate("export", files / "ct.nii.gz", "--for", "proton", "--out", files / place)
    assert answer.code == 2
    assert "expected a folder to write in, found a file" in answer.err


@every_row(("code", "sentence"), [(errno.ENOSPC, "found a full disk"), (errno.EROFS, "Read-only")])
def test_a_disk_that_is_full_or_read_only_leaves_nothing_half_written(
    code, sentence, files, tmp_path, voxlate, monkeypatch
):
    def refuse(path, text):
        path.write_text("half")
        raise OSError(code, "of the system")

    monkeypatch.setattr(export, "write_text", refuse)  # of the rays, after two maps
    answer = voxlate("export", files / "ct.nii.gz", "--for", "proton", "--out", tmp_path / "TO")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert sentence in answer.err
    assert [*(tmp_path / "TO").iterdir()] == []


def test_a_body_of_more_contour_points_than_systems_take_is_refused(tmp_path, voxlate, monkeypatch):
    pytest.importorskip("pydicom")
    from dicom_slices import write_series

    source = Volume(ball()[None], GRID, "HU", "ct")
    series = write_series(source, tmp_path / "series", Modality="MR")
    inputs = {"mr": {"path": "../../series", "sha256": content_hash(series)}}
    Synthesised({"ct": source}, {}, {"model": {"title": "any"}, "inputs": inputs}).write(
        tmp_path / "OUT" / "ann"
    )
    monkeypatch.setattr(dicom_structure, "MOST_BYTES", 300)
    answer = voxlate("export", tmp_path / "OUT", "--for", "planning", "--out", tmp_path / "TO")
    assert answer.code == 2
    assert "expected contours of at most 300 bytes" in answer.err
    assert not (tmp_path / "TO" / "ann").exists()


def test_files_of_another_user_are_kept_and_those_of_the_same_are_replaced(
    files, tmp_path, voxlate
):
    def write(*options):
        return voxlate("export", files / "ct.nii.gz", "--out", tmp_path / "TO", "--for", *options)

    assert write("pet").code == 0
    before = (tmp_path / "TO" / "ct" / "mu.nii.gz").read_bytes()
    refused = write("proton")
    assert refused.code == 2
    assert "expected a new folder, or one that export --for proton wrote" in refused.err
    assert (tmp_path / "TO" / "ct" / "mu.nii.gz").read_bytes() == before
    assert write("pet", "--kvp", "80").code == 0
    replaced = (tmp_path / "TO" / "ct" / "mu.nii.gz").read_bytes()
    save(files / "ct.nii.gz", np.roll(ball(), 1, axis=0))  # a CT of this name, of another patient
    other = write("pet")
    assert other.code == 2
    assert "or an export of the same scan, found that of another one" in other.err
    assert (tmp_path / "TO" / "ct" / "mu.nii.gz").read_bytes() == replaced
    save(files / "ct.nii.gz", ball())
    assert (tmp_path / "TO" / "ct" / "mu.nii.gz").read_bytes() != before
    (tmp_path / "TO" / "ct" / "notes.txt").write_text("mine")
    assert write("pet").code == 2
    assert (tmp_path / "TO" / "ct" / "notes.txt").read_text() == "mine"
