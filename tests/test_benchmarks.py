"""Benchmarks give known answers, and the one for a GPU runs on a CPU, so that it works on the day it is needed."""

import json
import sys
from collections import Counter
from pathlib import Path

import torch

import bench_gpu
from rows import slow

ROOT = Path(__file__).parents[1]


def test_no_two_modules_on_the_path_have_one_name():
    folders = ("benchmarks", "docs", "fuzz", "release", "tests")
    paths = [path for name in folders for path in (ROOT / name).rglob("*.py")]
    stems = Counter(path.stem for path in paths if path.stem != "conftest")
    assert set(stems.values()) == {1}


@slow
def test_the_gpu_benchmark_runs_on_a_tiny_network_and_writes_every_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = "bench_gpu.py --device cpu --quick --out gpu.json"
    monkeypatch.setattr(sys, "argv", line.split())
    assert bench_gpu.main() == 0
    report = json.loads(Path("gpu.json").read_text())
    assert report["wrong"] == {}
    (row,) = report["recipes"].values()
    assert (
        row["forward_share"] > 0
    )  # of a peak that is measured, too, on a machine that may be busy
    assert row["step_gib"] > 0
    assert report["volume"]["seconds"] > 0


def test_a_kernel_that_is_wrong_in_bfloat16_is_found(monkeypatch):
    call = bench_gpu.Call("conv2d", (torch.Size([1, 2, 5, 5]), torch.Size([3, 2, 3, 3]), None), ())
    assert bench_gpu.error_of(call, torch.device("cpu")) < bench_gpu.BOUND
    right = torch.conv2d

    def wrong(x, weight, bias):
        found = right(x, weight, bias)
        return found * 1.1 if x.dtype == torch.bfloat16 else found

    monkeypatch.setitem(bench_gpu.KERNELS, "conv2d", wrong)
    assert bench_gpu.error_of(call, torch.device("cpu")) > bench_gpu.BOUND
