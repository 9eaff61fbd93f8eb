"""From an upload to a result: which model fits, the same bits as voxlate synth, and what the page shows of it."""

import gzip
import io
import re
import shutil
import zipfile

import nibabel as nib
import numpy as np

from dicom_slices import mr_slice, save
from rows import slow
from scans import change_scan


def used(made, place):
    """The scans that the best model of a check takes, by modality."""
    (best, *_) = made.get(place, headers={"accept": "application/json"}).json()["fits"]
    return best["used"]


def test_an_upload_gives_the_bits_of_voxlate_synth(at_work, typed, diffusion, cohort, tmp_path):
    made, scan = at_work(diffusion), cohort / "case1/t1.nii.gz"
    place, text = made.checked(scan)
    assert "<strong>Fits.</strong>" in text
    assert used(made, place) == {"t1": "t1.nii.gz"}
    address, text = made.synthesised(place)
    typed("synth drun cohort/case1/t1.nii.gz --out out --device cpu").done()
    (theirs,) = (tmp_path / "out").glob("*/t2.nii.gz")
    assert made.get(f"{address}/images/t2.nii.gz").content == theirs.read_bytes()
    assert str(tmp_path) not in text
    report = made.get(f"{address}/report.html")
    assert report.headers["content-disposition"].startswith("attachment")
    assert str(tmp_path) not in report.text
    assert f"{diffusion.parent.name}/{diffusion.name}" not in report.text

    urls = re.findall(r'data-url="([^"]+)" data-role="(\w+)"', text)
    assert [role for _, role in urls] == ["source", "synthesis"]
    shown = nib.Nifti1Image.from_bytes(gzip.decompress(made.get(urls[0][0]).content))
    source = nib.load(scan)
    assert np.array_equal(shown.get_fdata(), source.get_fdata())
    assert np.allclose(shown.affine, source.affine)
    for low, high in re.findall(r'data-low="([-\d.]+)" data-high="([-\d.]+)"', text):
        assert float(low) < float(high)

    for file in (  # which are no downloads
        "images/provenance.json",
        "images/..%2F..%2Fjob.json",
        "views/result.json",
        "job.json",
        "scans/t1.nii.gz",
    ):
        assert made.get(f"{address}/{file}").status_code in (400, 404)
    for link in re.findall(r'href="([^"]+)" download', text):
        assert made.get(link).status_code == 200


@slow
def test_the_user_says_which_file_is_which_modality(at_work, run, cohort, tmp_path):
    scans = (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    for path, name in zip(scans, ("t2", "t1")):
        shutil.copy(cohort / f"case1/{name}.nii.gz", path)
    made = at_work(run)
    place, _ = made.checked(*scans)
    said = {"names": ["", "t1"]}
    assert made.post(f"{place}/names", data=said).status_code == 303
    made.finished(place)
    assert used(made, place) == {"t1": "b.nii.gz"}
    assert made.post(f"{place}/names", data={"names": ["", "../x"]}).status_code == 400
    address, _ = made.synthesised(place)
    assert made.get(f"{address}/images/t2.nii.gz").status_code == 200


def test_a_lone_scan_is_what_its_name_or_description_says_or_is_taken_as_the_source_with_a_note(
    at_work, run, cohort, datasets, series
):
    made = at_work(run)
    _, text = made.checked(cohort / "case1/t2.nii.gz")
    assert "By its name, t2.nii.gz is t2" in text
    named = (cohort / "case1/t1.nii.gz").rename(cohort / "case1/PAT04_T1_MPRAGE.nii.gz")
    files = {}
    for path, header in zip(sorted(series.iterdir()), datasets):
        header.SeriesDescription = "anat-T1"
        header.save_as(path)
        files[f"s/{path.name}"] = path.read_bytes()
    for (place, text), scan in ((made.checked(named), named.name), (made.checked(**files), "s")):
        assert used(made, place) == {"t1": scan}
        assert "By its name" not in text
    address, text = made.synthesised(place, anyway=1)
    assert "DICOM series (zip)" in text
    with zipfile.ZipFile(io.BytesIO(made.get(f"{address}/dicom.zip").content)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dcm")]
    assert sum("/t2/" in name for name in names) == 6
    assert sum(name.endswith("/report/0001.dcm") for name in names) == 1


def test_series_of_two_patients_are_refused_and_two_of_one_are_not(at_work, run, tmp_path):
    made = at_work(run)
    for patient, study, is_one in (("P1", "1.3", True), ("P2", "1.3", False), ("P2", "1.2", False)):
        files = {}
        for series, of_study, owner in (("a", "1.2", "P1"), ("b", study, patient)):
            for level in range(4):
                header = mr_slice(level, of_study, f"{of_study}.{ord(series)}", owner)
                header.PatientName = f"Test^{owner}"
                path = save(header, tmp_path / "study" / series / f"{level}.dcm")
                files[f"{series}/{path.name}"] = path.read_bytes()
        assert ("found 2 series" not in made.checked(**files)[1]) == is_one


def test_a_damaged_scan_is_named_and_nothing_else_happens(at_work, run, cohort, tmp_path):
    made = at_work(run)
    cut = (cohort / "case1/t1.nii.gz").read_bytes()[:-300]
    for content in (b"", b"no image", b"\x1f\x8b broken", cut):
        _, text = made.checked(**{"t1.nii.gz": content})
        assert re.search("<strong>Does not fit.</strong> .*t1.nii.gz: expected", text)
        assert ("damaged" in text) == (content is cut)
        assert str(tmp_path) not in text


def test_the_page_synthesises_what_is_not_to_be_trusted_only_where_the_box_is_ticked(
    at_work, run, cohort
):
    made = at_work(run)
    place, text = made.checked(
        change_scan(cohort / "case1/t1.nii.gz", lambda values: values - 1000)
    )
    assert 'name="anyway" value="1" required' in text
    address, text = made.synthesised(place)
    assert "“Synthesise anyway”" in text
    assert made.get(f"{address}/images/t2.nii.gz").status_code == 400
    address, _ = made.synthesised(place, anyway=1)
    assert made.get(f"{address}/images/t2.nii.gz").status_code == 200
