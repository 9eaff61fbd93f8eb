"""The schema of the provenance that `train` writes, and what scores and reports read in it."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from voxlate.base.files import read_json
from voxlate.base.records import (
    Count,
    Name,
    Place,
    Positive,
    Record,
    Several,
    ShortDigest,
    Split,
    Text,
)
from voxlate.synthesis.provenance import Provenance, Table, run_folders
from voxlate.training.recipe.text import stored_recipe


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a plan gives a stage: seconds, and the largest useful number of steps."""

    seconds: Positive
    most_steps: Several


Budgets = Mapping[str, Budget]
"""The budgets by stage; a stage without one has the steps of its recipe."""


class _Data(TypedDict, total=False):
    cohort: Text
    start: Text | None
    splits: dict[Split, list[Name]]
    replay: Text
    fold: Annotated[int, Field(ge=0, le=4)]


class ShownTraining(TypedDict, total=False):
    """The keys of a stage's training that are read before it checks itself."""

    more: list[Several] | None


class ShownStage(TypedDict, total=False):
    name: Text
    train: ShownTraining


class _Recipe(TypedDict, total=False):
    train: ShownTraining
    stages: list[ShownStage]


class _Continued(TypedDict):
    asked: Text
    from_step: Count
    steps: Several
    voxlate: Text
    torch: Text


class Adapted(TypedDict):
    """The weights that a run was adapted from, and whether these were calibrated."""

    weights: ShortDigest
    calibrated: bool


class _Trained(TypedDict, total=False):
    """The checked keys of the provenance of a run or an image; the recipe checks itself further."""

    data: _Data
    recipe: _Recipe
    prepared: Place | Table  # a path in the provenance of a run, a table in that of an image
    inherited_voxels: list[ShortDigest]
    continuations: list[_Continued]
    budgets: dict[Name, Budget]
    replayed: Place
    adapted: Adapted
    starters: dict[Text, Text]


def read_run(path: Path) -> Table:
    """The provenance.json of a run; raises BadInput if its form is not that of `train`."""
    advice = "Restore the file: it states which cases were used for training."
    record = Record(path, "the provenance of a training", advice)
    content: Table = read_json(path)
    record.check_version(content, "voxlate")
    record.fill(_Trained, content, others=None)
    if isinstance(content.get("recipe"), dict):
        content["recipe"] = stored_recipe(content["recipe"])
    return content


def splits_of_training(folders: Iterable[Path]) -> dict[str, list[str]]:
    """The cases of each split in the training of the first of these folders that is a run; {} if there is none."""
    return data_of_training(folders).get("splits", {})


def data_of_training(folders: Iterable[Path]) -> _Data:
    """What the first of these folders that is a run states of its training's cohort; {} if there is none."""
    for folder in folders:
        if (path := folder / "provenance.json").is_file():
            data: _Data = read_run(path).get("data", {})
            if data.get("splits"):
                return data
    return {}


def find_trained(images: Iterable[tuple[str, Provenance]]) -> list[str]:
    """The names of cases on which the models of their images were trained, by the provenance of image or run.

    images: case and provenance of each image.
    """
    splits_of = functools.cache(splits_of_training)
    names = dict[str, None]()
    for case, provenance in images:
        split = provenance.get("split")
        if not split:
            training = splits_of(tuple(run_folders(provenance))).get("train", ())
            split = "train" if provenance.get("case", case) in training else ""
        if split == "train":
            names[case] = None
    return list(names)
