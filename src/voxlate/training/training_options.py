"""Options of `plan`, `train` and `adapt`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from voxlate.base.errors import as_list
from voxlate.base.option import (
    CHANGES,
    MAIN,
    MEMORY,
    PLAN,
    TRAINING,
    AllowCode,
    Device,
    Option,
    options,
)

# A value of a recipe's key; a class or function stands for its name, "module:name".
Value = (
    str | int | float | bool | Sequence[Any] | Mapping[str, Any] | type | Callable[..., Any] | None
)
AUTO = "auto"  # the recipe that is planned for a cohort
Mode = Literal["both", "mean", "samples"]
MODALITY = Option("Input modality, with --target. Repeatable.", panel=PLAN, metavar="NAME")


@options
class PlanOptions:
    """Options of `voxlate plan` and voxlate.plan; None leaves the choice to the plan."""

    minutes: Annotated[
        float | None,
        Option("Training time on this machine. Default: 60.", panel=MAIN, least=0.01),
    ] = None
    memory: Annotated[str | float | None, MEMORY] = None
    speed: Annotated[
        float | None,
        Option(
            "Speed of training steps in GFLOP/s that is assumed instead of timed: the plan has steps and float32, the same on every machine. One core has about 70.",
            panel=PLAN,
            metavar="GFLOPS",
            least=0.001,
        ),
    ] = None
    mode: Annotated[
        Mode | None,
        Option(
            "Prediction of the model: mean (a regression), both (also a sharp image), or samples (also samples, which show what is uncertain).",
            panel=PLAN,
        ),
    ] = None
    source: Annotated[Sequence[str] | str, MODALITY] = ()
    target: Annotated[
        Sequence[str] | str,
        replace(MODALITY, help="Modality to synthesise, with --source. Repeatable."),
    ] = ()
    from_scratch: Annotated[
        bool, Option("Begin from random weights even where a starter fits.", panel=PLAN)
    ] = False
    device: Device = "auto"

    def changed_options(self, *names: str) -> dict[str, Any]:
        """The options of these names that differ from their defaults."""
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name in names
            if (value := getattr(self, name)) not in (defaults[name], [], ())
        }


# of a plan alone
OF_PLAN = ("source", "target", "memory", "speed", "mode", "from_scratch")


@options
class TrainOptions(PlanOptions):
    """Options of `voxlate train` and voxlate.train; those of a plan hold for the recipe auto."""

    set: Annotated[Mapping[str, Value] | None, CHANGES] = None
    init: Annotated[
        Path | str | None,
        Option(
            "Run, weights, starter:NAME or hf://NAME/REPO from which the network is initialised.",
            panel=TRAINING,
        ),
    ] = None
    reuse: Annotated[
        Sequence[Path | str],
        Option(
            "Run whose earlier stages are reused if they are identical. Repeatable.",
            read=as_list,
            panel=TRAINING,
        ),
    ] = ()
    fold: Annotated[
        int | None,
        Option(
            "Fifth of the patients that validates; the others train, except the test patients.",
            panel=TRAINING,
            least=0,
            most=4,
        ),
    ] = None
    folds: Annotated[
        int | None,
        Option(
            "Train so many of the five folds, each for --minutes, into OUT/fold0, OUT/fold1, … (cross-validation).",
            panel=TRAINING,
            least=2,
            most=5,
        ),
    ] = None
    track: Annotated[
        Literal["mlflow", "wandb"] | None,
        Option(
            "Also send losses and validation scores to MLflow or Weights & Biases.", panel=TRAINING
        ),
    ] = None
    allow_code: AllowCode = False


@options
class AdaptOptions:
    """Options of `voxlate adapt` and voxlate.adapt."""

    minutes: Annotated[float, Option("Training time on this machine.", panel=MAIN, least=0.01)] = 5
    steps: Annotated[
        int | None, Option("Number of steps instead of minutes.", panel=MAIN, least=1)
    ] = None
    device: Device = "auto"
    allow_code: AllowCode = False
