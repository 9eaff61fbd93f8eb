"""Reading a long DICOM series takes about the time of SimpleITK."""

from pathlib import Path

import pytest

pytest.importorskip("pydicom")
pytest.importorskip("SimpleITK")


@pytest.mark.slow
def test_200_slices_are_read_in_at_most_twice_the_time_of_simpleitk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import bench_dicom

    bench_dicom.write_series(tmp_path, 200, 512)
    ours, theirs = bench_dicom.compare(tmp_path, 3)
    assert ours < 2 * theirs  # the aim is 1.5, and other processes may run
