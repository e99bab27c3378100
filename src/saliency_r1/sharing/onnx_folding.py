"""Work out ahead what is constant in a graph, so that it opens quickly.

onnxruntime does so too, each time it opens a graph; most of a traced graph works out shapes. What depends on
weights stays as it is, because the weights are in another file.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

_LARGE = 4096
"""Constants of more elements are not written out."""


def fold(model: Any) -> None:
    """Replace the nodes of a graph whose outputs are always the same by these outputs, in place."""
    before = 0
    # Where a shape becomes known, those behind it do next time.
    while (count := len(model.graph.node)) != before:
        before = count
        _fold_once(model)


def _fold_once(model: Any) -> None:
    import onnx
    from onnx import numpy_helper

    shapes = _static_shapes(onnx.shape_inference.infer_shapes(model))
    graph = model.graph
    held = {
        each.name: numpy_helper.to_array(each)
        for each in graph.initializer
        if not each.external_data and np.prod(each.dims) <= _LARGE
    }
    kept = []
    for node in graph.node:
        values = _outputs(node, held, shapes, model.opset_import)
        if values is None or any(value.size > _LARGE for value in values):
            kept.append(node)
        else:
            held.update(zip(node.output, values, strict=True))
    kept = _needed(kept, [output.name for output in graph.output])
    read = {name for node in kept for name in node.input}
    renamed: dict[str, str] = {}
    first: dict[tuple, str] = {}
    stored = {each.name: each for each in graph.initializer}
    for name, value in held.items():
        if name not in read:
            continue
        same = first.setdefault((value.dtype.str, value.shape, value.tobytes()), name)
        renamed[name] = same
        if same == name and name not in stored:
            stored[name] = numpy_helper.from_array(np.array(value, order="C"), name)
    for node in kept:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(value for name, value in stored.items() if name in used)


def _static_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    found = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(size.HasField("dim_value") for size in sizes):
            found[value.name] = tuple(size.dim_value for size in sizes)
    found.update((each.name, tuple(each.dims)) for each in graph.initializer)
    return found


def _outputs(node: Any, held: dict[str, np.ndarray], shapes: dict, opset: Any) -> list[np.ndarray] | None:
    """Return the outputs of a node if they are always the same."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Constant" and node.attribute[0].name == "value":
        return [numpy_helper.to_array(node.attribute[0].t)]
    if node.op_type == "Shape" and not node.attribute and node.input[0] in shapes:
        return [np.array(shapes[node.input[0]], np.int64)]
    if node.op_type == "Constant" or not all(name in held for name in node.input if name):
        return None
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(held[name].dtype), None)
        for name in dict.fromkeys(filter(None, node.input))
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=opset)
    given = {each.name: held[each.name] for each in inputs}
    return [np.asarray(value) for value in ReferenceEvaluator(alone).run(None, given)]


def _needed(nodes: list, outputs: list[str]) -> list:
    """Return the nodes, in order, that the outputs depend on."""
    wanted, found = Counter(outputs), []
    for node in reversed(nodes):
        if any(wanted[name] for name in node.output):
            found.append(node)
            wanted.update(node.input)
    return found[::-1]
