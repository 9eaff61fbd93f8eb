"""A new file format is one object in the registry: everything that reads, writes and finds images then knows it."""

from pathlib import Path

import numpy as np
import pytest

from voxlate.base.errors import BadInput
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.formats import io
from voxlate.scans.formats.format import Format, Stored
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def _read(path: Path) -> Stored:
    with path.open("rb") as file:
        shape = [int(length) for length in file.readline().split()]
        return Stored(np.frombuffer(file.read(), np.float32).reshape(shape), AFFINE)


def _write(path: Path, volume: Volume, description: str) -> None:
    values = volume.data[0]
    path.write_bytes(" ".join(map(str, values.shape)).encode() + b"\n" + values.tobytes())


@pytest.fixture
def raw_format(monkeypatch) -> Format:
    raw = Format("raw", _read, endings=(".raw.bin",), written_endings=(".raw.bin",), write=_write)
    monkeypatch.setattr(io, "FORMATS", (*io.FORMATS, raw))
    return raw


def _volume(modality: str, seed: int) -> Volume:
    data = np.random.default_rng(seed).normal(100, 20, (1, 3, 4, 5)).astype(np.float32)
    return Volume(data, AFFINE, "a.u.", modality)


def test_a_registered_format_is_found_in_a_cohort_and_read(tmp_path, raw_format):
    for case in ("anna", "ben"):
        for seed, modality in enumerate(("t1", "t2")):
            write_volume(tmp_path / case / f"{modality}.raw.bin", _volume(modality, seed))
    cases = find_cohort(tmp_path).cases
    files = [[one.case, *sorted(one.files)] for one in cases]
    assert files == [["anna", "t1", "t2"], ["ben", "t1", "t2"]]
    volume = read_volume(cases[1].files["t2"], "t2")
    np.testing.assert_array_equal(volume.data, _volume("t2", 1).data)
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.unit == "a.u."


def test_a_registered_format_is_named_in_a_manifest(tmp_path, raw_format):
    write_volume(tmp_path / "scan.raw.bin", _volume("t1", 0))
    (tmp_path / "cases.csv").write_text("case,t1\nanna,scan.raw.bin\n")
    assert find_cohort(tmp_path).cases[0].files == {"t1": tmp_path / "scan.raw.bin"}


def test_without_its_registration_the_format_is_unknown(tmp_path):
    _write(tmp_path / "t1.raw.bin", _volume("t1", 0), "")
    with pytest.raises(BadInput):
        read_volume(tmp_path / "t1.raw.bin")
    with pytest.raises(BadInput):
        write_volume(tmp_path / "t1.raw.bin", _volume("t1", 0))
    with pytest.raises(BadInput):
        find_cohort(tmp_path)


@pytest.mark.parametrize("one", io.FORMATS, ids=lambda one: one.name)
def test_each_format_writes_only_endings_that_it_reads_and_no_two_formats_share_an_ending(
    one,
):
    assert set(one.written_endings) <= set(one.all_endings)
    assert bool(one.written_endings) == (one.write is not None)
    assert (one.read_part is None) == (one.is_part is None)
    others = {ending for other in io.FORMATS if other is not one for ending in other.all_endings}
    assert not set(one.all_endings) & others
