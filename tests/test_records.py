"""Files of voxlate's own with one thing changed and their checksum made anew: only their schema can refuse them."""

import copy
import functools
import hashlib
import json
import os
import stat

import numpy as np
import pytest
import torch

from made_scores import made_scores
from refusals import refuses
from rows import every_row
from voxlate.base.files import read_json, write_json
from voxlate.base.records import Number, Record, checksum, write_tensors
from voxlate.evaluation.scoring.scores import read_scores
from voxlate.scans.images.ranges import Range
from voxlate.synthesis.provenance import read_provenance
from voxlate.training.calibration_file import read_calibration
from voxlate.training.log_file import lines_of
from voxlate.training.naive import Baselines
from voxlate.training.recipe.run_provenance import read_run
from voxlate.training.weights import read_header

RECORD = Record("file", "a table", "Make it again.")
OPEN = [("recipe",), ("data",)]  # tables that may hold other keys, and lack all
HU = {"low": -1024.0, "high": 3071.0, "unit": "HU", "rule": ""}


@every_row(
    "text", ["NaN", "[Infinity]", '{"a": 1e999}', "[", '"\\ud800"', "9" * 19, '"7"', "true", "1e16"]
)
def test_a_number_is_finite_plain_and_within_bounds(text):
    with refuses(r"^file: expected a table as voxlate writes it, found .* Make it again\.$"):
        RECORD.parse(Number, text)


@every_row("change", [{"more": 1}, {"rule": None}, {"high": "1"}])
def test_a_table_has_no_other_key_and_lacks_none(change):
    assert RECORD.parse(Range, json.dumps(HU)).high == HU["high"]
    table = {key: value for key, value in {**HU, **change}.items() if value is not None}
    with refuses(f"found .* at '{next(iter(change))}'"):
        RECORD.parse(Range, json.dumps(table))


def test_a_checksum_is_of_the_text_and_of_names_shapes_types_and_bytes_in_the_order_of_names():
    one = np.array(0.5, np.float32)
    known = hashlib.sha256(
        b"text" + b"a()float32" + b"\x00\x00\x00?" + b"b(1, 2)int16" + b"\x01\x00\x02\x00"
    )
    for order in ("C", "F"):
        arrays = {"b": np.array([[1, 2]], np.int16, order=order), "a": one}
        assert checksum("text", arrays) == known.hexdigest()


def test_tensors_are_written_with_their_checksum_for_those_whom_the_umask_lets_read(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"half": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16).T}  # which numpy lacks
    former = os.umask(0o022)
    try:
        write_tensors(path, tensors, {"sha256": checksum("", tensors)})
    finally:
        os.umask(former)
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o644
    with Record(path, "a tensor", "Make it again.").tensors("pt") as file:
        read = {"half": file.file.get_tensor("half")}
        assert torch.equal(read["half"], tensors["half"])
        assert file.text("sha256") == checksum("", read)


@pytest.fixture
def baselines(tmp_path):
    mean, table = np.zeros((2, 3, 4), np.float32), np.zeros(1024, np.float32)
    ranges = dict.fromkeys(("t1", "ct"), Range(**HU))
    baselines = Baselines(ranges, 3, means={"ct": mean}, tables={("t1", "ct"): table})
    baselines.save(tmp_path / "naive.safetensors")
    return tmp_path / "naive.safetensors"


def test_a_changed_baseline_differs_from_its_checksum(baselines):
    whole = bytearray(baselines.read_bytes())
    whole[-2] ^= 1
    baselines.write_bytes(whole)
    with refuses("found a changed file"):
        Baselines.load(baselines)


RUN = {
    "recipe": {},
    "data": {"cohort": "0", "splits": {"train": ["a"]}},
    "prepared": "../prepared",
    "budgets": {"final": {"seconds": 1.0, "most_steps": 2}},
}


