"""Which device is taken, what it lacks, and what is measured on it: for kinds that this machine may not have."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from rows import every_row
from voxlate.base import devices, machine
from voxlate.base.devices import find_device, is_out_of_memory
from voxlate.base.errors import BadInput
from voxlate.scans.cases.prepared import open_cohort
from voxlate.training import job, train
from voxlate.training.planning import probe
from voxlate.training.planning.probe import Limits, Probe
from voxlate.training.recipe import read, to_dict

GIB = 2**30


@pytest.fixture
def has(monkeypatch):
    """has(cuda=2, mps=1, xpu=0): a machine with so many devices."""

    def give(cuda=0, mps=0, xpu=0):
        for kind, count in {"cuda": cuda, "xpu": xpu}.items():
            monkeypatch.setattr(f"torch.{kind}.is_available", lambda count=count: count > 0)
            monkeypatch.setattr(f"torch.{kind}.device_count", lambda count=count: count)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps > 0)

    return give


@every_row(
    ("there", "found"),
    [
        ({}, "cpu"),
        ({"xpu": 1}, "xpu"),
        ({"mps": 1}, "mps"),
        ({"mps": 1, "xpu": 1}, "mps"),
        ({"cuda": 1, "mps": 1, "xpu": 1}, "cuda"),
    ],
)
def test_auto_takes_cuda_then_mps_then_xpu_then_the_cpu(has, there, found):
    has(**there)
    assert find_device("auto") == torch.device(found)
    assert find_device("cpu") == torch.device("cpu")


def test_a_gpu_may_be_named_by_its_number(has):
    has(cuda=2)
    assert [str(find_device(name)) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
    for other in ("cuda:9", "cuda:-1", "gpu"):
        with pytest.raises(BadInput, match=r"\(cpu, cuda, cuda:0, cuda:1\), found"):
            find_device(other)
    has(xpu=2, mps=1)
    assert [str(find_device(name)) for name in ("xpu", "xpu:1", "mps")] == ["xpu", "xpu:1", "mps"]
    with pytest.raises(BadInput, match=r"\(cpu, mps, xpu, mps:0, xpu:0, xpu:1\), found 'cuda'"):
        find_device("cuda")


@pytest.mark.parametrize("name", ["xpu:1", "mps"])
def test_a_device_that_is_not_there_is_one_sentence(has, voxlate, prepared, tiny, tmp_path, name):
    has()
    answer = voxlate("train", tiny, "--data", prepared, "--out", tmp_path / "run", "--device", name)
    expected = "--device: expected auto or what this machine has (cpu), found"
    assert answer.refusal == f"voxlate: {expected} {name!r}. Choose one of these."
    assert not (tmp_path / "run").exists()


def test_a_training_on_another_device_than_the_last_one_is_no_error(has):
    has(cuda=1)
    accelerator, device = train.processes("cuda")
    assert str(device) == "cuda"
    assert accelerator.device == torch.device(
        "cpu"
    )  # accelerate keeps the first one for the whole process
    assert train.processes("cpu")[1] == torch.device("cpu")
    has(mps=1)
    assert train.processes("auto")[1] == torch.device("mps")
    assert train.processes("cpu")[1] == torch.device("cpu")


def test_several_processes_cannot_share_mps(has, monkeypatch):
    has(mps=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="found mps"):
        train.processes("auto")


@every_row(("device", "readers"), [("cpu", 0), ("cuda", 12), ("mps", 2), ("xpu", 12)])
def test_readers_run_ahead_of_every_gpu_and_of_no_cpu(monkeypatch, device, readers):
    monkeypatch.setattr(job, "cores", lambda: 16)
    assert job._readers(torch.device(device)) == readers
    assert job._readers(torch.device(device), 4) == min(readers, 3)
    monkeypatch.setattr(job, "cores", lambda: 1)
    assert job._readers(torch.device(device)) == min(readers, 1)


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


OUT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.50 GB, max allowed: 20.40 GB)."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    MemoryError(),
]


@every_row("error", OUT)
def test_a_network_for_which_memory_does_not_suffice_is_passed_over_on_every_device(
    prepared, tiny, monkeypatch, error
):
    errors = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), error]

    def raising(*_):
        raise errors[-1]

    assert is_out_of_memory(error)
    monkeypatch.setattr(probe, "take_step", raising)
    tried = Probe(open_cohort(prepared), Limits(1, 1e12), "cpu")
    assert tried.measure(to_dict(read(str(tiny))), 0) is None
    del errors[-1]
    with pytest.raises(RuntimeError, match="mat1"):  # another error is none of memory
        tried.measure(to_dict(read(str(tiny))), 0)


def test_networks_are_compiled_only_where_there_is_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not any(
        devices.can_compile(torch.device(name)) for name in ("cpu", "cuda", "xpu", "mps")
    )
    monkeypatch.setattr(
        "shutil.which", lambda name: "/usr/bin/clang++" if name == "clang++" else None
    )
    assert devices.can_compile(torch.device("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert devices.can_compile(torch.device("cuda"))
    assert not devices.can_compile(torch.device("mps"))


def test_what_mps_lacks_is_said_once_without_its_source(
    voxlate, run, cohort, tmp_path, monkeypatch
):
    from voxlate.science.methods.regression import Regression

    synthesise = Regression.synthesise

    def falling_back(*arguments):
        warnings.warn(
            "The operator 'aten::linalg_qr' is not currently supported on the MPS backend (at MPSFallback.mm:14.)",
            stacklevel=2,
        )
        return synthesise(*arguments)

    monkeypatch.setattr(Regression, "synthesise", falling_back)
    answer = voxlate("synth", run, cohort, "--out", tmp_path / "out").done()
    assert answer.err.count("aten::linalg_qr") == 1
    assert "MPSFallback" not in answer.err


def test_torch_is_told_to_fall_back_to_the_cpu_before_it_is_imported():
    name = "PYTORCH_ENABLE_MPS_FALLBACK"
    look = f"import voxlate, os, sys; print(os.environ[{name!r}], 'torch' in sys.modules)"
    before = {key: value for key, value in os.environ.items() if key != name}
    for given, said in ({}, "1 False"), ({name: "0"}, "0 False"):
        command, place = [sys.executable, "-c", look], {**before, **given}
        done = subprocess.run(command, env=place, capture_output=True, text=True)
        assert done.stdout.strip() == said, done.stderr
