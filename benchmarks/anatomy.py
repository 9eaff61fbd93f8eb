"""A label-free anatomical loss for a regression, measured as benchmarks/ingredients.py does: at equal CPU minutes.

A first stage learns, from the target images alone, which class each pixel is of (air, fat, … by Hounsfield units; by
quantiles where there are none), seeing the image with its contrast changed, so that a table does not do. The regression
then has in its loss the distance of that frozen network's features of the made and of the true image. All of it is in
parts of a recipe's own (docs/guides/extending.md), so nothing of the package knows of it; a model needs none of it to
be used.

    python benchmarks/anatomy.py WORK TASK:VARIANT[+VARIANT …]:WEIGHT[:SEED] …

The row is the variant's (which must be among those of ingredients.py, for its steps) with the loss of that weight.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import ingredients
from voxlate import recipe as recipes
from voxlate.batch import Batch
from voxlate.batches.batches import Batches, DataSettings
from voxlate.cases.prepared import Cohort, open_cohort
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.methods.method import (
    Losses,
    Method,
    MethodSettings,
    Problem,
    Task,
    TaskSettings,
    required,
)
from voxlate.methods.regression import Regression, RegressionSettings
from voxlate.methods.tasks import Translate
from voxlate.nets.blocks import to_slices, to_volumes
from voxlate.nets.interface import Channels, NetSettings, NetworkInput, Output
from voxlate.recipe import Recipe
from voxlate.system.config import settings

SHARE = 0.17  # of the CPU minutes, for the first stage
HU_EDGES = (
    -150.0,
    -20.0,
    20.0,
    150.0,
    600.0,
)  # air, fat, fluid, soft tissue, spongy and compact bone
AIR, BRIGHTEST = (
    -0.95,
    0.9,
)  # network units: a window's ends hold many pixels, which belong to one class each
CLASSES = 6
CHANGES = {
    "flip_lr": 0.5,
    "gamma": 0.4,
    "contrast": 0.15,
    "remap": 0.8,
    "bias": 0.1,
    "blur_mm": 0.8,
    "noise": 0.05,
}


@settings
class Eyes(NetSettings):
    """A small network of slices: levels of two convolutions, each at half the size of the one before, and back."""

    width: Annotated[int, Field(gt=0, description="channels of every level")] = 16
    levels: Annotated[
        int, Field(gt=0, description="the first one has half the image's rows and columns")
    ] = 3

    def build(self, channels: Channels) -> "EyesNet":
        self.takes_only_images(channels)
        return EyesNet(channels.joined, self.width, self.levels, channels.out)


class EyesNet(nn.Module):
    def __init__(self, ins: int, width: int, levels: int, out: int):
        super().__init__()
        self.levels = nn.ModuleList(
            _level(width if level else ins, width) for level in range(levels)
        )
        self.back = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(levels))
        self.last = nn.Conv2d(width, 4 * out, 3, padding=1)
        for (
            name,
            one,
        ) in self.named_parameters():  # with torch's own, a third of so short a training goes by
            nn.init.zeros_(one) if name.endswith("bias") else nn.init.kaiming_normal_(one)

    def features(self, x: Tensor) -> list[Tensor]:
        """Maps [N, width, h, w] of slices [N, C, H, W], the finest first."""
        found = []
        for level in self.levels:
            found.append(x := level(x))
        return found

    def forward(self, inputs: NetworkInput) -> Output:
        image = to_slices(inputs.joined)
        x: Tensor | None = None
        for one, back in zip(reversed(self.features(image)), self.back):
            x = (
                back(one)
                if x is None
                else F.silu(back(one) + F.interpolate(x, one.shape[-2:], mode="bilinear"))
            )
        fine = F.pixel_shuffle(self.last(required(x)), 2)
        return Output(
            to_volumes(fine[..., : image.shape[-2], : image.shape[-1]], inputs.joined.shape[2])
        )


def _level(ins: int, width: int) -> nn.Sequential:
    halving, within = nn.Conv2d(ins, width, 4, 2, 1), nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(halving, nn.SiLU(), within, nn.SiLU())


@settings
class Classes(MethodSettings):
    """Says which class each pixel of the target is of; its sources are the targets, changed by data.augment."""

    draws: ClassVar[bool] = False
    takes_opponent: ClassVar[bool] = False
    edges: Annotated[tuple[float, ...], Field(description="between the classes, in network units")]

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "Classifier":
        return Classifier(self, net.build(Channels({"image": 1}, out=len(self.edges) + 1)))


class Classifier(Method):
    edges: Tensor

    def __init__(self, options: Classes, net: nn.Module):
        super().__init__()
        self.turns, self.net = options.turns, net
        self.register_buffer("edges", torch.tensor(options.edges))

    def loss(self, turn: str, batch: Batch, noise: Noise, progress: float = 1.0) -> Losses:
        scores, answer = (
            self.scores(batch),
            torch.bucketize(required(batch.target)[:, 0].contiguous(), self.edges),
        )
        right = (scores.argmax(1) == answer)[answer > 0].float().mean()  # of what is not air
        return {"total": F.cross_entropy(scores, answer), "right": right}

    def scores(self, batch: Batch) -> Tensor:
        image: Tensor = self.net(NetworkInput({"image": batch.source})).image
        return image.float()

    @torch.no_grad()
    def synthesise(self, batch: Batch, noise: Noise, sampling: SamplerSettings) -> Tensor:
        return (
            self.scores(batch).argmax(1, keepdim=True) * (2 / len(self.edges)) - 1
        )  # grey values, for the picture


@settings
class Seen(TaskSettings):
    """Translation that hands the classes' network on to the loss; it is no part of the model."""

    stage: Annotated[str, Field(description="the earlier stage that learned classes")] = "anatomy"

    def build(self, earlier: Mapping[str, Method]) -> Task:
        return SeenTask(earlier[self.stage].net)

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.stage,)


