"""What scores take from the run that made an image: its naive baselines, and its cohort's transforms."""

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlate.data.naive import Baselines
from voxlate.files import read_json
from voxlate.images.volume import content_hash, is_there
from voxlate.scoring.items import Item
from voxlate.scoring.provenance import run_folders

BASELINES = "naive.safetensors"


@dataclass(frozen=True, eq=False)
class OfRun:
    """The naive baselines of an image's run, and the prepared cohort that it was trained on, where they are there."""

    baselines: Baselines | None
    prepared: Path | None


def of_runs(items: Iterable[Item], naive: Baselines | Path | str | None, prepared: Path | None) -> dict[Item, OfRun]:
    """For each image those of its own run; naive and prepared: what was given for all images instead."""
    given = naive if isinstance(naive, Baselines | None) else Baselines.load(naive)

    @functools.cache
    def of_run(folders: tuple[Path, ...]) -> OfRun:
        stored = [path for folder in folders if (path := folder / BASELINES).is_file()]
        own = Baselines.load(stored[0]) if stored and given is None else given
        return OfRun(own, _prepared_cohort(folders) if prepared is None else prepared)

    return {item: of_run(tuple(run_folders(item.made))) for item in items}


def naive_cases(of_run: Mapping[Item, OfRun]) -> int | dict[str, int] | None:
    """How many training cases the naive baselines are from; by modality, where runs differ; None without any."""
    found = {item.modality: one.baselines.cases for item, one in of_run.items() if one.baselines is not None}
    return found if len(set(found.values())) > 1 else next(iter(found.values()), None)


def _prepared_cohort(folders: Iterable[Path]) -> Path | None:
    for run in folders:
        if (run / "provenance.json").is_file() and (stated := read_json(run / "provenance.json").get("prepared")):
            folder = Path(os.path.normpath(run / str(stated)))
            return folder if (folder / "cohort.json").is_file() else None
    return None


def stated_warnings(items: Iterable[Item]) -> dict[str, list[Any]]:
    """What synth warned of, by case, and where an image was made of other scans than its truth's case has."""
    found = dict[str, list[Any]]()
    for item in items:
        for note in [*item.made.get("warnings", []), *_of_others(item)]:
            if note not in (mine := found.setdefault(item.case.case, [])):
                mine.append(note)
    return found


def _of_others(item: Item) -> list[str]:
    """A sentence for each scan that an image was made of, where the truth's case has another of its name."""
    found = []
    for name, stated in item.made.get("inputs", {}).items():
        own, content = item.case.files.get(name), stated.get("sha256")
        if content and own is not None and is_there(own) and content_hash(own) != content:
            found.append(f"It was made of another {name} than the one next to its truth: is it the same patient?")
    return found


def bounds(items: Iterable[Item]) -> dict[str, float]:
    """MAE of 255 network units of the autoencoder alone, by modality that a latent model makes."""
    return {
        item.modality: found for item in items if (found := item.made.get("bound", {}).get(item.modality)) is not None
    }
