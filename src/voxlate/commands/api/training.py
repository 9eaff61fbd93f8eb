"""The commands that train: train, adapt, import_weights, calibrate."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.text import Text

from voxlate.base.option import MainOption, Object
from voxlate.commands.api.entry import (
    Address,
    Argument,
    Command,
    Out,
    Place,
    Run,
)
from voxlate.commands.api.progress import Reporter
from voxlate.evaluation.evaluation_options import CalibrateOptions
from voxlate.scans.layout_options import quote_path
from voxlate.training.training_options import (
    AdaptOptions,
    TrainOptions,
)

if TYPE_CHECKING:
    from voxlate.training.run import Run as Trained

Publication = Literal[
    "tof_to_cta_unet", "tof_to_cta_adm", "tof_to_cta_uvit", "tof_to_cta_dit", "kl-f4"
]


def _trained_lines(done: "Trained", asked: Any) -> Iterator[Any]:
    """Verdicts of a trained run, the last of `folds`, then where its weights and curves are, and the next command."""
    from voxlate.scans.cohorts.split import FOLDS
    from voxlate.training.log_file import read_verdicts
    from voxlate.training.verdict import colour_lines

    curves = done.folder / "tensorboard"
    made = f"{done.weights()} is the model."
    following = f"synth {quote_path(done.folder)} COHORT --split val --out OUT"
    if folds := getattr(asked, "folds", None):
        curves = done.folder.parent
        runs = " ".join(quote_path(curves / f"fold{fold}") for fold in range(folds))
        following = f"synth {runs} COHORT --out CV"
        made = f"{folds} models of {FOLDS} folds, below {quote(str(curves))}: the verdict is that of the last."
    by_stage = read_verdicts(done.log)
    final = by_stage.pop("final", [])
    is_worse = any(verdict.outcome == "worse" for verdict in final)
    advice = "Do not use it; to look at what it makes" if is_worse else "Next"
    for stage, verdict in by_stage.items():
        yield Text.assemble(f"stage '{stage}': ", colour_lines(verdict))
    none = "No verdict: no validation case has the source and the target modalities"
    yield colour_lines(final) if final else none
    yield f"Curves:  tensorboard --logdir {quote(str(curves))}"
    yield f"{made} {advice}:  voxlate {following}"


def _run_document(done: "Trained") -> dict[str, Any]:
    from voxlate.training.verdict import verdict_lines

    facts = {"run": str(done.folder), "weights": str(done.weights())}
    return {**facts, "verdicts": verdict_lines(done.verdicts)}


@Command(
    """
    train auto --data PREPARED --out RUN --minutes 60
    train t1_to_t2_brain --data PREPARED --out RUN --set train.steps=500
    """,
    lines=_trained_lines,
    document=_run_document,
)
def train(
    recipe: Annotated[
        Address | Mapping[str, Any] | Annotated[Any, Object("voxlate.training.planning.plan:Plan")],
        Argument(
            "auto (planned for the cohort), a shipped recipe (NAME_small: its small variant), or a TOML file.",
            metavar="RECIPE",
        ),
    ],
    data: Annotated[Place, MainOption("Prepared cohort.")],
    out: Out,
    *,
    options: TrainOptions,
    progress: Reporter,
) -> "Trained":
    """Train a recipe.

    The same command resumes a stopped training and ends with the same weights.
    \f
    Returns:
        Run: The folder of the run: its `weights()`, `history` (a pandas DataFrame of losses and validation scores by step),
            and `verdicts`.

    Raises:
        BadInput: the recipe has an unknown key or does not fit the cohort; or the folder has a run of another recipe or cohort.
        Stopped: the training was interrupted, and its state was saved: the same call resumes it.

    Example:
        >>> import voxlate
        >>> small = {"train.steps": 2}
        >>> run = voxlate.train("recipe.toml", "PREPARED", "NEW", set=small, progress=False)
        >>> voxlate.info("NEW")["steps"]
        2
    """
    from voxlate.commands.api.trainings import train_folds

    return train_folds(recipe, Path(data), Path(out), options, progress)


@Command(
    """
    adapt RUN --data PREPARED --minutes 5 --out ADAPTED
    adapt starter:head-mr-to-ct --data PREPARED --out ADAPTED
    """,
    lines=_trained_lines,
    document=_run_document,
)
def adapt(
    run: Run,
    data: Annotated[Place, MainOption("Prepared cohort of the other site, with a held-out case.")],
    out: Out,
    *,
    options: AdaptOptions,
    progress: Reporter,
) -> "Trained":
    """Continue a run or starter on a few cases of another site.

    The learning rate is lower, and the weights with the least error on held-out cases are kept.
    Calibrate the new run again before its intervals are used.
    \f
    Returns:
        Run: The folder of the adapted run, as `train` returns it.

    Raises:
        BadInput: the cohort has no held-out case or lacks a modality; the model has an autoencoder; or the folder has another
            run.
        Stopped: the training was interrupted, and its state was saved: the same call resumes it.

    Example:
        >>> import voxlate
        >>> adapted = voxlate.adapt("RUN", "PREPARED", "ADAPTED", steps=2, device="cpu", progress=False)
        >>> adapted.weights().name
        'weights.safetensors'
    """
    from voxlate.training.planning.from_weights import adapt as adapt_run

    return adapt_run(run, data, out, options, progress=progress.step, say=progress.say)


def _imported_lines(done: "Trained", asked: Any) -> Iterator[str]:
    from voxlate.exchange.published import AUTOENCODER, net_changes

    following = f"synth {done.folder} SCANS --out OUT"
    if asked.source == AUTOENCODER:
        following = f"train LATENT_RECIPE --data PREPARED --out RUN --reuse {done.folder} {net_changes(done)}"
    yield f"{done.weights()} is the model. Next:  voxlate {following}"


@Command(
    """
    import tof_to_cta_adm adm.safetensors --out RUN
    import kl-f4 vae.safetensors --out KL
    """,
    name="import",
    lines=_imported_lines,
    document=_run_document,
)
def import_weights(
    source: Annotated[
        Publication,
        Argument(
            "Recipe of the weights' network (paper 001), or kl-f4 for an autoencoder of latent diffusion.",
            metavar="SOURCE",
        ),
    ],
    weights: Annotated[
        Place,
        Argument("Published file (safetensors).", metavar="WEIGHTS"),
    ],
    out: Out,
) -> "Trained":
    """Convert published weights into a run.

    The run is a network that synth accepts, or an autoencoder for `train --reuse`.
    \f
    Returns:
        Run: The folder of the imported run, as `train` returns it, without a history.

    Raises:
        BadInput: the file has weights of another structure.

    Example:
        >>> import voxlate
        >>> run = voxlate.import_weights("tof_to_cta_adm", "adm.safetensors", "RUN")  # doctest: +SKIP
    """
    from voxlate.exchange.published import AUTOENCODER, import_autoencoder, import_run

    if source == AUTOENCODER:
        return import_autoencoder(Path(weights), Path(out))
    return import_run(Path(weights), Path(out), source)


@dataclass(frozen=True)
class Fitted:
    """A calibration, as `voxlate.calibrate` returns it.

    Args:
        calibration: its file, in the folder of the run.
        stated: what it states, as plain values.
        sentences: its coverage, error bounds and warnings.

    Example:
        >>> import voxlate
        >>> fitted = voxlate.calibrate("RUN", "OTHERS", device="cpu", progress=False)
        >>> fitted.calibration.parent.name
        'RUN'
    """

    calibration: Path
    stated: Mapping[str, Any]
    sentences: list[str]

    @property
    def document(self) -> dict[str, Any]:
        """The calibration as plain values."""
        return {"calibration": str(self.calibration), **self.stated}


def _fitted_lines(fitted: Fitted, asked: Any) -> Iterator[str]:
    yield from fitted.sentences
    same = f" --answer {asked.answer}" if asked.answer else ""
    same += f" --samples {asked.samples}" if asked.samples else ""
    for key, value in (asked.set or {}).items():
        same += f" --set {quote(f'{key}={value}')}"
    place = quote(str(asked.out or asked.run))
    yield f"{fitted.calibration}. Next:  voxlate synth {place} NEW --out OUT{same}"


@Command(
    """
    calibrate RUN COHORT --split val --samples 8
    calibrate RUN COHORT --split val --answer mean
    calibrate CV/fold0 COHORT --out-of-fold CV/fold1 --out-of-fold CV/fold2
    synth RUN NEW --out OUT --samples 8
    """,
    lines=_fitted_lines,
)
def calibrate(
    run: Run,
    cohort: Annotated[
        Place, Argument("Cases with true scans that training did not use.", metavar="COHORT")
    ],
    *,
    options: CalibrateOptions,
    progress: Reporter,
) -> Fitted:
    """Fit prediction intervals and error bounds on held-out patients.

    The calibration is written into RUN (of a starter into --out); synth then writes interval bounds.
    A stopped calibration begins again.
    \f
    Returns:
        Fitted: The file of the calibration, which is in the run's folder, and `sentences` on its coverage, error bounds and warnings.

    Raises:
        BadInput: the run is an autoencoder; cases were in its training, or too few patients are left; coverage is no whole percent; or a
            starter is calibrated without `out`.

    Example:
        >>> import voxlate
        >>> fitted = voxlate.calibrate("RUN", "OTHERS", device="cpu", progress=False)
        >>> voxlate.load("RUN").calibration() is None
        False
    """
    from voxlate.commands.api.images import open_model
    from voxlate.evaluation.calibrate import calibrate as fit_intervals
    from voxlate.evaluation.calibrate import find_calibration_cases, own_copy
    from voxlate.evaluation.intervals.summary import sentences
    from voxlate.synthesis.model import Ensemble
    from voxlate.training.calibration_file import calibration_file

    own = own_copy(run, options.out)
    models = [open_model(one, options) for one in (own, *options.out_of_fold)]
    model = Ensemble([member for one in models for member in one.members])
    keys = {"samples": options.samples, **(options.set or {})}
    model = model.with_options(options.allow_code, **keys)
    cases = find_calibration_cases(model, Path(cohort), options, progress.say)
    fitted = fit_intervals(model, cases, options, progress=progress.step, warn=progress.say)
    return Fitted(calibration_file(models[0]), fitted.entry, sentences(fitted.header))
