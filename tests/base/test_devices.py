"""Which device is taken, what it lacks, and what is measured on it: for kinds that this machine may not have."""

import os
import subprocess
import sys

import pytest
import torch

from refusals import refuses
from rows import every_row
from voxlate.base import devices, machine
from voxlate.base.devices import find_device, is_out_of_memory
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training import train
from voxlate.training.planning import probe
from voxlate.training.planning.probe import Probe
from voxlate.training.recipe import read

GIB = 2**30


@pytest.fixture
def has(monkeypatch):
    """has("cuda", 2): a machine with so many devices of a kind."""

    def give(kind="cuda", count=0):
        monkeypatch.setattr("torch.accelerator.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.accelerator.device_count", lambda: count)
        monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: torch.device(kind))

    return give


@every_row("kind", ["cuda", "mps", "xpu"])
def test_auto_takes_what_there_is_and_a_gpu_may_be_named_by_its_number(has, kind):
    has(kind, 2)
    for name, found in (("auto", kind), (kind, kind), (f"{kind}:1", f"{kind}:1"), ("cpu", "cpu")):
        assert str(find_device(name)) == found
    for absent in (f"{kind}:9", f"{kind}:-1", "gpu"):
        with refuses(rf"\(cpu, {kind}, {kind}:0, {kind}:1\), found '{absent}'"):
            find_device(absent)
    has()
    assert str(find_device("auto")) == "cpu"


def test_a_training_on_another_device_than_the_last_one_is_no_error(has):
    has("cuda", 1)
    accelerator, device = train.processes("cuda")
    assert str(device) == "cuda"
    # accelerate keeps the first one for the whole process
    assert accelerator.device == torch.device("cpu")
    has("mps", 1)
    for name, found in (("auto", "mps"), ("cpu", "cpu")):
        assert str(train.processes(name)[1]) == found


def test_several_processes_cannot_share_mps(has, monkeypatch):
    has("mps", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refuses("found mps"):
        train.processes("auto")


def test_memory_that_is_free_and_that_was_taken_is_known_of_every_kind(monkeypatch):
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(f"torch.{kind}.mem_get_info", lambda device: (3 * GIB, 8 * GIB))
        monkeypatch.setattr(f"torch.{kind}.max_memory_reserved", lambda device: 2 * GIB)
        assert devices.free_memory(torch.device(kind)) == 3 * GIB
        assert devices.peak_memory(torch.device(kind)) == 2 * GIB
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: 10 * GIB)
    monkeypatch.setattr("torch.mps.driver_allocated_memory", lambda: 4 * GIB)
    for free in (5, 7):  # of the machine, whose memory MPS shares
        monkeypatch.setattr(machine, "free_memory", lambda free=free: free * GIB)
        assert devices.free_memory(torch.device("mps")) == min(free, 6) * GIB
        assert devices.free_memory(torch.device("cpu")) == free * GIB
    assert devices.peak_memory(torch.device("mps")) == 4 * GIB


@every_row(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.50 GB, max allowed: 20.40 GB)."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_what_memory_does_not_suffice_for_is_known_on_every_device(error):
    assert is_out_of_memory(error)


def test_a_network_for_which_memory_does_not_suffice_is_passed_over(prepared, tiny, monkeypatch):
    errors = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), MemoryError()]

    def raising(*_):
        raise errors.pop()

    monkeypatch.setattr(probe, "take_step", raising)
    tried = Probe(open_cohort(prepared), 1, "cpu", 1e12)
    made = read(str(tiny))
    assert tried.measure(made, 0) is None
    with pytest.raises(RuntimeError, match="mat1"):  # another error is none of memory
        tried.measure(made, 0)


def test_networks_are_compiled_only_where_there_is_a_compiler(monkeypatch):
    def compiled(command, package):
        monkeypatch.setattr("shutil.which", lambda name: command if name == command else None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: package)
        kinds = ("cpu", "cuda", "xpu", "mps")
        return [name for name in kinds if devices.can_compile(torch.device(name))]

    assert compiled(None, None) == []
    assert compiled("clang++", None) == ["cpu"]
    assert compiled("clang++", "triton") == ["cpu", "cuda", "xpu"]


def test_torch_is_told_to_fall_back_to_the_cpu_before_it_is_imported():
    name = "PYTORCH_ENABLE_MPS_FALLBACK"
    look = f"import voxlate, os, sys; print(os.environ[{name!r}], 'torch' in sys.modules)"
    before = {key: value for key, value in os.environ.items() if key != name}
    for given, said in ({}, "1 False"), ({name: "0"}, "0 False"):
        command = [sys.executable, "-c", look]
        assert subprocess.check_output(command, env=before | given, text=True).strip() == said
