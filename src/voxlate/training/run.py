"""The folder of a training: its files, its recipe, and the provenance by which it resumes."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import voxlate
from voxlate.base.errors import BadInput
from voxlate.base.files import LOCK, write_json, write_text
from voxlate.base.messages import NOTICE
from voxlate.synthesis.exported import is_exported
from voxlate.training.log_file import history_of, read_verdicts
from voxlate.training.recipe import Recipe, stated_keys, to_dict
from voxlate.training.recipe.run_provenance import PROVENANCE, read_run
from voxlate.training.recipe.text import as_toml, first_change, values_of
from voxlate.training.verdict import Verdict

PACKAGES = ("torch", "numpy", "nibabel", "safetensors")


@dataclass(frozen=True)
class _File:
    """The path of a file in the folder of a run."""

    name: str

    def __get__(self, run: "Run", _: type) -> Path:
        return run.folder / self.name


@dataclass(frozen=True)
class Run:
    """The folder of a training, as `voxlate.train` returns it.

    Args:
        folder: RUN/{recipe.toml, provenance.json, facts.json, log.jsonl, clock.txt, state.pt} and {weights, naive, anatomy}.safetensors.

    Example:
        >>> from pathlib import Path
        >>> from voxlate.training.run import Run
        >>> run = Run(Path("RUN"))
        >>> {"step", "validation mae"} <= set(run.history.columns)
        True
        >>> [verdict.modality for verdict in run.verdicts]
        ['t2']
    """

    folder: Path
    recipe = _File("recipe.toml")  # the recipe, with its head
    clock = _File("clock.txt")  # where each step of a planned training stood, see training.job
    # recipe, cohort and software, by which the run resumes
    provenance = _File(PROVENANCE)
    log = _File("log.jsonl")  # the log of all stages
    latents = _File("latents")  # the moments of latents, while a stage trains on them
    state = _File("state.pt")  # the state from which the training continues
    naive = _File("naive.safetensors")  # the naive baselines of the training cases
    anatomy = _File("anatomy.safetensors")  # the usual anatomy of the training cases

    @property
    def origin(self) -> dict[str, Any]:
        """The content of provenance.json; raises BadInput if it is not as `train` writes it."""
        return read_run(self.provenance)

    @property
    def history(self) -> Any:
        """Losses and validation scores as a pandas DataFrame: stage, step, and a column for each."""
        return history_of(self.log)

    @property
    def calibrations(self) -> list[Path]:
        """The calibrations, by the answer and the number of samples of their images."""
        return sorted(self.folder.glob("calibration.*.safetensors"))

    def weights(self, stage: str = "final") -> Path:
        """The weights of a stage, which are a whole model."""
        middle = "" if stage == "final" else f".{stage}"
        return self.folder / f"weights{middle}.safetensors"

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on the validation items, compared with naive baselines; empty if unknown."""
        return read_verdicts(self.log).get("final", [])

    @property
    def has_begun(self) -> bool:
        """Whether a state or weights have been saved."""
        return self.state.exists() or any(self.folder.glob("weights*.safetensors"))


def of_a_run(path: object) -> BadInput:
    """The refusal of an exported model where only a run will do."""
    return BadInput(
        f"{path}: expected a run, found an exported model. Take the run that was exported, and export it again."
    )


def weights_of(path: Path) -> Path:
    """The weights file of a run folder, any other path as it is; raises BadInput for an exported model."""
    if is_exported(path):
        raise of_a_run(path)
    return Run(path).weights() if path.is_dir() else path


def begin_run(
    folder: Path,
    recipe: Recipe,
    head: str,
    data: dict[str, Any],
    notes: Mapping[str, Any] | None = None,
) -> Run:
    """Create the folder of a run, or open an existing run of the same recipe on the same data.

    head: comment lines for recipe.toml; data: hash and splits of the cohort; notes: entries that may differ. A run
    without any training is replaced. Raises BadInput if the folder holds other files.
    """
    run = Run(folder)
    wanted = {"recipe": to_dict(recipe), "data": data}
    if run.provenance.exists():
        recorded = run.origin
        change = first_change({key: recorded[key] for key in wanted}, wanted)
        if not change and (run.has_begun or run.recipe.exists()):
            _check_unedited(run, recipe)
            return run
        if run.has_begun:
            raise BadInput(
                f"{folder}: expected an empty folder or this very run, found another run ({change}). Choose another --out (with --init {folder} to begin from these weights), or give the same recipe and data to resume."
            )
        for file in (run.provenance, run.log, run.clock, run.naive, run.anatomy):
            file.unlink(missing_ok=True)
    else:
        check_free(run)
    # The recipe comes last: where it is, the provenance is, too, with the budgets of a plan.
    write_json(run.provenance, {**software(), **wanted, **(notes or {})})
    write_text(run.recipe, head + as_toml(stated_keys(recipe)))
    return run


def _check_unedited(run: Run, recipe: Recipe) -> None:
    """Raise BadInput if recipe.toml is not that of the run any more, because an edited one would change nothing."""
    if not run.recipe.exists() or values_of(f"{run.recipe}") == stated_keys(recipe):
        return
    raise BadInput(
        f"{run.recipe}: expected the recipe that this run began with, found an edited one. Restore it, or train the edited recipe into another --out."
    )


def check_free(run: Run) -> None:
    """Raise BadInput if a folder that is no run yet holds other files than those of a plan."""
    folder = run.folder
    of_plan = {run.recipe, folder / LOCK}
    if not folder.exists() or (folder.is_dir() and set(folder.iterdir()) <= of_plan):
        return
    raise BadInput(
        f"{folder}: expected an empty folder, a plan or a run of this recipe, found other files. Choose another --out."
    )


def software() -> dict[str, Any]:
    """The versions of the software that writes a file, and the notice that it is no medical device."""
    return {
        "voxlate": voxlate.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "notice": NOTICE,
    }
