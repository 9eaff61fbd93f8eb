"""From an upload to a result: which model fits, the same bits as voxlate synth, and what the page shows of it."""

import gzip
import hashlib
import io
import re
import shutil
import time
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from paging import Here

import voxlate as package
from dicom_slices import mr_slice, save
from scans import change_scan
from voxlate.base.errors import BadInput
from voxlate.scans.formats.archive import unpacked


def finished(made, place: str) -> str:
    """The page of a job once it has ended; its address is below the page's own."""
    for _ in range(600):
        text = made.client.get(place).text
        if "hx-trigger" not in text:
            return text
        time.sleep(0.05)
    raise AssertionError(f"the job is not finished: {text}")


def synthesised(made, place: str, label: str, **settings: object) -> tuple[str, str]:
    """The address and the page of a synthesis of an upload."""
    answer = made.client.post(f"{place}/synthesise", data={"run": label, **settings})
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    return address, finished(made, address)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_upload_gives_the_bits_of_voxlate_synth(page, voxlate, diffusion, cohort, tmp_path):
    made = page({"run": str(diffusion)}, start=Here)
    place = made.upload(cohort / "case1/t1.nii.gz").headers["location"]
    text = finished(made, place)
    assert "<strong>Fits.</strong>" in text
    assert 'name="scan" value="t1.nii.gz"' in text
    address, text = synthesised(made, place, "run", samples=2, steps=3, seed=5)
    ours = made.client.get(f"{address}/images/t2.nii.gz").content
    spread = made.client.get(f"{address}/images/t2_std_uncalibrated.nii.gz").content
    options = ("--samples", 2, "--steps", 3, "--seed", 5, "--device", "cpu")
    scan = cohort / "case1/t1.nii.gz"
    assert voxlate("synth", diffusion, scan, "--out", tmp_path / "out", *options).code == 0
    (case,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert hashlib.sha256(ours).hexdigest() == digest(case / "t2.nii.gz")
    assert hashlib.sha256(spread).hexdigest() == digest(case / "t2_std_uncalibrated.nii.gz")
    for fact in (
        "<dt>Samples</dt><dd>2</dd>",
        "<dt>Steps</dt><dd>3</dd>",
        "<dt>Seed</dt><dd>5</dd>",
        "<dt>Prediction</dt><dd>mean of 2 samples</dd>",
    ):
        assert fact in text
    assert str(tmp_path) not in text
    report = made.client.get(f"{address}/report.html")
    assert report.headers["content-disposition"].startswith("attachment")
    assert str(tmp_path) not in report.text
    assert f"{diffusion.parent.name}/{diffusion.name}" not in report.text
    _check_viewer(made, text, scan)
    _check_downloads(made, address, text)


def _check_viewer(made, text: str, scan: Path) -> None:
    """The viewer gets the source, the synthesis and the spread, with their windows."""
    urls = re.findall(r'data-url="([^"]+)" data-role="(\w+)"', text)
    assert [role for _, role in urls] == ["source", "synthesis", "spread"]
    content = made.client.get(urls[0][0]).content
    image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    source = nib.load(scan)
    assert np.array_equal(image.get_fdata(), source.get_fdata())
    assert np.allclose(image.affine, source.affine)
    for low, high in re.findall(r'data-low="([-\d.]+)" data-high="([-\d.]+)"', text):
        assert float(low) < float(high)


def _check_downloads(made, address: str, text: str) -> None:
    """Only the files of a result are downloads."""
    for file in (
        "images/provenance.json",
        "images/..%2F..%2Fjob.json",
        "views/result.json",
        "job.json",
        "scans/t1.nii.gz",
    ):
        assert made.client.get(f"{address}/{file}").status_code in (400, 404)
    for link in re.findall(r'href="([^"]+)" download', text):
        assert made.client.get(link).status_code == 200


@pytest.mark.slow
def test_a_calibrated_run_shows_its_interval_and_its_bound(page, run, small_head, tmp_path):
    for number in range(10):
        small_head(tmp_path / "others" / f"new{number}", 100 + number)
    package.calibrate(run, tmp_path / "others", progress=False)
    made = page({"run": str(run)}, start=Here)
    place = made.upload(tmp_path / "others/new3" / "t1.nii.gz").headers["location"]
    assert "with prediction intervals" in finished(made, place)
    _, text = synthesised(made, place, "run")
    roles = re.findall(r'data-role="(\w+)"', text)
    assert roles == ["source", "synthesis", "lower", "upper", "width"]
    assert re.search(r"Expected error of t2: about [\d.]+", text)


def test_models_that_do_not_fit_say_why_and_cannot_be_run(page, run, cohort, tmp_path):
    made = page({"run": str(run), "gone": str(tmp_path / "gone")}, start=Here)
    place = made.upload(cohort / "case1/t1.nii.gz", cohort / "case1/t2.nii.gz").headers["location"]
    text = finished(made, place)
    assert text.count("<strong>Fits.</strong>") == 1
    assert text.count("<strong>Does not fit.</strong>") == 1
    assert str(tmp_path) not in text
    answer = made.client.post(f"{place}/synthesise", data={"run": "gone"})
    assert answer.status_code == 400


@pytest.mark.slow
def test_the_user_says_which_file_is_which_modality(page, run, cohort, tmp_path):
    first = tmp_path / "a.nii.gz"
    other = tmp_path / "b.nii.gz"
    first.write_bytes((cohort / "case1/t2.nii.gz").read_bytes())
    other.write_bytes((cohort / "case1/t1.nii.gz").read_bytes())
    made = page({"run": str(run)}, start=Here)
    place = made.upload(first, other).headers["location"]
    assert finished(made, place).count("the only one; its name") == 2
    said = {"name_0": "", "name_1": "t1"}
    assert made.client.post(f"{place}/names", data=said).status_code == 303
    text = finished(made, place)
    assert 'name="scan" value="b.nii.gz"' in text
    assert made.client.post(f"{place}/names", data={"name_0": "../x"}).status_code == 400
    address, _ = synthesised(made, place, "run")
    assert made.client.get(f"{address}/images/t2.nii.gz").status_code == 200


def test_a_lone_scan_of_another_name_is_taken_as_by_the_command_with_a_note(page, run, cohort):
    made = page({"run": str(run)}, start=Here)
    text = finished(made, made.upload(cohort / "case1/t2.nii.gz").headers["location"])
    assert "The scan (t2.nii.gz) is taken as t1" in text
    named = cohort / "case1/PAT04_T1_MPRAGE.nii.gz"
    (cohort / "case1/t1.nii.gz").rename(named)
    assert "the only one" not in finished(made, made.upload(named).headers["location"])


def test_a_lone_series_whose_description_names_its_contrast_is_taken_as_that(
    page, run, datasets, series
):
    made = page({"run": str(run)}, start=Here)
    files = {}
    for path, header in zip(sorted(series.iterdir()), datasets):
        header.SeriesDescription = "anat-T1"
        header.save_as(path)
        files[f"s/{path.name}"] = path.read_bytes()
    text = finished(made, made.upload(**files).headers["location"])
    assert 'name="scan" value="s"' in text
    assert "the only one" not in text


@pytest.mark.slow
def test_each_fitting_series_of_a_study_is_a_choice_and_no_localiser_is(page, run, tmp_path):
    made = page({"run": str(run)}, start=Here)
    series = {"localizer": 3, "t1_tra": 6, "t1_iso": 8}
    for number, (text, slices) in enumerate(series.items()):
        for level in range(slices):
            header = mr_slice(level, "1.2", f"1.2.{number}")
            header.SeriesDescription = text
            save(header, tmp_path / "study" / text / f"{level}.dcm")
    (tmp_path / "study/.DS_Store").touch()
    whole = tmp_path / "study.zip"
    shutil.make_archive(str(whole.with_suffix("")), "zip", tmp_path / "study")
    place = made.upload(whole).headers["location"]
    chosen = re.findall(r'name="scan" value="([^"]+)"', finished(made, place))
    assert chosen == ["study/t1_iso", "study/t1_tra"]
    synthesised(made, place, "run", scan="study/t1_tra", anyway=1)
    assert made.client.post(f"{place}/synthesise", data={"run": "run", "scan": "x"}).is_error
    assert unpacked(whole) == (tmp_path / "study", 1)  # which has the same files
    slice_file = tmp_path / "study/t1_iso" / "0.dcm"
    kept = slice_file.read_bytes()
    for others in (kept[:-1] + bytes([kept[-1] ^ 1]), None):  # another study of the same sizes
        slice_file.unlink()
        if others:
            slice_file.write_bytes(others)
        with pytest.raises(BadInput):
            unpacked(whole)
    shutil.rmtree(tmp_path / "study")
    assert (unpacked(whole)[0] / "t1_iso/0.dcm").is_file()
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "study")
    assert unpacked(tmp_path / "packed.zip")[0] == tmp_path / "packed/study"


