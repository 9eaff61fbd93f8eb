"""Files that voxlate wrote, checked against one strict schema each when they are opened, before anything is taken from.

A checksum says that a file is as it was written, not that voxlate wrote it. What a schema lets through holds values of
the right types within stated bounds, finite, and arrays of the right shapes, so that no reader behind it looks again.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from pydantic import Field, StringConstraints, ValidationError
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from voxlate.base.config import adapter, shown
from voxlate.base.errors import BadInput
from voxlate.base.files import whole_file
from voxlate.base.option import MOST_NUMBER as MOST_NUMBER

Others = Literal["forbid"] | None
LARGEST = 1e15  # of a number: squares of it are finite in float32, and no scan holds such values
OLDEST = (0, 7)  # the first version whose files are read
LONGEST_TEXT = 1 << 16
LONGEST_SHOWN = 120  # characters of a value, in a message

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]  # bounds refuse NaN, too
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Positive = Annotated[float, Field(gt=1 / LARGEST, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=MOST_NUMBER)]
Several = Annotated[int, Field(ge=1, le=MOST_NUMBER)]
Length = Annotated[int, Field(ge=1, le=1 << 20)]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=LONGEST_TEXT)]
# of a case, a modality, a part
Name = Annotated[str, StringConstraints(pattern=r"^[^\x00/\\]+$", max_length=1000)]
# no way out of its folder
FileName = Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*$", max_length=250)]
Place = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=4000)]
Split = Annotated[str, StringConstraints(pattern="^(train|val|test)$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ShortDigest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class Widening(TypedDict):
    """The factor by which intervals that were fitted on synthetic heads are widened, and the number of real heads that showed it.

    bone: how many of these show bone in HU; soft: whether only soft tissue is widened, by the factors of its groups.
    """

    factor: Positive
    heads: Several
    bone: NotRequired[Count]
    soft: NotRequired[bool]


@dataclass(frozen=True)
class Record:
    """A file that is read: its place, what it is, and what to do where it is not so; makes the sentences.

    infinite: numbers in it may be NaN or infinite.
    """

    path: Path | str
    what: str
    advice: str
    infinite: bool = False

    def wrong(self, found: object) -> BadInput:
        """The error of a file that is not as voxlate writes it."""
        return BadInput(
            f"{self.path}: expected {self.what} as voxlate writes it, found {found}. {self.advice}"
        )

    def check(self, sound: object, found: object) -> None:
        """Raise BadInput unless something holds; found: what was found where it does not."""
        if not sound:
            raise self.wrong(found)

    def check_checksum(self, stated: str, computed: str) -> None:
        """Raise BadInput unless the checksum that a file states is that of its content."""
        self.check(stated == computed, "a changed file (its checksum differs)")

    def check_version(self, stated: Any, *keys: str) -> None:
        """Raise BadInput where the version of voxlate that a file states under these keys is before OLDEST."""
        for key in keys:
            stated = stated.get(key) if isinstance(stated, dict) else None
        version = re.match(r"(\d{1,9})\.(\d{1,9})", str(stated))
        if version and tuple(map(int, version.groups())) < OLDEST:
            raise self.wrong(f"one of version {version[0]}")

    def table(self, text: str | bytes) -> Any:
        """The content of JSON, without NaN and infinity where these may not be in it."""
        try:
            value = json.loads(text)
            json.dumps(value, allow_nan=self.infinite)
            return value
        except (ValueError, RecursionError) as error:
            raise self.wrong(f"none that can be read ({error})") from error

    def parse(self, kind: Any, text: str | bytes, others: Others = "forbid") -> Any:
        """JSON as an object of a kind: no value is converted, no key may lack or be one too many.

        others: what becomes of other keys; None: as the kind states it. Raises BadInput.
        """
        self.table(text)
        try:
            return adapter(kind).validate_json(text, strict=True, extra=others)
        except ValidationError as error:
            raise self.wrong(_describe(error)) from error

    def fill(self, kind: Any, value: Any, others: Others = "forbid") -> Any:
        """`parse` of what was parsed before."""
        return self.parse(kind, json.dumps(value), others)

    @contextlib.contextmanager
    def tensors(self, framework: str = "numpy") -> Iterator["Tensors"]:
        """The file opened as safetensors; raises BadInput where it is absent, or damaged."""
        import safetensors  # here, because a browser has none

        try:
            with safetensors.safe_open(self.path, framework) as file:
                yield Tensors(self, file)
        except FileNotFoundError as error:
            raise BadInput(
                f"{self.path}: expected {self.what}, found no such file. Check the path."
            ) from error
        except (safetensors.SafetensorError, OSError) as error:
            raise BadInput(
                f"{self.path}: expected {self.what} in a safetensors file, found something else or a part of one ({error}). {self.advice}"
            ) from error


@dataclass(frozen=True)
class Tensors:
    """An open safetensors file; nothing is read of it but what is asked for."""

    record: Record
    file: Any

    @property
    def metadata(self) -> dict[str, str]:
        """The texts in the header."""
        return self.file.metadata() or {}

    @property
    def shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Lengths and type of each array."""
        slices = {name: self.file.get_slice(name) for name in self.file.keys()}  # noqa: SIM118 - no mapping
        return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}

    def text(self, key: str) -> str:
        """An entry of the header; raises BadInput where there is none."""
        self.record.check(key in self.metadata, f"no '{key}' in its header")
        return self.metadata[key]

    @property
    def arrays(self) -> dict[str, Any]:
        """All arrays, of a file whose checksum says that they are as they were written."""
        return {name: self.file.get_tensor(name) for name in self.file.keys()}  # noqa: SIM118 - no mapping


def write_tensors(path: Path | str, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write arrays of numpy, or tensors of torch, and texts as a safetensors file, which appears whole or not at all.

    Every safetensors file of voxlate is written here, read by `Record.tensors`, and holds a `checksum` in its metadata.
    """
    if all(isinstance(array, np.ndarray) for array in arrays.values()):
        from safetensors.numpy import save_file

        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    else:
        from safetensors.torch import save_file  # type: ignore[assignment]  # here, because most readers of records need no torch

        contiguous = {name: array.detach().cpu().contiguous() for name, array in arrays.items()}
    with whole_file(path) as temporary:
        save_file(contiguous, temporary, dict(metadata))


def description(name: str, array: Any) -> str:
    """What most checksums hold of an array in addition to its values; the types of torch have its name before them."""
    return f"{name}{tuple(array.shape)}{array.dtype}"


def checksum(
    text: str, arrays: Mapping[str, Any], describe: Callable[[str, Any], str] = description
) -> str:
    """SHA-256 of a text, and of the descriptions and values of arrays in the order of their names."""
    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(describe(name, array).encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def _bytes(array: Any) -> memoryview:
    """The values of an array or tensor as they are in memory."""
    if not isinstance(array, np.ndarray):
        import torch  # here, because most readers of records need none of it

        # numpy has no bfloat16
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _describe(error: ValidationError) -> str:
    """The first thing that is wrong: where, and what."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{shown(first['input'])} at '{place:.{LONGEST_SHOWN}}' ({first['msg']})"
