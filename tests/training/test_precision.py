"""The precision "auto": bfloat16 where the machine multiplies it, kept by a run."""

import pytest
import torch

from rows import every_row
from voxlate.base.machine import cache_folder
from voxlate.training import precision, recipe
from voxlate.training.weights import read_header

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """machine(has): from now on the processor multiplies bfloat16, or not."""

    def be(has):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: has)

    return be


@pytest.mark.parametrize(
    ("amx", "avx512", "limit", "has"),
    [
        (True, False, "ALL", True),
        (False, True, "avx512_core_bf16", True),
        (False, False, "ALL", False),
        (True, True, "avx2", False),
    ],
)
def test_a_processor_multiplies_bfloat16_by_its_instructions_within_the_limit_of_onednn(
    monkeypatch, amx, avx512, limit, has
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision.multiplies_bfloat16() == has
    assert precision.choose(CPU)[0] == ("bfloat16" if has else "float32")


@every_row(
    "variables, folder",
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/voxlate"),
        ({"XDG_CACHE_HOME": "here/x"}, "/home/me/.cache/voxlate"),
        ({}, "/home/me/.cache/voxlate"),
        ({"VOXLATE_CACHE": "/own", "XDG_CACHE_HOME": "/x"}, "/own"),
    ],
)
def test_the_cache_folder_is_in_that_of_the_user(monkeypatch, variables, folder):
    for name in ("VOXLATE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder().as_posix() == folder


@every_row(
    "device, capability, chosen",
    [("cuda", (9, 0), "bfloat16"), ("cuda", (7, 5), "float32"), ("mps", (0, 0), "float32")],
)
def test_a_gpu_computes_in_bfloat16_where_it_is_native_and_tested(
    monkeypatch, device, capability, chosen
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.choose(torch.device(device))[0] == chosen


def test_a_run_states_the_precision_it_found_and_keeps_it_on_another_machine(
    read_tiny, fit, machine
):
    machine(True)
    said = []
    auto = read_tiny(precision="auto", steps=1)
    run = fit(auto, say=lambda message: said.append(str(message)))
    header = read_header(run.weights())
    assert header["recipe"]["train"]["precision"] == "bfloat16"
    said = [text for text in said if "bfloat16" in text]
    assert said == [f"train.precision: {precision.choose(CPU)[1]}."]
    machine(False)
    weights = run.weights().read_bytes()
    assert fit(auto) == run, "another precision would be another run"
    assert run.weights().read_bytes() == weights
    assert recipe.read(str(run.recipe)).train.precision == "bfloat16"


@every_row(
    "trained, asked, has, drawn",
    [
        ("float32", "auto", True, "float32"),  # never less exact than the training
        ("bfloat16", "auto", True, "bfloat16"),
        ("bfloat16", "auto", False, "float32"),
        ("float32", "bfloat16", False, "bfloat16"),
        ("bfloat16", "float32", True, "float32"),
    ],
)
def test_a_synthesis_in_auto_is_as_exact_as_the_training_or_more(
    read_tiny, machine, trained, asked, has, drawn
):
    machine(has)
    chosen = read_tiny({"synth.precision": asked}, precision=trained)
    assert precision.of_synthesis(chosen, CPU) == drawn
    assert precision.of_synthesis(read_tiny({"synth.exact": "true"}), CPU) == "float32"