def test_series_of_two_patients_are_refused_and_two_of_one_are_not(page, run, tmp_path):
    made = page({"run": str(run)}, start=Here)
    for patient, study, is_one in (("P1", "1.3", True), ("P2", "1.3", False), ("P2", "1.2", False)):
        files = {}
        for series, of_study, owner in (("a", "1.2", "P1"), ("b", study, patient)):
            for level in range(4):
                header = mr_slice(level, of_study, f"{of_study}.{ord(series)}", owner)
                header.PatientName = f"Test^{owner}"
                path = save(header, tmp_path / "study" / series / f"{level}.dcm")
                files[f"{series}/{path.name}"] = path.read_bytes()
        text = finished(made, made.upload(**files).headers["location"])
        assert ("found 2 series" not in text) == is_one


def test_a_folder_of_the_machine_is_synthesised_in_its_place(page, run, cohort, tmp_path):
    made = page({"run": str(run)}, start=Here, root=cohort)
    place = made.client.post("/folders", data={"place": "case1"}).headers["location"]
    assert 'name="scan" value="t1.nii.gz"' in finished(made, place)
    address, text = synthesised(made, place, "run")
    assert made.client.get(f"{address}/images/t2.nii.gz").status_code == 200
    assert str(tmp_path) not in text
    assert sorted(path.name for path in (cohort / "case1").iterdir()) == ["t1.nii.gz", "t2.nii.gz"]


