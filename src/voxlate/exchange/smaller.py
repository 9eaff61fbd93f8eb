"""Smaller weights of a graph: they are stored in fewer bits, and computed with in float32."""

from pathlib import Path

import numpy as np

from voxlate.synthesis.exported import Weights

LEAST_NUMBERS = 1024  # numbers of an array that is stored in fewer bits


def shrink_weights(path: Path, weights: Weights) -> None:
    """Store the large arrays of a graph of ONNX as float16, or as int8 with a factor for each output channel.

    Casts and factors are folded when the graph is opened, so that no step is slower.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph = model.graph
    nodes = []
    for initialiser in list(graph.initializer):
        array = numpy_helper.to_array(initialiser)
        if array.dtype != np.float32 or array.size < LEAST_NUMBERS:
            continue
        name = initialiser.name
        graph.initializer.remove(initialiser)
        if weights == "float16":
            graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), f"{name}.h"))
            nodes.append(helper.make_node("Cast", [f"{name}.h"], [name], to=TensorProto.FLOAT))
            continue
        largest = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)
        factor = np.maximum(largest / 127, 1e-12).astype(np.float32)
        whole = np.rint(array / factor).astype(np.int8)
        for end, part in (("i", whole), ("f", factor)):
            graph.initializer.append(numpy_helper.from_array(part, f"{name}.{end}"))
        nodes += [
            helper.make_node("Cast", [f"{name}.i"], [f"{name}.c"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.c", f"{name}.f"], [name]),
        ]
    whole_graph = [*nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(whole_graph)
    onnx.save(model, str(path))
