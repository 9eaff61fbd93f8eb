"""A 3-D network as a candidate of a plan: when it is tried, when it is chosen, and its training and synthesis."""

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from test_rules import facts, scan

import voxlate as package
from rows import every_row
from voxlate.cases.prepare import prepare
from voxlate.cases.prepared import open_cohort
from voxlate.images.tiling import SlicePlan
from voxlate.planning import law, rules
from voxlate.planning.facts import facts_of
from voxlate.planning.plan import Plan, plan_training
from voxlate.planning.probe import Measured, Probe
from voxlate.planning.roles import roles_of
from voxlate.planning.rules import Size
from voxlate.planning.search import BATCHES, CUBE_BATCHES, CUBE_MINUTES, WIDTHS
from voxlate.system.errors import BadInput

SIDE = 16  # of cubes, small enough for a training in seconds
LIMIT = 2**20 * 300  # bytes; in batches of 1 all 3-D networks of `machine` fit
PAYS = 1e-3  # law.CUBE_LATE where 3-D networks learn at once
SLOW, FAST = 60.0, 1e-2  # times the seconds of a step with slices


@pytest.fixture(scope="module")
def heads(tmp_path_factory, small_head):
    """Six heads of 18 slices, and the prepared cohort."""
    folder = tmp_path_factory.mktemp("cubes")
    for number in range(6):
        small_head(folder / "scans" / f"case{number}", number, shape=(20, 24, 18))
    prepare(folder / "scans", folder / "prepared", workers=0, audit=False, shares=(4, 1, 1))
    return folder


def seconds_of(size: Size, factor: float) -> float:
    """Of a step on the machine of `machine`."""
    return 1e-5 * size.width**2 * size.batch * (factor if size.cube else 1)


def bytes_of(size: Size) -> float:
    return 2**20 * size.width * (2 * size.batch if size.cube else 1)


@pytest.fixture
def machine(monkeypatch):
    """machine(gpu, factor): plans see a machine with or without a GPU whose 3-D steps take so many times longer.

    Where they are fast, 3-D networks learn at once; by the measured law no time of these tests suffices.
    """
    monkeypatch.setattr(rules, "CUBE", SIDE)
    monkeypatch.setattr(rules, "most_items", lambda *_, **__: 10**9)

    def install(gpu: bool, factor: float) -> list[Size]:
        tried: list[Size] = []
        if factor == FAST:
            monkeypatch.setattr(law, "CUBE_LATE", PAYS)

        def measure(probe: Probe, tables: Any, stage: int, steps: int = 3) -> Measured | None:
            patch, net = tables["data"]["patch"], tables["net"]
            cube = patch[0] if patch[0] > 1 else 0
            size = Size(net["width"], net.get("patch", 1), tables["train"]["batch"], cube)
            tried.append(size)
            if bytes_of(size) > probe.limits.memory_bytes:
                return None
            probe.most = max(probe.most, bytes_of(size))
            return Measured(seconds_of(size, factor), bytes_of(size))

        monkeypatch.setattr(Probe, "measure", measure)
        monkeypatch.setattr(Probe, "again", lambda _, tables, seconds: seconds)
        monkeypatch.setattr(Probe, "has_gpu", gpu)
        monkeypatch.setattr(Probe, "has_time", True)
        monkeypatch.setattr(Probe, "probe_seconds", 0.0)
        return tried

    return install


def planned(heads, **options: Any) -> Plan:
    usual = {"minutes": 4, "memory_bytes": LIMIT, "mode": "mean", "from_scratch": True}
    return plan_training(heads / "prepared", **{**usual, **options})


