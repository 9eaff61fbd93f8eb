"""Structural mutations of the files that voxlate writes: parsed, changed in one place, written again, stamped anew.

With the checksum recomputed only a file's schema can refuse the change.
"""

import contextlib
import copy
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tomli_w
from safetensors import numpy

CHECKSUM = "checksum"
Draw = np.random.Generator
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 3, 255, 2**31, 2**63, 10**400, -0.5, 1e-300, 1e30, 1e308, float("inf"), float("-inf"),
    float("nan"), "", "7", "t1", "../../evil", "/", "x" * 300, "[/]", "\x00", "é" * 99, "\ud800", [], {}, [[]], [1, 2],
    ["a"], {"a": 1}, {"low": 1}, [0.0] * 23,
]  # fmt: skip
DTYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every table or list in a value, with each of its keys."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in list(items):
        yield value, key
        yield from places(one)


def change(value: Any, draw: Draw) -> None:
    """Change one place of a tree: its value, type, key, or length."""
    found = list(places(value))
    if not found:
        return
    owner, key = found[draw.integers(len(found))]
    old, way = owner[key], draw.integers(9)
    if way == 0:
        del owner[key]
    elif way == 1:
        _add(owner, key, draw)
    elif way == 2 and isinstance(old, int | float) and not isinstance(old, bool):
        whole = int(old) if np.isfinite(old) else 0
        others = [-old, old * 1e6, old + 1, str(old), float(old), [old], old * 1e-9, whole]
        owner[key] = others[draw.integers(8)]
    elif way == 3 and isinstance(old, list):
        owner[key] = [old[:-1], old * 2, old[::-1], old[:1], dict(enumerate(map(str, old)))][
            draw.integers(5)
        ]
    elif way == 4:
        owner[key] = [old]
    elif way == 5:
        other, place = found[draw.integers(len(found))]
        owner[key] = copy.deepcopy(other[place])
    else:
        owner[key] = ODD[draw.integers(len(ODD))]


def _add(owner: Any, key: Any, draw: Draw) -> None:
    odd = ODD[draw.integers(len(ODD))]
    if isinstance(owner, list):
        owner.insert(key, odd)
    elif draw.random() < 0.5:
        owner[f"{key}_"] = owner.pop(key)
    else:
        owner["more"] = odd


@dataclass
class Packed:
    """A safetensors file in memory."""

    metadata: dict[str, str]
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, whole: bytes) -> "Packed":
        begin = 8 + int.from_bytes(whole[:8], "little")
        return cls(json.loads(whole[8:begin]).get("__metadata__", {}), numpy.load(whole))

    def bytes(self) -> bytes:
        return numpy.save(self.arrays, self.metadata)


def change_arrays(arrays: dict[str, np.ndarray], draw: Draw) -> None:
    """Change one array: its name, type, shape, length, or a value."""
    name = list(arrays)[draw.integers(len(arrays))]
    old, way = arrays[name], draw.integers(9)
    with np.errstate(all="ignore"):
        if way == 0:
            del arrays[name]
        elif way == 1:
            arrays[f"{name}_"] = arrays.pop(name)
        elif way == 2:
            arrays[name] = old.astype(DTYPES[draw.integers(len(DTYPES))])
        elif way == 3:
            arrays[name] = [old.reshape(-1), old[None], old[..., None], old.T][draw.integers(4)]
        elif way == 4 and old.ndim:
            arrays[name] = old[: draw.integers(len(old))]
        elif way == 5:
            arrays[name] = np.zeros((0,) * draw.integers(1, 4), old.dtype)
        elif way == 6:
            arrays["more"] = old
        else:
            odd = [np.nan, np.inf, -np.inf, -1, 0, 1e30, -1e9, 0.5, 300, 1e15][draw.integers(10)]
            new = old.copy().reshape(-1)
            spread = (
                slice(None)
                if draw.random() < 0.3
                else slice(*sorted(draw.integers(len(new) + 1, size=2)))
            )
            new[spread] = np.array(odd, np.float64).astype(old.dtype)
            arrays[name] = new.reshape(old.shape)


def texts_changed(metadata: dict[str, str], draw: Draw) -> None:
    """Change a place of the JSON that a header holds."""
    trees = {key: text if key == CHECKSUM else json.loads(text) for key, text in metadata.items()}
    change(trees, draw)
    for key in list(metadata):
        del metadata[key]
    metadata |= {
        str(key): one if isinstance(one, str) else json.dumps(one) for key, one in trees.items()
    }


def unstamped(_: Packed) -> None:
    """Nothing: these files are read where their checksums are right, since nobody but voxlate writes one."""


STAMPS: dict[str, Callable[[Packed], None]] = {
    "case": unstamped, "weights": unstamped, "naive": unstamped, "anatomy": unstamped,
}  # fmt: skip
# the key of the metadata that holds a form's header; of baselines all keys do, and others have none
HEADERS = {
    "case": "voxlate", "weights": "voxlate", "naive": "", "anatomy": "anatomy",
}  # fmt: skip


def mutated(form: str, whole: bytes, draw: Draw, stamped: bool) -> bytes:
    """The bytes of a file of a form with one thing changed; stamped: its checksum is that of the changed content."""
    if form in STAMPS:
        file = Packed.of(whole)
        if form in HEADERS and draw.random() < 0.6:
            _change_header(form, file, draw)
        else:
            change_arrays(file.arrays, draw)
        if stamped:
            gone = (
                KeyError,
                TypeError,
                ValueError,
                AttributeError,
                RuntimeError,
            )  # what is stamped
            with contextlib.suppress(*gone):
                STAMPS[form](file)
        return file.bytes()
    if form == "json":
        value = json.loads(whole)
        digest = value.pop(CHECKSUM, None)
        change(value, draw)
        if stamped and digest is not None:
            digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
            if draw.random() < 0.1:
                digest = None
        return json.dumps({**value, **({CHECKSUM: digest} if digest else {})}).encode()
    if form == "toml":
        value = tomllib.loads(whole.decode())
        change(value, draw)
        try:
            return tomli_w.dumps(value).encode()
        except (AttributeError, TypeError, ValueError):  # TOML has no such value
            return whole
    if form == "words":
        return _word_changed(whole.decode(), draw).encode()
    raise ValueError(f"expected a form whose structure is known, found {form}")


def _word_changed(text: str, draw: Draw) -> str:
    words = text.split(" ")
    odd = [
        "",
        "nan",
        "inf",
        "-1",
        "1e30",
        "0",
        "0.5",
        "x",
        "1e400",
        words[draw.integers(len(words))],
    ]
    words[draw.integers(len(words))] = odd[draw.integers(len(odd))]
    return " ".join(words)


def _change_header(form: str, file: Packed, draw: Draw) -> None:
    if form == "naive":
        texts_changed(file.metadata, draw)
        return
    key = HEADERS[form]
    value = json.loads(file.metadata[key])
    change(value, draw)
    file.metadata[key] = json.dumps(value)
