"""The schema of the provenance that `train` writes, and what scores and reports read in it."""

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from voxlate.base.files import read_json
from voxlate.base.records import (
    Name,
    Place,
    Positive,
    Record,
    Several,
    ShortDigest,
    Split,
    Text,
)
from voxlate.scans.formats.format import errors_as
from voxlate.synthesis.provenance import Provenance, Table, read_synthesis, run_folders
from voxlate.training.recipe.text import stored_recipe

PROVENANCE = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a plan gives a stage: seconds, and the largest useful number of steps."""

    seconds: Positive
    most_steps: Several


Budgets = Mapping[str, Budget]
"""The budgets by stage; a stage without one has the steps of its recipe."""


class TrainedData(TypedDict, total=False):
    """What a run was trained on: its cohort, or the file that it was imported from."""

    cohort: Text
    start: Text | None
    splits: dict[Split, list[Name]]
    fold: Annotated[int, Field(ge=0, le=4)]
    imported: dict[Text, Text]


class Adapted(TypedDict):
    """The weights that a run was adapted from, and whether these were calibrated."""

    weights: ShortDigest
    calibrated: bool


class RunProvenance(TypedDict):
    """The checked keys of the provenance of a run; others, such as versions of software, are passed on."""

    recipe: dict[Text, Any]  # checks itself where it is read
    data: TrainedData
    prepared: NotRequired[Place]
    inherited_voxels: NotRequired[list[ShortDigest]]
    budgets: NotRequired[dict[Name, Budget]]
    adapted: NotRequired[Adapted]
    starters: NotRequired[dict[Text, Text]]


def read_run(path: Path) -> Any:
    """The provenance.json of a run (a RunProvenance); raises BadInput if its form is not that of `train`."""
    advice = "Restore the file: it states which cases were used for training."
    record = Record(path, "the provenance of a training", advice)
    content: Table = read_json(path)
    record.check_version(content, "voxlate")
    record.fill(RunProvenance, content, others=None)
    with errors_as(f"{path}: expected the recipe of a training, found another table", advice):
        content["recipe"] = stored_recipe(content["recipe"])
    return content


def first_run(folders: Iterable[Path]) -> Path | None:
    """The first of these folders that holds the provenance of a run, not one of images; None if there is none."""
    for folder in folders:
        path = folder / PROVENANCE
        if path.is_file() and not read_synthesis(path):
            return folder
    return None


def stated_place(run: Path, stated: str) -> Path:
    """A folder that the provenance of a run states relative to the run."""
    return Path(os.path.normpath(run / stated))


def data_of_training(folders: Iterable[Path]) -> TrainedData:
    """What the first of these folders that is a run states of its training's cohort; {} if there is none."""
    run = first_run(folders)
    data: TrainedData = {} if run is None else read_run(run / PROVENANCE)["data"]
    return data


def find_trained(images: Iterable[tuple[str, Provenance]]) -> list[str]:
    """The names of cases on which the models of their images were trained, by the provenance of image or run.

    images: case and provenance of each image.
    """
    data_of = functools.cache(data_of_training)
    names = dict[str, None]()
    for case, provenance in images:
        split = provenance.get("split")
        if not split:
            splits = data_of(tuple(run_folders(provenance))).get("splits", {})
            split = "train" if provenance.get("case", case) in splits.get("train", ()) else ""
        if split == "train":
            names[case] = None
    return list(names)