def test_a_gpu_with_fast_steps_in_3d_gets_the_3d_network_of_least_predicted_error(heads, machine):
    tried = machine(gpu=True, factor=FAST)
    plan = planned(heads)
    known = facts_of(open_cohort(heads / "prepared"))

    def error(size: Size) -> float:
        steps = int(4 * 60 * 0.96 / seconds_of(size, FAST))
        if size.cube:
            return law.relative_error_of_cubes(size.width, size.batch, steps)
        return law.relative_error(size.width, size.stem * known.pixel_mm, size.batch, steps)

    every = [Size(w, stem, b) for stem in rules.stems(known) for w in WIDTHS for b in BATCHES]
    every += [Size(w, 1, b, SIDE) for w in WIDTHS for b in CUBE_BATCHES]
    best = min((size for size in every if bytes_of(size) <= LIMIT), key=error)
    assert best.cube
    tables = plan.tables
    assert tables["data"]["patch"] == [SIDE] * 3
    assert tables["net"]["kernel"] == "3x3x3"
    assert (tables["net"]["width"], tables["train"]["batch"]) == (best.width, best.batch)
    assert not tables["data"].keys() & {"stack", "planes"}
    assert "slices" not in tables["synth"]
    assert plan.why["3-D"] == f"chosen; its step needs {bytes_of(best) / 2**30:.2f} GiB"
    assert f"{best} gets" in plan.why["net.width"]
    assert plan.memory <= LIMIT
    assert len(tried) < 16


def test_a_gpu_whose_3d_steps_are_slow_keeps_slices_and_states_error_time_and_memory(
    heads, machine
):
    machine(gpu=True, factor=SLOW)
    plan = planned(heads)
    assert plan.tables["data"]["patch"][0] == 1
    said = plan.why["3-D"]
    assert f"cubes of {SIDE} voxels" in said
    assert "s) +" in said
    smallest = Size(WIDTHS[0], 1, CUBE_BATCHES[0], SIDE)
    memory = f"{bytes_of(smallest) / 2**30:.2f} GiB"
    assert said.startswith(f"{smallest} (")
    assert said.endswith(f"% predicted error, {memory}")
    wider = planned(heads, minutes=4000).why["3-D"]
    assert not wider.startswith(f"{smallest} (")
    assert wider.endswith(f"its time follows from that of {smallest}, which needs {memory}")


def test_four_minutes_of_a_cpu_try_no_3d_network_and_say_from_when_on_one_is_tried(heads, machine):
    tried = machine(gpu=False, factor=FAST)
    plan = planned(heads)
    assert not any(size.cube for size in tried)
    assert (
        plan.why["3-D"]
        == f"left out, because without a GPU they are tried from --minutes {CUBE_MINUTES} on, or with --dims 3"
    )
    assert plan.tables["data"]["patch"][0] == 1
    assert planned(heads, minutes=CUBE_MINUTES).tables["data"]["patch"][0] == SIDE


def test_a_3d_network_beyond_the_memory_is_left_out(heads, machine):
    tried = machine(gpu=True, factor=FAST)
    plan = planned(heads, memory_bytes=2**20 * 20)  # the smallest 3-D network needs 32 MiB
    assert sum(size.cube > 0 for size in tried) == 1
    assert plan.tables["data"]["patch"][0] == 1
    limit = f"{20 / 2**10:.2f} GiB"
    reason = f"left out, because the smallest one needs more memory than {limit}"
    assert plan.why["3-D"] == reason


def test_dims_decides_whatever_the_machine(heads, machine):
    machine(gpu=False, factor=SLOW)
    in_3d = planned(heads, dims=3)
    assert in_3d.tables["data"]["patch"] == [SIDE] * 3
    assert in_3d.why["3-D"].startswith("chosen by --dims 3, without a comparison; its step needs")
    machine(gpu=True, factor=FAST)
    in_2d = planned(heads, dims=2)
    assert in_2d.tables["data"]["patch"][0] == 1
    assert in_2d.why["3-D"] == "left out, because --dims 2 asks for slices"


