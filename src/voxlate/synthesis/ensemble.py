"""Several runs as one model: the mean of their images, and the standard deviation over all of them."""

import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.errors import BadInput
from voxlate.images.grid import Volume
from voxlate.recipe import Recipe
from voxlate.synthesis.calls import PatchProgress, Warn, no_report, reporting, warned
from voxlate.synthesis.inputs import Scan
from voxlate.synthesis.model import COST, Answer, Model, load
from voxlate.synthesis.result import Synthesised
from voxlate.training.run import Run

OF_EACH = ("peaks", "network_units", "bound", "empty")  # entries that hold of it where they hold of every member
UNLIKE = 1.25  # times as wide as another: folds of one cohort differ by a percent
UNLIKE_ENDS = 0.1  # of the narrower window: folds plan upper ends that differ by a few percent
WAY_OF_EACH = ("synth", "axes", "range")


@dataclass(frozen=True)
class Ensemble:
    """Models of the same task: makes the mean of their images, each the mean of its samples, with their spread.

    Members see the same noise; they may differ in all but what they make, of what, in which units. Raises BadInput
    where they do not.
    """

    members: tuple[Model, ...]

    def __post_init__(self) -> None:
        first, *others = self.members
        for one in others:
            if (found := _makes(one)) != (wanted := _makes(first)):
                raise BadInput(
                    f"{one.origin}: expected a model that makes {wanted}, as {first.origin} does, found one that makes "
                    f"{found}. Leave it out, or run synth for each."
                )
            _check_levels(one, first)

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.members))})"

    @property
    def first(self) -> Model:
        return self.members[0]

    @property
    def recipe(self) -> Recipe:
        """That of the first member: what is given and made is the same in all."""
        return self.first.recipe

    @property
    def origins(self) -> tuple[Path, ...]:
        """Where the members lie."""
        return tuple(one.origin for one in self.members)

    @property
    def scan_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for one in self.members for name in one.scan_names))

    @property
    def unchecked(self) -> str:
        """A sentence where no member can check orientation, field of view and modality of scans; else ''."""
        return "" if any(not one.unchecked for one in self.members) else self.first.unchecked

    def with_options(self, **changes: Any) -> "Ensemble":
        """The same models with other synthesis options (see Model.with_options)."""
        return Ensemble(tuple(one.with_options(**changes) for one in self.members))

    def without_intervals(self) -> "Ensemble":
        """The same models: an ensemble has none."""
        return self

    def with_synthesis_of(self, other: Recipe) -> "Ensemble":
        """The same models with the [synth] of another recipe (see Model.with_synthesis_of)."""
        return Ensemble(tuple(one.with_synthesis_of(other) for one in self.members))

    def check_names(self, scans: Collection[str], case: str) -> None:
        """Raise BadInput where modalities that a member needs are not among a case's scans."""
        for one in self.members:
            one.check_names(scans, case)

    def files_of(self, scans: Collection[str]) -> list[str]:
        """Names of the images' files that are made of a case with these scans."""
        return self.first.files_of(scans)

    def synthesise(
        self,
        scans: Mapping[str, Scan] | Scan,
        *,
        case: str = "case",
        seed: int = 0,
        progress: PatchProgress | bool = no_report,
        warn: Warn = warned,
        **options: Any,
    ) -> Synthesised:
        """Make the target modalities from scans, as Model.synthesise does; the spread is over members and samples."""
        ensemble, pool, made = self.with_options(**options), _Pool(), list[dict[str, Any]]()
        for number, one in enumerate(ensemble.members):
            reported = _shifted(reporting(progress), number, len(self.members))
            image = one.synthesise(scans, case=case, seed=seed, progress=reported, warn=no_report)
            pool.add(image, one.recipe.synth.samples, case)
            made.append(image.provenance)
        first, (calls, seconds, _) = made[0], COST
        notes = list(dict.fromkeys(note for one in made for note in one.get("warnings", ())))
        for sentence in notes:
            warn(sentence)
        shared = {key for key in first if key not in OF_EACH or all(one.get(key) == first[key] for one in made)}
        provenance = {
            **{key: value for key, value in first.items() if key in shared},
            **ensemble.plan({}, seed),
            "inputs": first["inputs"],
            **{key: sum(one[key] for one in made) for key in (calls, seconds)},
            **({"warnings": notes} if notes else {}),
            **({"in_training": True} if any(one.get("in_training") for one in made) else {}),
        }
        return Synthesised(pool.mean, pool.std(), provenance, self.first.mark)

    def plan(self, files: Mapping[str, Path | str], seed: int) -> dict[str, Any]:
        """All that decides a case's images; `members` says what differs between the models."""
        plans = [self.first.plan(files, seed), *(one.plan({}, seed) for one in self.members[1:])]
        models = [plan["model"] for plan in plans]
        weights = hashlib.sha256("".join(one["weights"] for one in models).encode()).hexdigest()[:16]
        title = f"{models[0]['title']} (ensemble of {len(models)})"
        members = [{**plan["model"], **{key: plan[key] for key in WAY_OF_EACH}} for plan in plans]
        return {**plans[0], "model": {"title": title, "weights": weights}, "members": members}


