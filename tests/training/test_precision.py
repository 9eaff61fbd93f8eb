"""The precision "auto": float32 unless bfloat16 is measured faster, measured once on a machine, kept by a run."""

import logging
import sys

import pytest
import torch

from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.training import precision, recipe
from voxlate.training.run import Run
from voxlate.training.weights import read_header

CPU = torch.device("cpu")
MACHINE = precision.this_machine()


@pytest.fixture
def fresh(monkeypatch, tmp_path_factory):
    """fresh(): from now on the cache folder is an empty one."""

    def empty():
        monkeypatch.setenv("VOXLATE_CACHE", str(tmp_path_factory.mktemp("fresh") / "cache"))
        precision.bfloat16_ratio.cache_clear()

    yield empty
    precision.bfloat16_ratio.cache_clear()


@pytest.fixture
def machine(fresh):
    """machine(ratio): from now on this is another machine, where bfloat16 takes so many times as long as float32."""

    def be(ratio):
        fresh()
        precision.keep_ratio(MACHINE, ratio)

    return be


@pytest.fixture
def probes(fresh, monkeypatch):
    """An empty cache folder; a list that grows by one with each probe, which finds bfloat16 twice as fast."""
    taken = []
    monkeypatch.setattr(precision, "measure_ratio", lambda: taken.append("probe") or 0.5)
    fresh()
    return taken


@every_row(
    "ratio, chosen", [(0.5, "bfloat16"), (0.9, "bfloat16"), (0.92, "float32"), (4.3, "float32")]
)
def test_bfloat16_is_taken_where_it_saves_a_tenth_of_the_time(machine, ratio, chosen):
    machine(ratio)
    found = precision.choose(CPU)
    assert found.precision == chosen
    why = f"a step in bfloat16 takes {ratio:.2g} times as long as in float32 here"
    assert found.why == f"{chosen}: {why}"


def test_the_probe_runs_once_on_a_machine_and_anew_on_another_or_in_another_version(
    probes, monkeypatch
):
    for _ in range(2):  # the second stands for another process
        assert precision.choose(CPU).precision == "bfloat16"
        precision.bfloat16_ratio.cache_clear()
    assert len(probes) == 1
    monkeypatch.setattr(torch, "__version__", "other")
    precision.choose(CPU)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    precision.choose(CPU)
    assert len(probes) == 3


OTHER_MACHINE = b'{"machine": {}, "bfloat16_over_float32": 0.1}'


@every_row("content", [b"", b"\xff\xfe", b"[1, 2]", b"{}", OTHER_MACHINE])
def test_a_cache_file_that_is_damaged_or_of_something_else_is_measured_anew(probes, fresh, content):
    fresh()
    path = precision.ratio_file(MACHINE)
    path.parent.mkdir()
    path.write_bytes(content)
    assert precision.bfloat16_ratio(MACHINE) == 0.5
    assert read_json(path)["bfloat16_over_float32"] == 0.5


def test_a_cache_folder_that_cannot_be_written_is_one_sentence_once(
    probes, monkeypatch, tmp_path, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VOXLATE_CACHE", str(tmp_path / "file/cache"))
    with caplog.at_level(logging.WARNING):
        assert [precision.choose(CPU).precision for _ in range(3)] == ["bfloat16"] * 3
    assert len(probes) == 1
    (said,) = caplog.messages
    assert str(tmp_path / "file/cache") in said
    assert "VOXLATE_CACHE" in said


@every_row(
    "system, variables, folder",
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/voxlate"),
        ("linux", {"XDG_CACHE_HOME": "here/x"}, "/home/me/.cache/voxlate"),
        ("linux", {}, "/home/me/.cache/voxlate"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/voxlate"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/voxlate/cache"),
        ("linux", {"VOXLATE_CACHE": "/own", "XDG_CACHE_HOME": "/x"}, "/own"),
    ],
)
def test_the_cache_folder_is_the_systems_own(monkeypatch, system, variables, folder):
    for name in ("VOXLATE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert precision.cache_folder().as_posix() == folder


@slow
def test_the_probe_ends_in_time_draws_no_random_number_and_leaves_the_threads():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():  # as in a synthesis
        ratio = precision.measure_ratio()
    assert 0.05 < ratio < 50
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), before)


@every_row(
    "device, capability, chosen",
    [("cuda", (9, 0), "bfloat16"), ("cuda", (7, 5), "float32"), ("mps", (0, 0), "float32")],
)
def test_a_gpu_computes_in_bfloat16_where_it_is_native_and_tested(
    monkeypatch, device, capability, chosen
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.choose(torch.device(device)).precision == chosen


def test_a_run_states_the_precision_it_found_and_keeps_it_on_another_machine(
    read_tiny, fit, machine
):
    machine(0.5)
    said = []
    auto = read_tiny(precision="auto", steps=1)
    run = fit(auto, say=lambda message: said.append(str(message)))
    header = read_header(run.weights())
    assert header["recipe"]["train"]["precision"] == "bfloat16"
    said = [text for text in said if "bfloat16" in text]
    assert said == [f"train.precision: {precision.choose(CPU).why}."]
    machine(2.0)
    weights = run.weights().read_bytes()
    assert fit(auto) == run, "another precision would be another run"
    assert run.weights().read_bytes() == weights
    assert recipe.read(str(run.recipe)).train.precision == "bfloat16"


def test_a_run_in_which_nothing_was_trained_keeps_no_precision(run):
    kept = Run(run)
    assert precision.stage_precisions(kept) == {"final": "float32"}
    for path in (kept.state, kept.weights()):
        path.unlink(missing_ok=True)
    assert precision.stage_precisions(kept) == {}
    assert precision.stage_precisions(Run(run / "nowhere")) == {}


@every_row(
    "trained, asked, ratio, drawn",
    [
        ("float32", "auto", 0.5, "float32"),  # never less exact than the training
        ("bfloat16", "auto", 0.5, "bfloat16"),
        ("bfloat16", "auto", 2.0, "float32"),
        ("float32", "bfloat16", 2.0, "bfloat16"),
        ("bfloat16", "float32", 0.5, "float32"),
    ],
)
def test_a_synthesis_in_auto_is_as_exact_as_the_training_or_more(
    read_tiny, machine, trained, asked, ratio, drawn
):
    machine(ratio)
    chosen = read_tiny({"synth.precision": asked}, precision=trained)
    assert precision.of_synthesis(chosen, CPU) == drawn
    assert precision.of_synthesis(read_tiny({"synth.exact": "true"}), CPU) == "float32"


def test_provenance_states_the_precision_of_an_image(voxlate, run, cohort, out):
    options = ("--device", "cpu", "--set", "precision=bfloat16")
    voxlate("synth", run, cohort / "case1", "--out", out, *options).done()
    assert read_json(out / "case1/provenance.json")["synth"]["precision"] == "bfloat16"
