"""The commands that are disturbed, in the order in which each needs those before it, and what their results must equal."""

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import further
import kinds
from children import Child, command_line, strays
from structures import CHECKSUM, Packed

# Keys of values that depend on the clock, and checksums of tables that hold such values.
CLOCK = {"seconds", "items_per_s", "seconds_per_slice", "time", "seconds_per_step", "at"}
CLOCK |= {CHECKSUM, "sha256"}
# A folder whose file names hold the clock and the process.
TRACES = {"tensorboard"}


@dataclass(frozen=True)
class Scenario:
    """A command that is disturbed.

    The same command goes on after it, unless the file `last` is complete and `then` is to be run instead.
    """

    name: str
    command: tuple[str, ...]
    last: str = ""
    then: tuple[str, ...] = ()

    def again(self, work: Path, expected: Path) -> tuple[str, ...]:
        """The command that goes on in `work` towards the tree of an undisturbed run."""
        if (
            self.last
            and (work / self.last).is_file()
            and _equal(work / self.last, expected / self.last)
        ):
            return self.then
        return self.command


OF_DICOM = Scenario(
    "export of DICOM",
    ("export", "out/case0", "--dicom", "exported", "--like", "series"),
)
SYNTH = ("synth", "run", "cohort", "--samples", "2")
# Commands whose cases are in worker processes, of which one is killed; the first starts a Ray cluster of its own.
BY_RAY = Scenario(
    "synth by workers of Ray", (*SYNTH, "--executor", "ray", "--workers", "2", "--out", "by_ray")
)
BY_WORKERS = Scenario(
    "synth by 2 workers", (*SYNTH, "--executor", "local", "--workers", "2", "--out", "by_workers")
)
SCENARIOS = (
    Scenario("prepare", ("prepare", "cohort", "--out", "prepared")),
    Scenario(
        "train, predictor and residual",
        ("train", "residual.toml", "--data", "prepared", "--out", "run"),
    ),
    Scenario(
        "train, autoencoder and latents",
        ("train", "latent.toml", "--data", "prepared", "--out", "latent"),
    ),
    Scenario("train, opponent", ("train", "opponent.toml", "--data", "prepared", "--out", "gan")),
    Scenario("calibrate", ("calibrate", "run", "others", "--samples", "2")),
    Scenario("synth", (*SYNTH, "--out", "out")),
    BY_WORKERS,
    *((BY_RAY,) if find_spec("ray") else ()),
    Scenario("evaluate", ("evaluate", "out", "--truth", "cohort")),
    Scenario("report", ("report", "out")),
    Scenario("phantom", ("phantom", "--out", "heads", "--cases", "2", "--size", "16", "16", "8")),
    *((OF_DICOM,) if find_spec("pydicom") else ()),
)


def prepare_inputs() -> int:
    """Scans and recipes: three steps a stage, with a state after each."""
    kinds.write_scans()
    for name in ("residual", "latent", "opponent"):
        text = further.RECIPES[name].replace("steps = 1,", "steps = 3,")
        Path(f"{name}.toml").write_text(text)
    return 0


@dataclass(frozen=True)
class Event:
    """A change of the file system: its kind, its path, and the bytes of the disk in use before it."""

    kind: str
    path: str
    used_bytes: int


@dataclass(frozen=True)
class Undisturbed:
    """What an undisturbed command took and did."""

    seconds: float
    events: list[Event]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Undisturbed":
        return cls(stored["seconds"], [Event(**event) for event in stored["events"]])


def undisturbed(states: Path, work: Path, last: int) -> dict[str, Undisturbed]:
    """Run the first scenarios, and keep the tree before and after each in `states`."""
    runs = dict[str, Undisturbed]()
    reset(work)
    if Child(prepare_inputs, work).wait().code:
        raise SystemExit("expected to write the scans of a small cohort, found an error")
    shutil.copytree(work, states / "0")
    for number, scenario in enumerate(SCENARIOS[:last], start=1):
        runs[scenario.name] = observed(scenario, work)
        shutil.copytree(work, states / str(number))
    return runs


def observed(scenario: Scenario, work: Path) -> Undisturbed:
    """Run a command and note its file-system events."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:

        def note(number: int, kind: str, path: str) -> None:
            print(kind, used_bytes(work), path, sep="\t", file=file, flush=True)

        ended = Child(command_line(scenario.command), work, note).wait()
        if ended.code or strays(work):
            raise SystemExit(f"{scenario.name}: {ended.err}{strays(work)}")
        file.seek(0)
        lines = [line.split("\t") for line in file.read().splitlines()]
    return Undisturbed(ended.seconds, [Event(kind, path, int(used)) for kind, used, path in lines])


def used_bytes(folder: Path) -> int:
    """Bytes in use on the disk of a folder."""
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def reset(work: Path, state: Path | None = None) -> None:
    """Make a folder empty, or a copy of a state."""
    shutil.rmtree(work, ignore_errors=True)
    if state is None:
        work.mkdir(parents=True)
    else:
        shutil.copytree(state, work)


def differences(found: Path, expected: Path) -> list[str]:
    """Files that are in one tree only, or whose content differs in more than the clock."""
    names = set(_files(found)), set(_files(expected))
    one_sided = [f"{name} is too many" for name in names[0] - names[1]]
    one_sided += [f"{name} is missing" for name in names[1] - names[0]]
    both = names[0] & names[1]
    unequal = [f"{name} differs" for name in both if not _equal(found / name, expected / name)]
    return sorted(one_sided + unequal)


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and not TRACES & {*path.parts}:
            yield str(path.relative_to(folder))


def _equal(one: Path, other: Path) -> bool:
    first, second = one.read_bytes(), other.read_bytes()
    if first == second:
        return True
    try:
        return bool(_timeless(one, first) == _timeless(other, second))
    except Exception:  # a damaged file raises errors of many kinds
        return False


def _timeless(path: Path, whole: bytes) -> Any:
    """What a file states, without what depends on the clock."""
    if path.suffix == ".safetensors":
        file = Packed.of(whole)
        arrays = {name: (str(a.dtype), a.shape, a.tobytes()) for name, a in file.arrays.items()}
        return _plain(file.metadata), arrays
    if path.suffix == ".json":
        return _plain(json.loads(whole))
    if path.suffix == ".jsonl":
        return [_plain(json.loads(line)) for line in whole.decode().splitlines()]
    if path.suffix == ".dcm":
        dataset = importlib.import_module("pydicom").dcmread(path)
        flat = [one for one in dataset.iterall() if one.VR not in ("SQ", "DA", "TM", "DT")]
        return [(one.tag, one.value if one.VR == "OW" else str(one.value)) for one in flat]
    if path.suffix == ".pt":
        return _plain(torch.load(path, weights_only=True))
    return whole


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in CLOCK}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.shape, value.numpy().tobytes()
    if isinstance(value, str) and value.startswith("{"):
        return _plain(json.loads(value))
    return value