def load_members(
    runs: Sequence[Path | str], device: str = "auto", allow_code: bool = False, answer: Answer | None = None
) -> Model | Ensemble:
    """Open a run or weights file, or several as an ensemble; raises BadInput (see model.load)."""
    models = tuple(load(one, device, allow_code, answer) for one in runs)
    # a member's calibration says nothing of their mean
    return models[0] if len(models) == 1 else Ensemble(tuple(one.without_intervals() for one in models))


def members_and_scans(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Part arguments into the runs and weights files that they begin with and the rest, which names scans."""
    models = [*itertools.takewhile(_is_model, map(Path, inputs))]
    if len(models) == len(inputs):
        raise BadInput(f"INPUT: expected scans after the runs, found only runs ({', '.join(inputs)}). Add a cohort.")
    return models, list(inputs[len(models) :])


def _is_model(path: Path) -> bool:
    """Whether a path is a weights file, or the folder of a run, finished or not."""
    if path.is_dir():
        return Run(path).recipe.is_file() or Run(path).weights().is_file()
    return path.suffix == ".safetensors" and path.is_file()


def _makes(model: Model) -> str:
    """What a model makes of what, in which units, in words."""
    data, units = model.recipe.data, model.header["units"]
    made, given = (
        " + ".join(f"{name} [{units.get(name, 'a.u.')}]" for name in names) for names in (data.target, data.source)
    )
    return f"what is missing of {made}" if model.recipe.task.completes else f"{made} of {given}"


def _check_levels(one: Model, first: Model) -> None:
    """Raise BadInput where members make scans of another brightness or window: their mean would be of neither."""
    for name, (low, high) in one.header["target_scales"].items():
        least, most = first.header["target_scales"].get(name, (low, high))
        wide, wider = sorted((high - low, most - least))
        if one.recipe.intensity[name].window is not None:
            if max(abs(low - least), abs(high - most)) > UNLIKE_ENDS * wide:
                raise BadInput(
                    f"{one.origin}: expected the window of {name} that {first.origin} has ({least:g} to {most:g}), "
                    f"found {low:g} to {high:g}: what lies beyond one of them, such as air, would be a mean of two "
                    "ends. Leave it out, or run synth for each."
                )
        elif wider > UNLIKE * wide:
            raise BadInput(
                f"{one.origin}: expected {name} as bright as that of {first.origin} ({least:.4g} to {most:.4g} in the "
                f"median training case), found {low:.4g} to {high:.4g}: a mean would be of neither. Leave it out, or "
                "run synth for each."
            )


def _shifted(progress: PatchProgress, number: int, count: int) -> PatchProgress:
    """Progress of one member as that of all."""
    return lambda done, total: progress(number * total + done, count * total)


@dataclass
class _Pool:
    """Mean of the members' images and the spread over all images, one member at a time (Welford 1962).

    All images of a member count as much together as those of another. With n_i images of mean m_i and variance v_i of
    member i of M (law of total variance, without bias): (sum (m_i - m)^2 + (1 - 1/n_i) v_i) / (M - sum 1/n_i / M).
    """

    mean: dict[str, Volume] = field(default_factory=dict)
    squares: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    count: int = 0
    shares: float = 0.0

    def add(self, made: Synthesised, samples: int, case: str) -> None:
        """Add a member's images and their standard deviation over its samples."""
        self.count, self.shares = self.count + 1, self.shares + 1 / samples
        for name, image in made.volumes.items():
            before = self.mean.get(name, replace(image, data=np.zeros_like(image.data)))
            if before.grid != image.grid:
                raise BadInput(
                    f"{case}: expected {name} on the same grid from every member, found {before.grid} and "
                    f"{image.grid}: they were prepared in other ways. Leave one out, or run synth for each."
                )
            step = image.data - before.data
            mean = before.data + step / np.float32(self.count)
            squares = self.squares.get(name, np.zeros_like(step)) + step * (image.data - mean)
            if name in made.std:
                squares += np.float32(1 - 1 / samples) * np.square(made.std[name].data)
            self.mean[name], self.squares[name] = replace(before, data=mean), squares

    def std(self) -> dict[str, Volume]:
        """The standard deviation over all images, by modality."""
        freedom = np.float32(self.count - self.shares / self.count)
        return {name: replace(self.mean[name], data=np.sqrt(one / freedom)) for name, one in self.squares.items()}
