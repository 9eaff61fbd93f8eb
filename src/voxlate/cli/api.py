"""The commands in Python: voxlate.prepare, plan, train, synthesise, evaluate, compare; what they give shows itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from voxlate.data.prepare import prepare
from voxlate.images.volume import read_volume
from voxlate.planning.plan import Mode, Plan, planned_once
from voxlate.planning.plan import plan as _plan
from voxlate.planning.probe import Limits, free_memory
from voxlate.recipe import Recipe, read_with_head
from voxlate.scoring.compare import compare
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.items import images_in, is_map
from voxlate.synthesis.calibrate import calibrate as _calibrate
from voxlate.synthesis.calibrate import held_back
from voxlate.synthesis.ensemble import Ensemble, load_members
from voxlate.synthesis.folder import find_scans, sort_out, synthesise_cases
from voxlate.synthesis.model import Model, Synthesised, load
from voxlate.training.run import Run
from voxlate.training.train import train as _train
from voxlate.trust.words import sentences

__all__ = ["calibrate", "compare", "evaluate", "load", "plan", "prepare", "synthesise", "train"]


def plan(
    data: Path | str,
    *,
    minutes: float = 60,
    source: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    memory_bytes: float | None = None,
    mode: Mode = "both",
    device: str = "auto",
    **options: Any,
) -> Plan:
    """A recipe for a prepared cohort, with a reason for each key; memory_bytes: by default most of what is free.

    options: as of planning.plan.plan.
    """
    limits = Limits(float(minutes), free_memory(device) if memory_bytes is None else memory_bytes)
    given, made = ((one,) if isinstance(one, str) else tuple(one) for one in (source, target))
    return _plan(data, source=given, target=made, limits=limits, mode=mode, device=device, **options)


def train(
    recipe: Plan | Recipe | Path | str,
    data: Path | str,
    out: Path | str,
    *,
    changes: Mapping[str, str] | None = None,
    minutes: float = 60,
    device: str = "auto",
    **options: Any,
) -> Run:
    """Train a plan, a recipe (shipped, or a file) or "auto", planned for so many minutes; the same call resumes.

    changes: keys of the recipe, as {"train.steps": "500"}; options: as of training.train.train.
    """
    if recipe == "auto":
        chosen, head, made = planned_once(
            Path(out), lambda: plan(data, minutes=minutes, device=device).changed(changes or {}), device
        )
        options.setdefault("pace", made and made.pace(options.get("say", lambda _: None)))
    elif isinstance(recipe, Recipe):
        chosen, head = recipe, ""
    elif isinstance(recipe, Plan):
        chosen, head = recipe.changed(changes or {}).with_head
    else:
        chosen, head = read_with_head(str(recipe), changes)
    return _train(chosen, Path(data), Path(out), head=head, device=device, **options)


@dataclass(frozen=True)
class Syntheses:
    """A folder of made images: its cases, and a sentence for each that was left out."""

    folder: Path
    cases: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def show(self, case: str | None = None) -> Image.Image:
        """Middle slices of the images of a case, by default of the first."""
        folder = self.folder / (case or self.cases[0])
        found = images_in(folder)
        shown = {name: read_volume(path) for name, path in found.items() if not is_map(name, found)}
        return Synthesised(shown, {}, {}).show()

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_() or b""


def synthesise(
    run: Model | Ensemble | Path | str | Sequence[Path | str],
    inputs: Path | str | Sequence[str],
    out: Path | str,
    *,
    split: str | None = None,
    seed: int = 0,
    answer: Any = None,
    device: str = "auto",
    **options: Any,
) -> Syntheses:
    """Make the targets of a cohort, a case or modality=path pairs; options: of its synth table (samples=10).

    Of several runs their mean and spread are made.
    """
    if not isinstance(run, Model | Ensemble):
        run = load_members([run] if isinstance(run, Path | str) else run, device, answer=answer)
    model = run.with_options(**options)
    texts = [str(inputs)] if isinstance(inputs, Path | str) else list(inputs)
    fitting, lacking, _ = sort_out(model, find_scans(texts, model, split=split))
    folders, failed = synthesise_cases(model, fitting, Path(out), seed=seed, lacking=lacking)
    return Syntheses(Path(out), tuple(one.name for one in folders), {**lacking, **failed})


def calibrate(
    run: Model | Path | str,
    cohort: Path | str,
    *,
    split: str | None = None,
    answer: Any = None,
    device: str = "auto",
    samples: int | None = None,
    **options: Any,
) -> list[str]:
    """Let held-back patients say how far a run's images can be trusted; gives what they said, a sentence each.

    options: coverage, confidence, bound, regions, seed (see synthesis.calibrate). The calibration lies in the run.
    """
    model = (run if isinstance(run, Model) else load(run, device, answer=answer)).with_options(samples=samples)
    _, made = _calibrate(model, held_back(model, Path(cohort), split), split=split, **options)
    return sentences(made.header)