class SeenTask(Task):
    """No module, so that methods neither train nor save the network."""

    def __init__(self, eyes: nn.Module):
        self.eyes, self.plain = eyes.requires_grad_(False), Translate()

    def channels(self, sources: Sequence[str], targets: Sequence[str]) -> Channels:
        return self.plain.channels(sources, targets)

    def pose(self, batch: Batch, noise: Noise | None = None, progress: float = 1.0) -> Problem:
        return self.plain.pose(batch, noise, progress)

    def restore(self, x0: Tensor, problem: Problem) -> Tensor:
        return self.plain.restore(x0, problem)


@settings
class Anatomical(RegressionSettings):
    """A regression whose loss has in addition the distance of features, for task.kind = "anatomy:Seen"."""

    takes_opponent: ClassVar[bool] = False
    anatomy: Annotated[
        float,
        Field(ge=0, description="size of that distance in the loss, as a share of the error's"),
    ]

    def build(self, net: NetSettings, task: Task, channels: Channels) -> "AnatomicalRegression":
        method = super().build(net, task, channels)
        return AnatomicalRegression(self, method.net, task)


class AnatomicalRegression(Regression):
    options: Anatomical
    task: SeenTask

    def compare(self, image: Tensor, problem: Problem) -> Losses:
        terms = super().compare(image, problem)
        far = distance(
            self.task.eyes.to(image.device), problem.where_present(image), required(problem.x0)
        )
        # at every step as large as the share says: networks that were trained for minutes have features of any size
        size = (
            self.options.anatomy * terms[self.options.loss].detach() / far.detach().clamp(min=1e-6)
        )
        return {**terms, "total": terms["total"] + size * far, "anatomy": far.detach()}


def distance(eyes: Any, image: Tensor, truth: Tensor) -> Tensor:
    """Mean L1 distance of features of images [B, C, D, H, W], over each channel's deviation in the true ones."""
    image, truth = (to_slices(one).flatten(0, 1).unsqueeze(1) for one in (image, truth))
    with torch.no_grad():
        wanted = eyes.features(truth)
    apart = []
    for made, true in zip(eyes.features(image), wanted):
        deviation = true.float().std((0, 2, 3), keepdim=True)
        apart.append(((made - true).float().abs() / (deviation + 0.01 * deviation.mean())).mean())
    return torch.stack(apart).mean()


