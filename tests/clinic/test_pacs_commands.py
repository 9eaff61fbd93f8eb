"""`synth http://… --store` and `listen` with a small model: the images are in the study, on the source's slices."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from orthanc_steps import listens, push
from pydicom.uid import generate_uid

import voxlate as package
from rows import slow
from voxlate.clinic.archives import (
    Ledger,
    Node,
    NodeArchive,
    StudyAddress,
    WebArchive,
    fetch_study,
    send,
    study_address,
    study_name,
)
from voxlate.clinic.listen import FAILED
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import same_grid
from voxlate.synthesis.provenance import Synthesised
from waiting import until

SYNTHETIC = "SYNTHETIC T2 - NOT FOR DIAGNOSIS"


def derived(orthanc, study, folder):
    """The derived series of a study, fetched into a folder of its own."""
    archive = WebArchive.connect(orthanc.url)
    found = archive.client.search_for_series(study)
    (uid,) = {
        one["0020000E"]["Value"][0] for one in found if one["0008103E"]["Value"] == [SYNTHETIC]
    }
    fetch_study(archive, StudyAddress(orthanc.url, study, uid), folder / "derived")
    return folder / "derived"


@pytest.mark.pacs
@slow
def test_only_missing_images_are_fetched_again(orthanc, stored, series, tmp_path):
    archive = WebArchive.connect(orthanc.url)
    address = study_address(f"http://127.0.0.1:{orthanc.http}/dicom-web/studies/{stored}")
    folder = tmp_path / "fetched"
    fetch_study(archive, address, folder)
    before, after = read_volume(series), read_volume(folder)
    np.testing.assert_array_equal(before.data, after.data)
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-9)
    kept, gone, *_ = folder.iterdir()
    time = kept.stat().st_mtime_ns
    gone.unlink()
    fetch_study(archive, address, folder)
    assert gone.is_file()
    assert kept.stat().st_mtime_ns == time


@pytest.mark.pacs
@slow
def test_a_study_is_fetched_synthesised_and_its_images_are_stored_once(
    voxlate, orthanc, stored, series, run, tmp_path
):
    address = f"http://127.0.0.1:{orthanc.http}/dicom-web/studies/{stored}"
    command = ("synth", run, address, "--out", tmp_path / "out", "--store")
    assert "7 of 7 files" in voxlate(*command).done().err
    assert "0 of 7 files" in voxlate(*command).done().err
    assert len(orthanc.instances()) == 13
    folder = derived(orthanc, stored, tmp_path)
    image, source = read_volume(folder, "t2"), read_volume(series, "t1")
    assert same_grid(image.grid, source.grid, 1e-3)
    (case,) = (one for one in (tmp_path / "out").glob("study-*") if one.is_dir())
    nifti = read_volume(case / "t2.nii.gz", "t2")
    assert np.abs(image.data - nifti.data).max() <= nifti.data.max() / 4095


@pytest.mark.pacs
@slow
def test_a_listener_answers_a_study_and_puts_another_aside(
    orthanc, stored, run, tmp_path, datasets
):
    queue = tmp_path / "queue"
    to = f"ORTHANC@127.0.0.1:{orthanc.dicom}"
    options = ["--port", str(orthanc.voxlate), "--allow", "ORTHANC", "--to", to, "--idle", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "voxlate", "listen", str(run), "--out", str(queue), *options]
    )
    try:
        until(lambda: listens(orthanc))
        push(orthanc, stored)
        until(lambda: len(orthanc.instances()) == 13)
        dataset = datasets[0]  # as a single slice of another study, without its place
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        del dataset.ImagePositionPatient
        dataset.save_as(tmp_path / "other.dcm", enforce_file_format=True)
        other = Ledger(tmp_path / "other.txt")
        send([tmp_path / "other.dcm"], WebArchive.connect(orthanc.url), other, "archive", print)
        push(orthanc, dataset.StudyInstanceUID)
        why = queue / FAILED / study_name(str(dataset.StudyInstanceUID)) / "why.txt"
        until(why.is_file)
        assert "expected" in why.read_text()
    finally:
        process.kill()
        process.wait()
    folder = derived(orthanc, stored, tmp_path)
    assert len([*folder.iterdir()]) == 6


@pytest.mark.pacs
@slow
def test_every_exported_object_is_taken_by_an_archive_and_comes_back_to_the_byte(
    shared, orthanc, tmp_path
):
    pytest.importorskip("highdicom")
    source = shared / "data/dicom/ct_head_phantom"
    scan, case = read_volume(source), tmp_path / "case"
    scan.data[:] = np.abs(scan.data)
    flow = replace(scan, unit="ml/100g/min", modality="cbf")
    Synthesised({"ct": scan, "cbf": flow}, {"ct": scan}, {"model": {"title": "any"}}).write(case)
    done = package.export(case, tmp_path / "dicom", like=source, progress=False)
    assert "1 series, 2 maps, 1 report" in done.summary
    files = sorted((tmp_path / "dicom").glob("*/*/*.dcm"))
    archive = WebArchive.connect(orthanc.url)
    send(files, archive, Ledger(tmp_path / "sent.txt"), "archive", print)
    for file in files:
        one = pydicom.dcmread(file)
        back = archive.client.retrieve_instance(
            one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID
        )
        assert list(back) == list(one)
    # By C-STORE, too, where each kind of object needs a presentation context.
    node = NodeArchive(Node("ORTHANC", "127.0.0.1", orthanc.dicom), "VOXLATE")
    ledger = Ledger(tmp_path / "by_c_store.txt")
    assert send(files, node, ledger, node.node, print) == len(files)
    node.close()


def test_a_study_to_store_in_needs_an_address(voxlate, cohort, tmp_path):
    command = ("synth", tmp_path / "run", "--out", tmp_path / "out", "--store")
    assert "--store" in voxlate(*command, cohort / "case0").refusal


def test_a_listener_needs_senders_and_a_node(voxlate, tmp_path):
    command = ("listen", tmp_path / "run", "--out", tmp_path / "queue", "--to")
    assert "--allow" in voxlate(*command, "PACS@localhost:104").refusal
    assert "'PACS'" in voxlate(*command, "PACS", "--allow", "A").refusal
