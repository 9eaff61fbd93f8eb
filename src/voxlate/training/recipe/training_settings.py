"""Settings of a training: its length, batches, precision and validation."""

from collections.abc import Sequence
from typing import Annotated, Literal

from voxlate.base.config import Counts, setting, settings
from voxlate.science.diffusion.sample import check_sampler_name
from voxlate.training.recipe.optimiser import Optimiser

VALIDATION_SHARE = (
    0.05  # of a training's network evaluations, where the recipe does not say how to validate
)
VALIDATION_STEPS = 32  # of ddim, where the sampler of synthesis costs more than that share
BACKWARD = 3  # evaluations that a forward and a backward pass cost
Precision = Literal["auto", "bfloat16", "float32"]


@settings
class Stop:
    """Ends a training early, once an epoch's loss is not below the mean of earlier epochs by the share `gain`.

    Source: Lyu & Wang 2022 (arXiv 2209.12104), sec. III: 100 epochs, window of 20, 1 %.
    """

    after_epochs: Annotated[
        int, setting("Number of epochs that are trained in any case.", ge=1)
    ] = 100
    window: Annotated[
        int,
        setting(
            "Number of epochs before the last one with whose mean loss the last one is compared.",
            ge=1,
        ),
    ] = 20
    gain: Annotated[
        float,
        setting(
            "Share by which the loss must be below this mean for the training to continue.",
            ge=0,
            lt=1,
        ),
    ] = 0.01

    def is_met(self, losses: Sequence[float]) -> bool:
        """Whether training ends after these epochs; a loss that is NaN never ends it."""
        if len(losses) < max(self.after_epochs, self.window + 1):
            return False
        return losses[-1] > (1 - self.gain) * self._before(losses)

    def sentence(self, losses: Sequence[float], step: int) -> str:
        """Why it ended, for the log."""
        before = (
            "loss of the epoch" if self.window == 1 else f"mean loss of the {self.window} epochs"
        )
        return f"ended at step {step} by train.stop: the loss of epoch {len(losses)}, {losses[-1]:.4g}, is not {100 * self.gain:.3g} % below the {before} before, {self._before(losses):.4g}."

    def _before(self, losses: Sequence[float]) -> float:
        return sum(losses[-1 - self.window : -1]) / self.window


@settings
class Best:
    """Keeps the weights of the least validation error, and ends the training once it has stopped falling."""

    patience: Annotated[
        int,
        setting(
            "Number of validations without a lower error after which training ends; 0: it never ends early.",
            ge=0,
        ),
    ] = 3


@settings
class Validation:
    """How images are drawn during training: `train.validation = { sampler = "ddim", steps = 8 }`."""

    sampler: Annotated[str, setting("Sampler of validations, named as in synth.sampler.")] = "ddim"
    steps: Annotated[int, setting("Number of times at which the network denoises.", ge=1)] = (
        VALIDATION_STEPS
    )

    def __post_init__(self) -> None:
        check_sampler_name(self.sampler, "train.validation.sampler")


@settings
class Training:
    """The training of a stage: steps, batches, optimiser, precision, validation."""

    steps: Annotated[int, setting("Number of optimiser steps; 0: given by `epochs`.", ge=0)] = (
        10_000
    )
    more: Annotated[
        Counts | None,
        setting(
            "Numbers of additional steps after `steps`, each with its own warm-up and decay; unset: none."
        ),
    ] = None
    epochs: Annotated[
        int | None,
        setting(
            "Length of the training in epochs, in place of `steps`. In an epoch the turn that makes images (of a GAN the generator's) takes as many items as there are; a critic's items are not counted.",
            ge=1,
        ),
    ] = None
    stop: Annotated[
        Stop | None,
        setting(
            "Rule that ends the training before `steps` once the loss stops falling; unset: none."
        ),
    ] = None
    best: Annotated[
        Best | None,
        setting(
            "Rule that keeps the weights of the least validation error, those before the first step among them; unset: the last weights are kept."
        ),
    ] = None
    replay: Annotated[
        float | None,
        setting(
            "Share of the items that is of the replayed cohort of an adaptation; unset: none.",
            gt=0,
            lt=1,
        ),
    ] = None
    batch: Annotated[
        int, setting("Number of items in a step, over all processes together.", ge=1)
    ] = 8
    optimiser: Annotated[Optimiser, setting("Optimiser and the schedule of its rate.")] = (
        Optimiser()
    )
    ema: Annotated[
        float,
        setting("Decay of the running average of weights; 0: no average.", ge=0, lt=1),
    ] = 0.999
    keep_start: Annotated[
        float,
        setting(
            "Share of the first weights, those of a starter, say, in the weights that are kept at the end. Where validation patients have less error with the first weights alone, these are kept.",
            ge=0,
            lt=1,
        ),
    ] = 0.0
    only: Annotated[
        str | None,
        setting(
            "Part of the dotted names of the weights that are trained; unset: all weights are trained."
        ),
    ] = None
    clip_norm: Annotated[
        float, setting("Largest norm of a step's gradient; 0: no limit.", ge=0)
    ] = 1.0
    accumulate: Annotated[
        int,
        setting("Number of parts of a batch that are computed one after the other.", ge=1),
    ] = 1
    precision: Annotated[
        Precision,
        setting(
            "Precision of convolutions and products; auto: bfloat16 where the machine that begins the run multiplies it, else float32; the run keeps it."
        ),
    ] = "auto"
    compile: Annotated[
        bool | None,
        setting("Whether torch.compile compiles the network; unset: for more than 20,000 steps."),
    ] = None
    seed: Annotated[
        int, setting("Random seed of weights, batches, augmentation and noise.", ge=0)
    ] = 0
    workers: Annotated[
        int | None,
        setting("Number of processes that read data; unset: up to 12 with a GPU, 0 without.", ge=0),
    ] = None
    save_every: Annotated[
        int,
        setting(
            "Age in seconds that a saved state may reach; 0: one is saved after every step.", ge=0
        ),
    ] = 120
    validate_every: Annotated[
        int,
        setting("Number of steps between validations; 0: one validation at the end.", ge=0),
    ] = 1000
    validation_items: Annotated[int, setting("Number of items in each validation.", ge=1)] = 8
    validation: Annotated[
        Validation | None,
        setting(
            "Sampler of validations; unset: that of synth where it costs at most 5 % of the training's network evaluations, else ddim with at most 32 steps."
        ),
    ] = None
    log_every: Annotated[int, setting("Number of steps between lines of log.jsonl.", ge=1)] = 20

    @property
    def length(self) -> int:
        """Steps in all."""
        return self.steps + sum(self.more or ())

    def part(self, place: float) -> tuple[float, int]:
        """Where a place (see clock.Clock) lies: in `steps` or in one of `more`, and the length of that part."""
        parts = (self.steps, *(self.more or ()))
        for steps in parts[:-1]:
            if place < steps:
                return place, steps
            place -= steps
        return place, parts[-1]

    def rate(self, place: float) -> float:
        """The learning rate at a place."""
        return self.optimiser.lr * self.optimiser.factor(*self.part(place))

    def decay(self, steps: float) -> float:
        """Decay of the running average in a training of so many steps, which covers the same share of each."""
        return max(1 - (1 - self.ema) * self.steps / steps, 0.0) if self.ema else 0.0

    def progress(self, place: float) -> float:
        """Share of `steps` that is done at a place; further steps go on as the training ended."""
        return min(place / self.steps, 1.0)
