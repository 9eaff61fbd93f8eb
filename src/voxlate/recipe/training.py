"""Settings of a training: its length, batches, precision and validation."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from voxlate.config import Counts, settings
from voxlate.diffusion.sample import check_sampler_name
from voxlate.recipe.optimiser import Optimiser

VALIDATION_SHARE = 0.05  # of a training's network evaluations, where the recipe does not say how to validate
VALIDATION_STEPS = 32  # of ddim, where the sampler of synthesis costs more than that share
BACKWARD = 3  # evaluations that a forward and a backward pass cost
Precision = Literal["auto", "bfloat16", "float32"]


@settings
class Stop:
    """Ends a training early, once an epoch's loss is not below the mean of earlier epochs by the share `gain`.

    Source: Lyu & Wang 2022 (arXiv 2209.12104), sec. III: 100 epochs, window of 20, 1 %.
    """

    after_epochs: Annotated[int, Field(ge=1, description="epochs that are trained in any case")] = 100
    window: Annotated[
        int, Field(ge=1, description="epochs before the last one, with whose mean loss it is compared")
    ] = 20
    gain: Annotated[float, Field(ge=0, lt=1, description="share by which the loss must lie below that mean")] = 0.01

    def reached(self, losses: Sequence[float]) -> bool:
        """Whether training ends after these epochs; a loss that is NaN never ends it."""
        if len(losses) < max(self.after_epochs, self.window + 1):
            return False
        return losses[-1] > (1 - self.gain) * self._before(losses)

    def sentence(self, losses: Sequence[float], step: int) -> str:
        """Why it ended, for the log."""
        before = "loss of the epoch" if self.window == 1 else f"mean loss of the {self.window} epochs"
        return (
            f"ended at step {step} by train.stop: the loss of epoch {len(losses)}, {losses[-1]:.4g}, is not "
            f"{100 * self.gain:.3g} % below the {before} before, {self._before(losses):.4g}."
        )

    def _before(self, losses: Sequence[float]) -> float:
        return sum(losses[-1 - self.window : -1]) / self.window


@settings
class Validation:
    """How images are drawn during training: `train.validation = { sampler = "ddim", steps = 8 }`."""

    sampler: Annotated[str, Field(description="as synth.sampler")] = "ddim"
    steps: Annotated[int, Field(ge=1, description="times at which the network denoises")] = VALIDATION_STEPS

    def __post_init__(self) -> None:
        check_sampler_name(self.sampler, "train.validation.sampler")


@settings
class Training:
    """The training of a stage: steps, batches, optimiser, precision, validation."""

    steps: Annotated[int, Field(ge=0, description="optimiser steps; 0: as `epochs` says")] = 10_000
    more: Annotated[
        Counts | None,
        Field(description="further steps after `steps`, each number with a warm-up and decay of its own; unset: none"),
    ] = None
    epochs: Annotated[
        int | None,
        Field(
            ge=1,
            description="length in epochs instead, in each of which the images' own turn (of a GAN the generator's) "
            "takes as many items as there are; a critic's items are not counted; unset: steps",
        ),
    ] = None
    stop: Annotated[Stop | None, Field(description="end before `steps` once epochs gain too little; unset: never")] = (
        None
    )
    batch: Annotated[int, Field(ge=1, description="items a step, over all processes together")] = 8
    optimiser: Annotated[Optimiser, Field(description="how weights move")] = Optimiser()
    ema: Annotated[float, Field(ge=0, lt=1, description="decay of the running average of weights; 0: none")] = 0.999
    only: Annotated[str | None, Field(description="only weights whose dotted name has this part move; unset: all")] = (
        None
    )
    clip_norm: Annotated[float, Field(ge=0, description="largest norm of a step's gradient; 0: any")] = 1.0
    accumulate: Annotated[int, Field(ge=1, description="parts that a batch is split into, one after the other")] = 1
    precision: Annotated[
        Precision,
        Field(
            description="of convolutions and products; auto: float32, unless bfloat16 is measured faster on the "
            "machine that begins the run, which keeps it"
        ),
    ] = "auto"
    compile: Annotated[
        bool | None, Field(description="torch.compile the network; unset: on a GPU, and on a CPU over 20,000 steps")
    ] = None
    seed: Annotated[int, Field(ge=0, description="of weights, batches, augmentation and noise")] = 0
    workers: Annotated[
        int | None, Field(ge=0, description="processes that read data; unset: 4 with a GPU, none without")
    ] = None
    save_every: Annotated[int, Field(ge=1, description="steps between saved states")] = 500
    validate_every: Annotated[int, Field(ge=0, description="steps between validations; 0: only at the end")] = 1000
    validation_items: Annotated[int, Field(ge=1, description="items of each validation")] = 8
    validation: Annotated[
        Validation | None,
        Field(
            description="its sampler; unset: as synth where that is at most 5 % of the training's network evaluations, "
            "else ddim with at most 32 steps that are"
        ),
    ] = None
    log_every: Annotated[int, Field(ge=1, description="steps between lines of log.jsonl")] = 20

    @property
    def length(self) -> int:
        """Steps in all."""
        return self.steps + sum(self.more or ())

    def part(self, step: int) -> tuple[int, int]:
        """Where a step, 0-based, lies: its place in `steps` or in one of `more`, and the length of that part."""
        parts = (self.steps, *(self.more or ()))
        for steps in parts[:-1]:
            if step < steps:
                return step, steps
            step -= steps
        return step, parts[-1]

    def rate(self, step: int) -> float:
        """The learning rate of a step, 0-based."""
        return self.optimiser.lr * self.optimiser.factor(*self.part(step))

    def progress(self, step: int) -> float:
        """Share of `steps` that is done before a step; further steps go on as the training ended."""
        return min(step / self.steps, 1.0)
