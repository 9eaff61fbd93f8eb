"""The benchmark for a GPU runs: on a CPU, where there is time for it, so that it works on the day it is needed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench_gpu

    return bench_gpu


def test_the_gpu_benchmark_runs_on_a_tiny_network_and_writes_every_part(
    bench_gpu, tmp_path, monkeypatch
):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(
        sys, "argv", ["bench_gpu.py", "--device", "cpu", "--quick", "--out", str(out)]
    )
    assert bench_gpu.main() == 0
    report = json.loads(out.read_text())
    assert report["wrong"] == {}
    (row,) = report["recipes"].values()
    assert 0 < row["forward_share"] < 1
    assert row["step_gib"] > 0
    assert report["volume"]["seconds"] > 0


def test_a_kernel_that_is_wrong_in_bfloat16_is_found(bench_gpu, monkeypatch):
    call = bench_gpu.Call("conv2d", (torch.Size([1, 2, 5, 5]), torch.Size([3, 2, 3, 3]), None), ())
    assert bench_gpu.error_of(call, torch.device("cpu")) < bench_gpu.BOUND
    right = torch.conv2d

    def wrong(x, weight, bias):
        found = right(x, weight, bias)
        return found * 1.1 if x.dtype == torch.bfloat16 else found

    monkeypatch.setitem(bench_gpu.KERNELS, "conv2d", wrong)
    assert bench_gpu.error_of(call, torch.device("cpu")) > bench_gpu.BOUND


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(bench_gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py"])
    assert bench_gpu.main() == 2
    assert "expected a GPU, found none" in capsys.readouterr().out


@pytest.fixture
def realism(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import realism

    return realism


def test_the_power_of_white_noise_is_the_same_at_all_frequencies(realism):
    noise = np.random.default_rng(0).standard_normal((20, 128, 128))
    mean_db = np.mean([realism.spectrum(level) for level in noise], axis=0)
    assert mean_db[1:] == pytest.approx(
        0, abs=0.5
    )  # the first ring holds the mean, which is removed
    assert realism.spectrum(5 + 3 * noise[0]) == pytest.approx(realism.spectrum(noise[0]))


def test_realism_runs_on_phantoms_alone(realism, tmp_path, monkeypatch):
    monkeypatch.setattr(realism, "SIZE", (32, 36, 6))
    monkeypatch.setattr(sys, "argv", ["realism.py", str(tmp_path), "--cases", "1"])
    assert realism.main() == 0
    report = json.loads((tmp_path / "realism.json").read_text())
    assert report["scans"]["ct"] == {"phantoms": 1, "real": 0}
    assert sum(report["curves"]["t2"]["phantoms"]["histogram"][1]) == pytest.approx(1, abs=0.01)
    assert (tmp_path / "realism.png").stat().st_size > 10_000
