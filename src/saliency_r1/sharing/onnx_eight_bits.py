"""Store linear layers of a graph in 8 bits.

A language model that writes one token at a time reads all of its weights for each token, and the time goes
into reading them. Weights of 8 bits are a quarter of what is read. onnxruntime's `MatMulNBits` multiplies
them without converting them back: the weights of each block of 16 have a scale of their own, and so do the
inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_BLOCK = 16
_DOMAIN = "com.microsoft"
_INTEGERS = 4
"""The operator's `accuracy_level` at which products are of whole numbers."""


def store_in_eight_bits(model: Any, part: str) -> None:
    """Replace the products with the weights whose names contain `part`, in place.

    Args:
        model: an ONNX model as torch writes it, where a linear layer is a product with a transposed weight.
        part: part of the names of the weights. A weight stays as it is where the length of its rows is no
            multiple of 16.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {each.name: each for each in graph.initializer if part in each.name}
    turned = {
        node.output[0]: weights[node.input[0]]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in weights
    }
    nodes = []
    stored = []
    for node in graph.node:
        weight = turned.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.dims[1] % _BLOCK:
            nodes.append(node)
            continue
        values, scales = eight_bits(numpy_helper.to_array(weight))
        names = [f"{weight.name}.8bit", f"{weight.name}.scales"]
        stored += [
            numpy_helper.from_array(each, name) for each, name in zip((values, scales), names, strict=True)
        ]
        sizes = {"N": weight.dims[0], "K": weight.dims[1], "bits": 8, "block_size": _BLOCK}
        product = helper.make_node(
            "MatMulNBits",
            [node.input[0], *names],
            node.output,
            node.name,
            domain=_DOMAIN,
            accuracy_level=_INTEGERS,
            **sizes,
        )
        nodes.append(product)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(stored)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))


def eight_bits(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round weights to 255 steps in each block of a row.

    Args:
        weights: float32 (N, K), K a multiple of 16.

    Returns:
        uint8 (N, K / 16, 16), 128 for zero, and the size of a step in each block, float32 (N, K / 16).
    """
    blocks = weights.reshape(len(weights), -1, _BLOCK)
    scales = np.abs(blocks).max(-1) / np.float32(127)
    steps = np.round(blocks / np.where(scales > 0, scales, 1)[..., None])
    return (steps + 128).astype(np.uint8), scales.astype(np.float32)
