"""What `export --for` refuses: one sentence, exit code 2, and no folder of the case."""

import errno

import nibabel as nib
import numpy as np
import pytest

from made_volumes import made_volume
from rows import every_row
from voxlate.clinic import export_for as export
from voxlate.synthesis.result import Synthesised

GRID = np.diag([3.0, 3.0, 3.0, 1.0])


def save(path, data, affine=GRID):
    nib.save(nib.Nifti1Image(np.asarray(data, np.float32), affine), path)
    return path


def ball():
    """A ball of water with a shell of bone in air, HU."""
    axis = np.arange(32) - 15.5
    radius = np.linalg.norm(np.meshgrid(axis, axis, axis), axis=0)
    return np.select([radius < 11, radius < 13], [30, 1100], -1000).astype(np.float32)


@pytest.fixture
def files(tmp_path):
    """Images and tables in tmp_path/bad."""
    folder = tmp_path / "bad"
    folder.mkdir()
    hu, hole = ball(), ball()
    hole[4, 4, 4] = np.nan
    dot = np.full((16, 16, 16), -1000.0)
    dot[8, 8, 8] = 500
    noise = np.random.default_rng(0).normal(0, 10, hu.shape)
    padded = np.where(hu > 0, hu, hu + noise) + 1024 + noise
    padded[0] = -1000
    far = GRID.copy()
    far[:3, 3] = 900
    images = {
        "ct": hu, "mr": (hu + 1000) / 3, "raised": hu + 1024, "padded": padded, "mu": (hu + 1000) * 9.6e-5,
        "nan": hole, "thin": np.where(hu > 0, -400, -1000), "far": hu * 0, "dot": dot,
    }  # fmt: skip
    affines = {"far": far, "dot": np.eye(4)}
    for name, data in images.items():
        save(folder / f"{name}.nii.gz", data, affines.get(name, GRID))
    tables = {
        "falls": "hu,rsp\n0,1\n100,0.9\n", "commas": "hu,rsp\n-1000,0,0\n100,1,1\n", "twice": "hu,rsp,rsp\n-1000,0,0\n100,1.1,9\n",
        "metal": "hu,rsp\n-1000,0\n0,1\n3000,300\n", "raised": "hu,rsp\n24,0\n1024,1\n", "thousand": "hu,rsp\n-1000,0\n100,1100\n",
    }  # fmt: skip
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "file").touch()
    return folder


@every_row(
    ("image", "arguments", "named"),
    [
        ("ct", "pet --kvp 90", "--kvp"),
        ("ct", "proton --kvp 100", "--kvp"),
        ("ct", "proton --table none.csv", "none.csv"),
        ("ct", "proton --table bad/commas.csv", "commas.csv"),
        ("ct", "proton --table bad/twice.csv", "twice.csv"),
        ("ct", "proton --table bad/metal.csv", "100.667"),
        ("ct", "proton --table bad/raised.csv", "at 0 HU"),
        ("ct", "proton --table bad/thousand.csv", "at 0 HU"),
        ("ct", "proton --table bad/falls.csv", "100 HU with 1 → 0.9"),
        ("ct", "proton --beam=1e999,0,0", "--beam"),
        ("ct", "proton --beam up", "--beam"),
        ("ct", "ultrasound --aperture 1e6", "--aperture"),
        ("ct", "ultrasound --beam 1,0,0 --conversion none", "--conversion"),
        ("ct", "pet --like bad/far.nii.gz", "--like"),
        ("ct", "pet --couch bad/far.nii.gz", "--couch"),
        ("ct", "pet --couch bad/ct.nii.gz", "0.96"),
        ("mr", "proton", "mr.nii.gz"),
        ("raised", "ultrasound", "raised.nii.gz"),
        ("padded", "ultrasound", "1024"),
        ("mu", "planning", "mu.nii.gz"),
        ("nan", "planning", "1 NaN"),
        ("thin", "proton", "thin.nii.gz"),
        *(("dot", user, "1 ml") for user in ("planning", "proton", "pet", "ultrasound")),
        ("absent", "proton", "absent.nii.gz"),
    ],
)
def test_what_no_user_can_use_is_refused_in_one_sentence(
    image, arguments, named, files, voxlate, monkeypatch
):
    monkeypatch.chdir(files.parent)
    answer = voxlate("export", f"bad/{image}.nii.gz", "--out", "TO", "--for", *arguments.split())
    assert named in answer.sentence
    assert not [*files.parent.glob("TO/*")]


def test_a_synthesis_of_another_modality_and_a_file_as_folder_are_refused(files, voxlate):
    image = made_volume(np.abs(ball()), "t2", "a.u.")
    Synthesised({"t2": image}, {}, {"model": {"title": "any"}}).write(files / "OUT/ann")
    for source, to, named in (
        ("OUT", "TO", "OUT"),
        ("ct.nii.gz", "file", "file"),
        ("ct.nii.gz", "file/below", "file"),
    ):
        command = ("export", files / source, "--for", "pet", "--out", files / to)
        assert named in voxlate(*command).refusal


@every_row(("code", "sentence"), [(errno.ENOSPC, "found a full disk"), (errno.EROFS, "Read-only")])
def test_a_disk_that_is_full_or_read_only_leaves_nothing_half_written(
    code, sentence, files, tmp_path, voxlate, monkeypatch
):
    def refuse(path, text):
        path.write_text("half")
        raise OSError(code, "of the system")

    monkeypatch.setattr(export, "write_text", refuse)  # of the rays, after two maps
    answer = voxlate("export", files / "ct.nii.gz", "--for", "proton", "--out", tmp_path / "TO")
    assert sentence in answer.sentence
    assert not (tmp_path / "TO").exists()


def test_files_of_another_user_are_kept_and_those_of_the_same_are_replaced(
    files, tmp_path, voxlate
):
    def write(*options):
        return voxlate("export", files / "ct.nii.gz", "--out", tmp_path / "TO", "--for", *options)

    mu = tmp_path / "TO/ct/mu.nii.gz"
    write("pet").done()
    before = mu.read_bytes()
    assert write("proton").code == 2
    assert mu.read_bytes() == before
    write("pet", "--kvp", "80").done()
    replaced = mu.read_bytes()
    assert replaced != before
    save(files / "ct.nii.gz", np.roll(ball(), 1, axis=0))  # a CT of this name, of another patient
    assert write("pet").code == 2
    assert mu.read_bytes() == replaced
    save(files / "ct.nii.gz", ball())
    notes = mu.with_name("notes.txt")
    notes.write_text("mine")
    assert write("pet").code == 2
    assert notes.read_text() == "mine"
