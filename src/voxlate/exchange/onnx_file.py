"""What an ONNX file states of itself, read without running it: its opset, and where its weights are.

A file of ONNX is a message of Protocol Buffers: fields, each a number and a kind of value (encoding: protobuf.dev).
"""

from collections.abc import Iterator
from pathlib import Path

from voxlate.base.errors import BadInput

# Numbers of fields in onnx.proto.
GRAPH, OPSETS, FUNCTIONS = 7, 8, 25  # of a model
DOMAIN, VERSION = 1, 2  # of an opset
NODES, INITIALISERS, SPARSE = 1, 5, 15  # of a graph; nodes of a function are its field 7
ATTRIBUTES = 5  # of a node
TENSOR, SUBGRAPH, TENSORS, SUBGRAPHS = 5, 6, 10, 11  # of an attribute
EXTERNAL, LOCATION = 13, 14  # of a tensor
OWN_DOMAINS = (b"", b"ai.onnx")


def check_graph(path: Path, stated_opset: int, newest_opset: int) -> None:
    """Raise BadInput for a graph of another opset than stated, one that is too new, and one with weights elsewhere."""
    try:
        model = path.read_bytes()
        opset = _opset(model)
        is_whole = not any(map(_has_external, _graphs_and_functions(model)))
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


def _graphs_and_functions(model: bytes) -> Iterator[tuple[bytes, int]]:
    """The graphs and functions of a model, each with the number of the field that holds its nodes."""
    for number, value in fields(model):
        if isinstance(value, bytes) and number in (GRAPH, FUNCTIONS):
            yield value, NODES if number == GRAPH else GRAPH


def _has_external(part: tuple[bytes, int]) -> bool:
    """Whether a graph has a tensor outside its file, in its initialisers or in attributes of its nodes."""
    graph, nodes = part
    for number, value in fields(graph):
        if not isinstance(value, bytes):
            continue
        if nodes == NODES and (
            number == SPARSE or (number == INITIALISERS and _is_external(value))
        ):
            return True  # sparse weights, which no export writes, may be elsewhere as well
        if number == nodes and any(map(_is_elsewhere, fields(value))):
            return True
    return False


def _is_elsewhere(field: tuple[int, int | bytes]) -> bool:
    """Whether a field of a node is an attribute with a tensor outside the file."""
    number, attribute = field
    if number != ATTRIBUTES or not isinstance(attribute, bytes):
        return False
    for kind, value in fields(attribute):
        if not isinstance(value, bytes):
            continue
        if kind in (TENSOR, TENSORS) and _is_external(value):
            return True
        if kind in (SUBGRAPH, SUBGRAPHS) and _has_external((value, NODES)):
            return True
    return False


def _is_external(tensor: bytes) -> bool:
    return any(
        number == EXTERNAL or (number == LOCATION and value != 0)
        for number, value in fields(tensor)
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