def edges_of(cohort: Cohort, data: DataSettings, recipe: Recipe) -> list[float]:
    """Between the target's classes, in network units: of Hounsfield units where it has them, else of quantiles."""
    (name,) = data.target
    window = recipe.intensity[name].window
    if cohort.units[name] == "HU" and window is not None:
        low, high = window
        return [2 * (edge - low) / (high - low) - 1 for edge in HU_EDGES if low < edge < high]
    batches = Batches(cohort, data, recipe.intensity, batch=8, steps=8)
    seen = torch.cat([required(batches[step].target).flatten() for step in range(8)])
    shares = torch.arange(1, CLASSES - 1) / (CLASSES - 1)
    inner = seen[seen > AIR][:1_000_000].quantile(shares).clamp(max=BRIGHTEST)
    return [AIR, *(round(edge, 3) for edge in inner.tolist())]


def with_anatomy(
    base: Recipe, weight: float, steps: tuple[int, int], edges: Sequence[float]
) -> Recipe:
    """The recipe of a regression with the first stage and the loss; steps: of the stage, and of the regression."""
    values = recipes.to_dict(base)
    train, data = values["train"], values["data"]
    fast = {**train["optimiser"], "kind": "muon", "lr": 1e-2}
    stage = {
        "name": "anatomy",
        "method": {"kind": "anatomy:Classes", "edges": list(edges)},
        "net": {"kind": "anatomy:Eyes"},
        "train": {
            **train,
            "steps": steps[0],
            "save_every": steps[0],
            "ema": 0.98,
            "optimiser": fast,
        },
        "data": {**data, "source": data["target"], "stack": 0, "augment": CHANGES},
    }
    method = {**values["method"], "kind": "anatomy:Anatomical", "anatomy": weight}
    own = {"task": {"kind": "anatomy:Seen"}, "method": method, "stages": [stage]}
    longer = {"train": {**train, "steps": steps[1], "save_every": steps[1]}}
    return recipes.from_dict({**values, **own, **longer}, "anatomy", allow_code=True)


def lengths(name: str, variant: str, named: Mapping[str, Recipe], **probe: Any) -> tuple[int, int]:
    """Steps of the first stage and of the regression that cost together what the variant's steps without them cost."""
    rows = [row for row in ingredients.finished() if row["task"] == name]
    for row in rows:
        if row["variant"].startswith(f"{variant}+anatomy"):
            return row["anatomy_steps"], row["steps"]
    (had, *_) = [row["steps"] for row in rows if row["variant"] == variant]
    seconds = ingredients.step_seconds(named, **probe)
    print(name, {one: round(value, 4) for one, value in seconds.items()}, flush=True)
    whole = had * seconds["plain"]
    return round(SHARE * whole / seconds["anatomy"]), round((1 - SHARE) * whole / seconds["seen"])


def measure(name: str, variant: str, weight: str, seed: int, work: Path) -> dict[str, Any]:
    """Train, synthesise and score one row."""
    task, data = ingredients.TASKS[name], work / name
    folder = work / "runs" / f"{name}_{variant}_anatomy{weight}_{seed}"
    changes = ingredients.changes_of(variant)
    base = ingredients.recipe_of(task, changes, seed, 1000, folder)
    edges = edges_of(open_cohort(data), base.data, base)
    # the first stage has one step here, which the probe leaves out as warming up
    seen, alone = (
        with_anatomy(base, float(weight), steps, edges) for steps in ((1, 1000), (1000, 1))
    )
    named = {"plain": base, "seen": seen, "anatomy": recipes.stage_recipe(alone, "anatomy")}
    steps = lengths(name, variant, named, data=data, folder=folder, reuse=[])
    recipe = with_anatomy(base, float(weight), steps, edges)
    row = ingredients.row_of(name, f"{variant}+anatomy{weight}", seed, recipe, data, [], folder)
    return {
        **row,
        "changes": {**changes, "anatomy": weight},
        "anatomy_steps": steps[0],
        "edges": edges,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("rows", nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for text in arguments.rows:
        task, variant, weight, *seed = text.split(":")
        number = int(seed[0]) if seed else 0
        if not ingredients.is_finished(task, f"{variant}+anatomy{weight}", number):
            ingredients.keep(measure(task, variant, weight, number, arguments.work))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
