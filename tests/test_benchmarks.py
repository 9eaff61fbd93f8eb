"""Benchmarks give known answers."""

from collections import Counter
from pathlib import Path

import torch

import bench_gpu
from rows import slow
from voxlate.training.recipe import read

ROOT = Path(__file__).parents[1]


def test_no_two_modules_on_the_path_have_one_name():
    folders = ("benchmarks", "docs", "fuzz", "release", "tests")
    paths = [path for name in folders for path in (ROOT / name).rglob("*.py")]
    stems = Counter(path.stem for path in paths if path.stem != "conftest")
    assert set(stems.values()) == {1}


@slow
def test_a_step_of_a_tiny_network_is_timed_and_its_kernels_are_right():
    tiny = {"net.width": "8", "net.multipliers": "[1, 2]", "net.head_width": "8"}
    tiny |= {"data.patch": "[1, 32, 32]", "train.batch": "2"}
    row = bench_gpu.measured(read("mr_to_ct_ddpm", tiny), torch.device("cpu"), 1e12, 1)
    assert row["kernels"] > 5
    assert row["wrong"] == {}
    assert row["share"] > 0


def test_a_kernel_that_is_wrong_in_bfloat16_is_found(monkeypatch):
    call = bench_gpu.call_of("conv2d", torch.ones(1, 2, 5, 5), torch.ones(3, 2, 3, 3), None)
    assert bench_gpu.error_of(call, torch.device("cpu")) < bench_gpu.BOUND
    right = torch.conv2d

    def wrong(x, weight, bias):
        found = right(x, weight, bias)
        return found * 1.1 if x.dtype == torch.bfloat16 else found

    monkeypatch.setitem(bench_gpu.KERNELS, "conv2d", wrong)
    assert bench_gpu.error_of(call, torch.device("cpu")) > bench_gpu.BOUND