def of_version(path, kind, version):
    """A file of a kind that states nothing but the version of voxlate that wrote it."""
    made = json.dumps({"made_by": {"voxlate": version}})
    stamped = json.dumps({"header": made, "sha256": 64 * "0"})
    headers = {"weights": {"voxlate": made}, "calibration": {"calibration": stamped}}
    if kind in headers:
        write_tensors(path, {}, headers[kind])
    else:
        write_json(path, {"voxlate": version} | (RUN if kind == "run" else {}))
    return path


@every_row(
    "kind, read",
    [
        ("weights", read_header),
        ("calibration", read_calibration),
        ("images", read_provenance),
        ("run", read_run),
        ("scores", read_scores),
    ],
)
def test_files_of_versions_before_0_7_are_refused(tmp_path, kind, read):
    with refuses(r"version 0\.6\b"):
        read(of_version(tmp_path / kind, kind, "0.6.0"))


@every_row("version", ["0.7.0", "0.7.0.dev1", "0.10.2", "1.0", "local", ""])
def test_files_of_other_versions_are_read(tmp_path, version):
    assert read_run(of_version(tmp_path / "run", "run", version)) == {"voxlate": version} | RUN


@every_row("change", [{"more": 1}, {"grade": "good"}, {"text": 1}])
def test_a_message_in_a_provenance_has_its_own_keys_alone(change, tmp_path):
    said = {"code": "guess", "grade": "note", "text": "A."} | change
    write_json(tmp_path / "made.json", {"warnings": [said]})
    with refuses(f"at 'warnings.0.{next(iter(change))}'"):
        read_provenance(tmp_path / "made.json")


def places_of(value, before=()):
    """Every place in tables within tables, as their keys."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (*before, key)
        yield from places_of(inner, (*before, key))


@every_row("place", [*places_of(RUN)])
def test_no_value_of_another_type_in_the_provenance_of_a_run_is_read(tmp_path, place):
    for odd in (True, [[1]], {"a": [1]}):
        stated = copy.deepcopy(RUN)
        functools.reduce(dict.__getitem__, place[:-1], stated)[place[-1]] = odd
        write_json(tmp_path / "provenance.json", stated)
        if odd == {"a": [1]} and place in OPEN:
            assert read_run(tmp_path / "provenance.json") == stated
            continue
        with refuses("expected the provenance of a training"):
            read_run(tmp_path / "provenance.json")


LINE = {"stage": "final", "step": 1, "turn": "net", "loss": {"total": 0.5}}


def test_half_a_line_of_a_log_is_left_out(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(f'{json.dumps(LINE)}\n{{"stage": "fi')
    assert [line for _, line in lines_of(log)] == [LINE]


@every_row(
    "change",
    [
        {"inputs": {"t1": {"path": "a\0b"}}},
        {"images": {"../t2.nii.gz": "0"}},
        {"synth": {"samples": 0}},
        {"axes": "XYZ"},
        {"calibration": {"coverage": "0.9"}},
        {"warnings": "none"},
    ],
)
def test_provenance_of_an_image_in_another_form_is_refused(tmp_path, change):
    write_json(tmp_path / "provenance.json", {"case": "a"} | change)
    with refuses("expected the provenance of a synthesis"):
        read_provenance(tmp_path / "provenance.json")


def test_scores_that_were_changed_or_have_another_form_are_refused(tmp_path):
    made_scores({"ct": {"synthesis": {"mae": [2.0, 3.0]}}}).write(tmp_path)
    path, table = tmp_path / "metrics.json", tmp_path / "scores.csv"
    assert read_scores(path).means["ct"]["synthesis"]["mae"]["mean"] == 2.5
    whole, document = table.read_text(), read_json(path)
    table.write_text(whole.replace("2.0", "1.0"))
    with refuses("checksum"):
        read_scores(path)
    table.write_text(whole)
    path.write_text(path.read_text().replace("body", "whole"))
    with refuses("checksum"):
        read_scores(path)
    del document["modalities"]["ct"]["own_peak"]
    write_json(path, document)
    with refuses("expected scores as voxlate writes it"):
        read_scores(path)
