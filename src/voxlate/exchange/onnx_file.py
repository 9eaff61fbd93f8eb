"""What an ONNX file states of itself, read without running it: its opset, and where its weights are.

A file of ONNX is a message of Protocol Buffers: fields, each a number and a kind of value (encoding: protobuf.dev).
"""

from collections.abc import Iterator
from pathlib import Path

from voxlate.base.errors import BadInput

# Numbers of fields in onnx.proto.
OPSETS = 8  # of a model
DOMAIN, VERSION = 1, 2  # of an opset
EXTERNAL, LOCATION = 13, 14  # of a tensor
# Of the messages that may hold tensors: the fields with such messages, and what each of them is.
PARTS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
OWN_DOMAINS = (b"", b"ai.onnx")


def check_graph(path: Path, stated_opset: int, newest_opset: int) -> None:
    """Raise BadInput for a graph of another opset than stated, one that is too new, and one with weights elsewhere."""
    try:
        model = path.read_bytes()
        opset = _opset(model)
        is_whole = not _has_external("model", model)
    except (IndexError, ValueError) as error:
        raise BadInput(
            f"{path}: expected a graph of ONNX, found something else. Copy the folder again."
        ) from error
    if not is_whole:
        raise BadInput(
            f"{path}: expected all weights inside the file, found weights in another file. Export the run again."
        )
    if opset > newest_opset:
        raise BadInput(
            f"{path}: expected opset {newest_opset} or an older one, found {opset}. Install a newer voxlate-run."
        )
    if opset != stated_opset:
        raise BadInput(
            f"{path}: expected opset {stated_opset}, as model.json states, found {opset}. Export the run again."
        )


def _opset(model: bytes) -> int:
    """The version of ONNX's own operators; 0 where none is stated."""
    for number, value in fields(model):
        if number == OPSETS and isinstance(value, bytes):
            stated = dict(fields(value))
            if stated.get(DOMAIN, b"") in OWN_DOMAINS:
                return int(stated.get(VERSION, 0))
    return 0


def _has_external(kind: str, message: bytes) -> bool:
    """Whether a message is a tensor outside its file, or has one in it."""
    if kind == "sparse tensor":
        return True  # no export writes one, and it may be elsewhere as well
    if kind == "tensor":
        return any(
            number == EXTERNAL or (number == LOCATION and value != 0)
            for number, value in fields(message)
        )
    parts = PARTS[kind]
    return any(
        number in parts and isinstance(value, bytes) and _has_external(parts[number], value)
        for number, value in fields(message)
    )


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: the number of each, and its value as an integer or as bytes."""
    view = memoryview(message)
    place = 0
    while place < len(view):
        key, place = _varint(view, place)
        kind, value = key & 7, 0
        if kind == 0:
            value, place = _varint(view, place)
            yield key >> 3, value
            continue
        if kind == 2:
            length, place = _varint(view, place)
        else:
            length = {1: 8, 5: 4}.get(kind, -1)
        if length < 0 or place + length > len(view):
            raise ValueError("a field that does not end")
        yield key >> 3, bytes(view[place : place + length])
        place += length


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number that does not end")