def test_a_damaged_scan_is_named_and_nothing_else_happens(page, run, tmp_path):
    made = page({"run": str(run)}, start=Here)
    for content in (b"", b"no image", b"\x1f\x8b broken"):
        text = finished(made, made.upload(**{"t1.nii.gz": content}).headers["location"])
        assert "<strong>Does not fit.</strong>" in text
        assert "t1.nii.gz: expected" in text
        assert str(tmp_path) not in text


@pytest.mark.slow
def test_a_dicom_series_gives_a_derived_series(page, run, series):
    pytest.importorskip("pydicom")
    made = page({"run": str(run)}, start=Here)
    files = {f"s/{path.name}": path.read_bytes() for path in sorted(series.iterdir())}
    place = made.upload(**files).headers["location"]
    finished(made, place)
    address, text = synthesised(made, place, "run", anyway=1)
    assert "DICOM series (zip)" in text
    content = made.client.get(f"{address}/dicom.zip").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
    slices = [name for name in names if "/t2/" in name]
    assert len(slices) == 6
    assert [name for name in names if name not in slices] == ["s/report/0001.dcm"]


def test_the_page_synthesises_what_is_not_to_be_trusted_only_where_the_box_is_ticked(
    page, run, cohort
):
    scan = change_scan(cohort / "case1/t1.nii.gz", lambda values: values - 1000)
    made = page({"run": str(run)}, start=Here)
    place = made.upload(scan).headers["location"]
    assert 'name="anyway" value="1" required' in finished(made, place)
    address, text = synthesised(made, place, "run")
    assert "“Synthesise anyway”" in text
    assert made.client.get(f"{address}/images/t2.nii.gz").status_code == 400
    address, _ = synthesised(made, place, "run", anyway=1)
    assert made.client.get(f"{address}/images/t2.nii.gz").status_code == 200


def test_a_program_reads_every_refusal_as_json_and_learns_of_redirects_and_fields(
    page, run, cohort
):
    program = {"accept": "application/json"}
    made = page({"run": str(run)}, start=Here)
    stated = made.client.get("/openapi.json").json()["paths"]
    for place in ("/uploads", "/uploads/{name}/synthesise", "/jobs/{name}/delete"):
        assert {"200", "303", "411"} <= stated[place]["post"]["responses"].keys(), place
    refusals = (
        made.stranger().get("/", headers=program),
        made.client.post("/uploads", headers=program | {"origin": "http://elsewhere"}),
        made.client.post("/uploads", content=iter([b"x"]), headers=program),
    )
    assert [answer.status_code for answer in refusals] == [401, 403, 411]
    assert all({*answer.json()} == {"error"} for answer in refusals)
    scan = change_scan(cohort / "case1/t1.nii.gz", lambda values: values - 1000)
    place = made.upload(scan).headers["location"]
    finished(made, place)
    address, _ = synthesised(made, place, "run")
    job = made.client.get(address, headers=program).json()
    assert job["state"] == "failed"
    assert "anyway=true" in job["why"]
    assert "(in Python" not in job["why"]
