"""Plans for a machine that is not at hand: operations are counted, their time is predicted."""

import math

import pytest
import torch
from torch import nn

from rows import every_row
from voxlate import plan
from voxlate.planning.other_machine import (
    CONTEXT_BYTES,
    KERNEL_SECONDS,
    REACHED,
    WORKSPACE,
    Cost,
    Elsewhere,
    count,
    machine_of,
)
from voxlate.recipe import read
from voxlate.system.errors import BadInput
from voxlate.system.files import read_json

SIDE, INS, OUTS = 16, 4, 8


def test_memory_and_rate_are_read_in_any_order_and_case():
    assert machine_of("24GB, 80 TFLOPS") == Elsewhere(24 * 2**30, 80e12)
    assert machine_of("1 PFLOP/s and 80 GiB") == Elsewhere(80 * 2**30, 1e15)
    assert machine_of("500mb 9.5tflops") == Elsewhere(500 * 2**20, 9.5e12)

    assert machine_of("A100-80GB, 312TFLOPS") == Elsewhere(80 * 2**30, 312e12)


UNREAD = ["24GB", "80 TFLOPS", "", "0GB, 80 TFLOPS", "24GB, 0 TFLOPS", "24GB, -80 TFLOPS"]
UNREAD += ["-24GB, 80 TFLOPS", "1e99GB, 80 TFLOPS", "24GB, 1e-9 TFLOPS", "24GB, 1,500 TFLOPS"]
BEYOND = ["99MB, 80 TFLOPS", "1025TB, 80 TFLOPS", "24GB, 0.009 TFLOPS", "24GB, 1001 PFLOPS"]


@every_row(
    ("texts", "words"),
    [(UNREAD, "a GPU's memory and its peak"), (BEYOND, "a GPU of 100 MB to 1 PB")],
)
def test_a_machine_without_memory_or_rate_or_beyond_any_gpu_is_refused_in_one_sentence(
    texts, words
):
    for text in texts:
        with pytest.raises(BadInput, match=f"--plan-for: expected {words}"):
            machine_of(text)


@pytest.fixture(scope="module")
def small(prepared_once):
    """The plan for a GPU of little memory."""
    return plan(prepared_once, minutes=5, mode="mean", plan_for="800MB, 40 TFLOPS")


def test_operations_and_bytes_of_a_convolution_are_those_of_its_formula():
    conv = nn.Conv2d(INS, OUTS, 3, padding=1, bias=False)
    image = torch.randn(1, INS, SIDE, SIDE)
    cost = count(
        lambda: conv(image).sum().backward(),
        sum(one.numel() for one in conv.parameters()),
        copies=5,
    )
    forward = 2 * SIDE**2 * 9 * INS * OUTS  # a multiplication and an addition for each tap
    assert (
        cost.flops == 2 * forward
    )  # the image needs no gradient, so that the kernel's is the only one
    assert cost.state_bytes == 5 * 4 * 9 * INS * OUTS
    assert cost.saved_bytes == 4 * SIDE**2 * INS  # the image; the kernel counts as state
    assert cost.kernels > 2


def test_time_is_that_of_operations_and_of_starting_them_and_memory_has_room_for_workspace():
    machine, cost = Elsewhere(2**30, 1e12), Cost(1e9, 100, 5.0, 7.0)
    assert machine.seconds(cost) == pytest.approx(1e9 / (REACHED * 1e12) + 100 * KERNEL_SECONDS)
    assert machine.memory(cost) == pytest.approx(CONTEXT_BYTES + WORKSPACE * 12)
    assert cost.of_batch(4) == Cost(4e9, 100, 5.0, 28.0), "operations and kept bytes alone"


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(BadInput, match="expected operations that can be counted, found 0"):
        count(lambda: torch.zeros(3), 0, copies=5)
    assert math.isfinite(count(lambda: torch.ones(2, 2) @ torch.ones(2, 2), 0, copies=5).flops)


def test_a_run_planned_for_another_machine_is_trained_where_it_is_copied_to(
    voxlate, prepared, small, tmp_path
):
    run = tmp_path / "run"
    options = ("train", "auto", "--data", prepared, "--out", run)
    planned = voxlate(*options, "--minutes", 0.02, "--mode", "mean", "--plan-for", "1GB, 1 TFLOPS")
    assert planned.code == 0, planned.err
    assert (
        f"Next, after copying {prepared} and {run} to the other machine:  voxlate train auto"
        in planned.out
    )
    assert {one.name for one in run.iterdir()} == {"recipe.toml", "plan.json"}
    assert "# Predicted for a machine with 1 GB and 1 TFLOPS: " in (run / "recipe.toml").read_text()
    assert read(str(run / "recipe.toml")).train.precision == "auto"  # the other machine's choice
    with pytest.raises(BadInput, match="expected an empty folder, found a plan there"):
        small.write_run(run)
    trained = voxlate(*options)
    assert trained.code == 0, trained.err
    first, *_ = read_json(run / "provenance.json")["corrections"]
    assert first["stage"] == "final"
    assert (run / "weights.safetensors").exists()
    with pytest.raises(BadInput, match=r"found a run\. Choose another --out"):
        small.write_run(run)


def test_memory_bounds_the_network_that_is_planned_for_another_machine(prepared, small):
    large = plan(prepared, minutes=5, mode="mean", plan_for="40GB, 40 TFLOPS")
    assert small.recipe.net.width < large.recipe.net.width


def test_only_auto_is_planned_for_another_machine(voxlate, prepared, tiny, tmp_path):
    answer = voxlate(
        "train", tiny, "--data", prepared, "--out", tmp_path / "run", "--plan-for", "1GB, 1 TFLOPS"
    )
    assert answer.code == 2
    assert "--plan-for: expected the recipe auto" in " ".join(answer.err.split())
