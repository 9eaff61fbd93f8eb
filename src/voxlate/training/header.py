"""The header of a weights file: its strict schema, and the checks that it agrees with its tensors."""

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.errors import BadInput
from voxlate.base.records import (
    Count,
    Digest,
    Name,
    NotNegative,
    Number,
    Positive,
    ShortDigest,
    Tensors,
    Text,
)
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case_header import Unit
from voxlate.synthesis.intensity_checks import POINTS
from voxlate.training.recipe.run_provenance import Adapted, ShownStage, ShownTraining

LEAST_SIZE = 4096  # numbers up to this one are allowed in all settings of a network
NUMBERS = re.compile(r"\d+(?:\.\d+)?(?:e\+?\d+)?")


class _Data(TypedDict):
    source: list[Text]
    target: list[Text]


class _Recipe(TypedDict):
    """The keys of a recipe that are read before it checks itself."""

    title: Text
    data: _Data
    stages: NotRequired[list[ShownStage]]
    train: ShownTraining
    net: dict[str, Any]


class _WithRecipe(TypedDict):
    recipe: _Recipe


class _Software(TypedDict):
    voxlate: Text
    python: Text
    torch: Text
    numpy: Text
    nibabel: Text
    safetensors: Text
    notice: Text


Points = Annotated[list[Number], Field(min_length=len(POINTS), max_length=len(POINTS))]


class _Span(TypedDict):
    low: Points
    high: Points


class _Starter(TypedDict):
    """What the weights of a starter state of it: its name, and the names by which cohorts call its modalities."""

    name: Name
    trained_on: Text
    accepts: dict[Name, list[Name]]


class Header(TypedDict):
    """All data that synthesis needs in addition to the tensors."""

    recipe: dict[str, Any]
    units: dict[Text, Unit]
    target_scales: dict[Text, tuple[Number, Number]]
    target_widths: NotRequired[dict[Text, tuple[NotNegative, NotNegative]]]
    preparation: Preparation
    training_ranges: NotRequired[dict[Text, _Span]]
    training_spacing_mm: NotRequired[tuple[Positive, Positive, Positive] | None]
    imports: NotRequired[list[Text]]
    imported: NotRequired[dict[str, Any]]
    starter: NotRequired[_Starter]
    adapted: NotRequired[Adapted]
    kept_step: NotRequired[Count]
    sharpness: NotRequired[Annotated[Number, Field(ge=0, le=1)]]
    bound: NotRequired[dict[Text, NotNegative]]
    worse: NotRequired[dict[Text, Text]]
    parameters: Count
    steps: Count
    seconds: NotNegative
    training_cases: Count
    training_ml: NotRequired[NotNegative]
    training_voxels: NotRequired[list[ShortDigest]]
    training_signatures: NotRequired[list[Text]]
    made_by: _Software
    sha256: Digest


def header_of(file: Tensors) -> dict[str, Any]:
    """The header of an open weights file; raises BadInput if its types are wrong or its entries contradict each other."""
    record = file.record
    if "voxlate" not in file.metadata:
        raise BadInput(
            f"{record.path}: expected weights that voxlate saved, found a file without its header. Check the path."
        )
    text = file.metadata["voxlate"]
    header: dict[str, Any] = record.table(text)
    record.check_version(header, "made_by", "voxlate")
    record.parse(Header, text)
    recipe = record.fill(_WithRecipe, {"recipe": header["recipe"]}, others=None)["recipe"]
    targets = set(recipe["data"]["target"])
    names = targets.union(recipe["data"]["source"])
    for key, wanted in (("units", names), ("target_scales", targets), ("target_widths", targets)):
        same = header.get(key, {}).keys() == wanted
        record.check(same or key not in header, f"'{key}' of other modalities")
    _check_sizes(file, header["recipe"])
    return header


def _check_sizes(file: Tensors, recipe: Mapping[str, Any]) -> None:
    """Raise BadInput if the settings name a network far larger than the tensors, which would take minutes to build."""
    sizes = [math.prod(lengths) for lengths, _ in file.shapes.values()]
    largest = max(LEAST_SIZE, len(sizes), *sizes)
    for stage in (recipe, *recipe.get("stages", ())):
        settings = json.dumps([stage.get("net"), stage.get("method")])
        for number in NUMBERS.findall(settings):
            found = f"a network of {number:.40} in the recipe, which its tensors are not"
            file.record.check(float(number) <= largest, found)
