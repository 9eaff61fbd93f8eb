"""The precision of convolutions and products if a recipe states "auto": float32, unless bfloat16 is faster here.

bfloat16 takes half the time of float32 on CPUs that multiply it, and up to nine times as long on other CPUs. A small
network is therefore timed in both precisions once on a machine, and the result is stored in the user's cache folder. The
run of a training stores the choice, so that it is the same on every machine.
"""

import functools
import logging
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import voxlate
from voxlate.base.devices import one_thread
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json, write_json
from voxlate.base.items import stable_id
from voxlate.base.machine import cache_folder
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.unet import UNet
from voxlate.training.recipe import Recipe, with_trainings
from voxlate.training.recipe.training_settings import Precision
from voxlate.training.run import Run

# bfloat16 may take at most this share of float32's time, so that noise of the clock does not decide.
FASTER = 0.9
NET = UNet(width=32, multipliers=(1, 2), blocks=1, middle_attention=False)
BATCH = 2
SMALLEST, LARGEST = 32, 256  # side in pixels
# A float32 step takes at least this time; shorter steps consist of overhead, so the image is enlarged.
LEAST_SECONDS = 0.03
ROUNDS = 5  # rounds that time both precisions
NO_DOUBT = 1.5  # a round whose ratio exceeds it is the last one
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A precision, bfloat16 or float32, with its reason."""

    precision: Precision
    why: str


def with_precision(
    recipe: Recipe, device: torch.device, stated: Mapping[str, Precision] | None = None
) -> Recipe:
    """The recipe with a precision instead of each training's "auto".

    stated: precisions by stage of a run that has begun.
    """
    trainings = []
    for stage in recipe.all_stages:
        options = stage.train
        if options.precision == "auto":
            precision = (stated or {}).get(stage.name) or choose(device).precision
            options = replace(options, precision=precision)
        trainings.append(options)
    return with_trainings(recipe, trainings)


def stage_precisions(run: Run) -> dict[str, Precision]:
    """The precision of each stage of a run that has begun; empty if there is no such run."""
    if not run.has_begun or not run.provenance.is_file():
        return {}
    recipe = run.origin.get("recipe", {})
    tables = [*recipe.get("stages", ()), {**recipe, "name": "final"}]
    stated = {table.get("name"): table.get("train", {}).get("precision") for table in tables}
    return {name: found for name, found in stated.items() if found in ("bfloat16", "float32")}


def of_synthesis(recipe: Recipe, device: torch.device) -> Precision:
    """The precision of a synthesis on a device; "auto" is never less exact than the training."""
    stated = recipe.synth.precision
    if recipe.synth.exact or (stated == "auto" and recipe.train.precision == "float32"):
        return "float32"
    return choose(device).precision if stated == "auto" else stated


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions and products in bfloat16 if the recipe states it; all other operations stay in float32.

    precision: "float32" or "bfloat16", which `with_precision` and `of_synthesis` put in place of "auto".
    """
    assert precision != "auto"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def choose(device: torch.device) -> Choice:
    """The precision of "auto" on a device."""
    if device.type == "cuda":
        # torch.cuda.is_bf16_supported() checks the current GPU only.
        if torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0):
            return Choice("bfloat16", "bfloat16: the GPU computes in it")
        return Choice("float32", "float32: the GPU does not compute in bfloat16")
    # autocast and kernels of other devices differ by version and were not tested.
    if device.type != "cpu":
        untested = f"float32: bfloat16 was not tested on devices of type {device.type}"
        return Choice("float32", untested)
    ratio = bfloat16_ratio(this_machine())
    precision: Precision = "bfloat16" if ratio <= FASTER else "float32"
    reason = f"a step in bfloat16 takes {ratio:.2g} times as long as in float32 here"
    return Choice(precision, f"{precision}: {reason}")


def this_machine() -> str:
    """The properties that determine a CPU's times in float32 and bfloat16.

    The model alone does not suffice, because virtual machines give CPUs of several generations one name.
    """
    name = platform.processor() or platform.machine()
    able = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        name = next(iter(re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)), name)
        able = " ".join(sorted(set(re.findall(r"\w*bf16\w*", text))))
    instructions = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "none")
    return f"{name}, {able or 'bfloat16 not stated'}, {os.cpu_count()} cores, {instructions}, limit {limit}, torch {torch.__version__}, voxlate {voxlate.__version__}"


def ratio_file(machine: str) -> Path:
    """The file with the result of a machine's probe."""
    return cache_folder() / f"precision.{stable_id(machine):016x}.json"


@functools.cache  # a process measures only once if the cache cannot be written
def bfloat16_ratio(machine: str) -> float:
    """Time of a step in bfloat16 over that in float32, from the cache folder or measured now."""
    path = ratio_file(machine)
    with suppress(BadInput, OSError, KeyError, TypeError, ValueError):  # absent, or damaged
        content: Any = read_json(path)
        stored = float(content["bfloat16_over_float32"])
        if content["machine"] == machine and 0 < stored < math.inf:
            return stored
    ratio = measure_ratio()
    try:
        keep_ratio(machine, ratio)
    except (BadInput, OSError):
        _log.warning(
            f"{path.parent}: expected a cache folder to write in, found none, so every command measures anew whether bfloat16 is faster here (about a second); set VOXLATE_CACHE to a folder that can be written."
        )
    return ratio


def keep_ratio(machine: str, ratio: float) -> None:
    """Write the result of a machine's probe; raises BadInput if the cache folder cannot be written."""
    write_json(ratio_file(machine), {"machine": machine, "bfloat16_over_float32": ratio})


def measure_ratio() -> float:
    """The time of a small U-Net's forward and backward pass, bfloat16 over float32: median of interleaved rounds.

    In one thread: with several on a busy machine, both precisions mostly wait for the slowest, and seem equally fast.
    """
    ratios = list[float]()
    own_randoms = torch.random.fork_rng(devices=[])
    with one_thread(), own_randoms, torch.inference_mode(False), torch.enable_grad():
        net = NET.build(Channels(images={"image": 1}, out=1))
        size = SMALLEST
        while True:
            seconds = partial(_seconds, net, torch.randn(BATCH, 1, 1, size, size))
            # The first pass of a size also builds kernels.
            seconds(torch.float32)
            if size == LARGEST or seconds(torch.float32) >= LEAST_SECONDS:
                break
            size *= 2
        seconds(torch.bfloat16)
        while len(ratios) < ROUNDS and max(ratios, default=0) <= NO_DOUBT:
            full = seconds(torch.float32)
            ratios.append(seconds(torch.bfloat16) / full)
    return statistics.median(ratios)


def _seconds(net: torch.nn.Module, images: torch.Tensor, kind: torch.dtype) -> float:
    """The time of a forward and a backward pass."""
    net.zero_grad(set_to_none=True)
    begun = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        image = net(NetworkInput({"image": images})).image
    image.float().square().mean().backward()
    return time.perf_counter() - begun