def test_two_stages_take_slices_and_refuse_dims_3(heads, machine):
    machine(gpu=True, factor=FAST)
    plan = planned(heads, mode="both")
    assert plan.tables["stages"]
    assert plan.tables["data"]["patch"][0] == 1
    reason = "a second stage takes slices (--mode mean has none)"
    assert plan.why["3-D"] == f"left out, because {reason}"
    with pytest.raises(BadInput, match="--dims: expected a training that 3-D patches fit, found"):
        planned(heads, mode="both", dims=3)


def test_the_law_of_3d_networks_gives_the_ratios_that_were_measured():
    planes = law.relative_error(16, 2.0, 4, 592)
    assert law.relative_error_of_cubes(16, 2, 90) / planes == pytest.approx(
        0.0779 / 0.0407, rel=0.01
    )
    assert law.relative_error_of_cubes(16, 2, 171) / planes == pytest.approx(
        0.0690 / 0.0407, rel=0.01
    )


CUBES = {"shape": (60, 64, 56), "box": (50, 60, 50)}


@every_row(
    ("known", "reason"),
    [
        (facts(**CUBES), ""),
        (facts(**CUBES, spacing=(2, 1, 1)), "differ by a factor of 2, more than 1.5"),
        (
            facts(**{**CUBES, "shape": (40, 64, 56)}),
            "shortest side of a case is 40 voxels, below the 48",
        ),
        (facts(scan("t1"), scan("t2"), scan("flair"), **CUBES), "single slices"),
    ],
)
def test_only_pairs_of_deep_volumes_of_nearly_cubic_voxels_are_learned_in_3d(known, reason):
    found = rules.reason_against_cubes(known, roles_of(known), mean_alone=True)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_step_shows_the_voxels_of_its_cubes_in_slices():
    known = facts(shape=(96, 96, 96), box=(90, 90, 90))
    assert rules.shown(known, Size(16, 1, 4)) == 4
    assert rules.shown(known, Size(16, 1, 2, 48)) == 2 * 48**3 / 96**2
    steps = 300
    of_cubes = rules.first_stage(known, roles_of(known), Size(16, 1, 2, 48), steps)
    assert of_cubes.passes == steps * 24 / (96 * 8)
    assert of_cubes.data["patch"] == [48, 48, 48]
    assert (
        of_cubes.tables["net"]["depth_halvings"] == len(of_cubes.tables["net"]["multipliers"]) - 1
    )


@pytest.mark.slow
def test_a_planned_3d_network_trains_and_synthesises_alike_in_any_batch_and_order_of_patches(
    heads, machine, voxlate, tmp_path, monkeypatch
):
    machine(gpu=False, factor=FAST)
    run = tmp_path / "run"
    options = ("--mode", "mean", "--dims", 3, "--minutes", 4, "--memory", "64MB")
    keys = ("--set", "train.steps=10", "--set", "train.precision=float32", "--set", "net.width=8")
    trained = voxlate("train", "auto", "--data", heads / "prepared", "--out", run, *options, *keys)
    assert trained.done()
    assert package.load(run).recipe.data.patch == (SIDE, SIDE, SIDE)

    def images(name: str, *more) -> np.ndarray:
        out = tmp_path / name
        assert voxlate("synth", run, heads / "scans" / "case0", "--out", out, *more).done()
        (path,) = out.rglob("t2.nii.gz")
        return np.asarray(nib.load(path).dataobj)

    one = images("one", "--batch", 1)
    assert one.shape == (20, 24, 18)
    assert np.ptp(one) > 100
    together = images("together", "--batch", 4)
    forward = SlicePlan.starts
    monkeypatch.setattr(SlicePlan, "starts", lambda plan: forward(plan)[::-1])
    backward = images("backward", "--batch", 1)
    assert len(forward(plan_of(package.load(run).recipe, one.shape[::-1]))) == 8
    for other in (together, backward):
        np.testing.assert_allclose(other, one, atol=1e-3 * np.ptp(one))


def plan_of(recipe, shape) -> SlicePlan:
    """The patches of a volume of this shape."""
    return recipe.synth.slices.plan(shape, recipe.data.patch, recipe.synth.overlap)
