"""Synthesised images as derived DICOM series, through the command line and Python."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import voxlate as package
from refusals import refuses
from rows import slow
from voxlate.clinic.archives import (
    Ledger,
    StudyAddress,
    WebArchive,
    export_anew,
    send,
    store_answers,
)
from voxlate.clinic.dicom_out import export_dicom
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume
from voxlate.synthesis.provenance import Synthesised
from voxlate.training.load import load

pydicom = pytest.importorskip("pydicom")
from dicom_slices import change, write_series  # noqa: E402 - needs pydicom


@pytest.fixture
def series(cohort, tmp_path):
    """The T1 of a small head as a DICOM series of axial slices."""
    scan = read_volume(cohort / "case0/t1.nii.gz")
    return write_series(
        scan,
        tmp_path / "head",
        Modality="MR",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        FrameOfReferenceUID="1.2.9",
        SeriesDescription="t1",
        PatientID="ID7",
    )


@pytest.fixture
def out(run, series, voxlate, tmp_path):
    """The synthesis of the series."""
    voxlate("synth", run, series, "--out", tmp_path / "out").done()
    return tmp_path / "out"


def test_synth_writes_a_derived_series_with_the_voxels_of_the_image(run, series, voxlate, tmp_path):
    out, to = tmp_path / "out", tmp_path / "dicom"
    command = ("synth", run, f"t1={series}", "--out", out, "--dicom", to)
    answer = voxlate(*command).done()
    assert f"7 DICOM files (1 series, 1 report) in {to}: derived" in answer.said
    image = read_volume(next(out.glob("*/t2.nii.gz")))
    back = read_volume(to / "head/t2")
    assert np.allclose(back.affine, image.affine, atol=1e-3)
    assert np.abs(back.data - image.data).max() <= np.abs(image.data).max() / 4095
    first = pydicom.dcmread(to / "head/t2/0001.dcm")
    assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == ("1.2.3", "1.2.9")
    assert first.PatientID == "ID7"
    # The same command again keeps both, and so does the export in Python, which finds the source by the provenance.
    voxlate(*command).done()
    done = package.export(out, to, progress=False)
    assert done.series == [to / "head/t2"]
    assert len(done.files) == 7


def test_a_scan_that_is_no_series_is_refused_before_the_synthesis(run, cohort, voxlate, tmp_path):
    out = tmp_path / "out"
    command = ("synth", run, f"t1={cohort / 'case0/t1.nii.gz'}", "--out", out)
    answer = voxlate(*command, "--dicom", tmp_path / "dicom").refusal
    assert "expected a DICOM series as the scan of every case" in answer
    assert not out.exists()


def test_images_of_a_file_are_exported_by_like_on_the_grid_of_their_source(
    run, series, tmp_path, voxlate
):
    scan, out = read_volume(series), tmp_path / "out"
    for name, away in (("converted", 0.0), ("moved", 5.0)):
        scan.affine[:3, 3] += away
        write_volume(tmp_path / f"{name}.nii.gz", scan)
        given = {"t1": tmp_path / f"{name}.nii.gz"}
        load(run).synthesise(given, case="head").save(out / name)
    command = ("export", out / "converted", "--dicom", tmp_path / "dicom")
    assert "NIfTI" in voxlate(*command).refusal
    assert "is not the scan from which" in voxlate(*command, "--like", series).done().err
    (back,) = map(read_volume, (tmp_path / "dicom").glob("*/t2"))
    (image,) = map(read_volume, (out / "converted").rglob("t2.nii.gz"))
    assert np.abs(back.data - image.data).max() <= image.data.max() / 4095
    moved = ("export", out / "moved", "--dicom", tmp_path / "other", "--like", series)
    assert f"found {series} on another grid" in voxlate(*moved).refusal
    assert not [*(tmp_path / "other").rglob("*.dcm")]


@pytest.fixture
def case(series, tmp_path):
    """A case with a CT, its interval and a perfusion map."""
    scan = read_volume(series)
    folder, hu = tmp_path / "case", scan.data - 900

    def of(data, unit="HU", name="ct"):
        return {name: Volume(data, scan.affine, unit, name)}

    Synthesised(
        of(hu) | of(scan.data / np.float32(100), "s", "tmax"),
        of(scan.data / np.float32(7)),
        {"model": {"title": "any"}},
        low=of(hu - 50),
        high=of(hu + 50),
    ).write(folder)
    return folder


def test_maps_and_the_summary_of_trust_go_beside_the_series(case, series, tmp_path):
    pytest.importorskip("highdicom")
    to = tmp_path / "dicom"
    done = export_dicom(case, to, series)
    assert [path.name for path in done.series] == ["ct"]
    back = read_volume(to / "case/ct")
    assert (back.modality, back.unit) == ("ct", "HU")
    assert np.array_equal(back.data, read_volume(case / "ct.nii.gz").data)
    maps = {"ct_high", "ct_low", "ct_std", "tmax"}
    assert {path.name for path in done.maps} == maps
    assert [path.name for path in done.reports] == ["report"]
    assert not any(told.code == "no-dicom" for told in done.messages)
    assert "1 series, 4 maps, 1 report" in done.summary
    units = {"ct_low": "[hnsf'U]", "tmax": "s"}
    for name, unit in units.items():
        one = pydicom.dcmread(to / "case" / name / "0001.dcm")
        (mapping,) = one.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
        assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == unit
        values = np.frombuffer(one.FloatPixelData, "<f4")
        stored = read_volume(case / f"{name}.nii.gz").data
        assert np.array_equal(np.sort(values), np.sort(stored.ravel()))
    report = pydicom.dcmread(to / "case/report/0001.dcm")
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(evidence.ReferencedSeriesSequence) == 5
    # The same command again keeps everything.
    assert export_dicom(case, to, series).summary == done.summary


def test_a_series_that_was_replaced_by_another_patients_is_refused(out, series, tmp_path, voxlate):
    change(series, PatientID="99")
    answer = voxlate("export", out, "--dicom", tmp_path / "dicom").refusal
    assert "found other files in its place" in answer
    assert not [*(tmp_path / "dicom").rglob("*.dcm")]


def test_an_image_that_was_changed_after_the_synthesis_leaves_by_no_exit(case, series, tmp_path):
    image = read_volume(case / "ct.nii.gz")
    write_volume(case / "ct.nii.gz", replace(image, data=image.data + 100))
    to = tmp_path / "new"
    for leave in (
        lambda: export_dicom(case, to, series),
        lambda: export_anew([case], to, print),
    ):
        with refuses("checksum"):
            leave()
    assert not [*to.rglob("*.*")]


def test_images_that_are_exported_anew_keep_their_uids_and_are_sent_once(out, tmp_path):
    sent = []

    class Archive:
        def store(self, dataset):
            sent.append(dataset.SOPInstanceUID)

    for count in (3, None, None):
        files = export_anew([out / "head"], tmp_path / "derived", print)[:count]
        send(files, Archive(), Ledger(tmp_path / "sent.txt"), "archive", print)
    assert len(sent) == len(set(sent)) == 7


@slow
def test_each_study_gets_the_images_of_its_own_scans(run, series, voxlate, tmp_path, monkeypatch):
    out = tmp_path / "out"
    studies = {}
    for name in ("first", "second"):
        study = out / "dicom" / name / name
        shutil.copytree(series, study)
        change(study, StudyInstanceUID=f"1.2.{len(name)}")
        voxlate("synth", run, f"t1={study}", "--out", out / name).done()
        studies[study] = StudyAddress(f"http://{name}", f"1.2.{len(name)}")
    stored = {}

    class Archive:
        def __init__(self, url):
            self.url = url

        def store(self, dataset):
            stored.setdefault(self.url, set()).add(dataset.StudyInstanceUID)

    monkeypatch.setattr(WebArchive, "connect", Archive)
    cases = sorted(path.parent for path in out.glob("*/*/provenance.json"))
    sentence = store_answers(studies, cases, print)
    assert stored == {"http://first": {"1.2.5"}, "http://second": {"1.2.6"}}
    assert sentence.startswith("14 of 14 files")
