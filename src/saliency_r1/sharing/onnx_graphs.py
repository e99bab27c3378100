"""Write graphs of the nano networks in the ONNX format, beside the weights that they read.

A graph holds no weights. It refers to the bytes of `model.safetensors` in its folder and converts them to
float32 when it is opened, so a folder with graphs is hardly larger than one without. Weights of 8 bits are
the exception.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from saliency_r1.checkpoint import WEIGHTS
from saliency_r1.errors import SaliencyError
from saliency_r1.files import write_bytes_atomic
from saliency_r1.nano.configuration import NAME_SLOTS
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.nano.segmenter_model import EncodedImage, NanoSegmenterModel, normalise
from saliency_r1.runtime import ENCODE, LANGUAGE, NAMES, SEGMENT, VISION
from saliency_r1.sharing.onnx_eight_bits import store_in_eight_bits
from saliency_r1.sharing.onnx_folding import fold

_OPSET = 17
_LARGE = 10_000
_FEED_FORWARD = ".mlp."
"""Part of the names of weights that may be stored in 8 bits, two thirds of the language model's weights. With
its last layer in 8 bits, too, fewer texts stay as they are."""


@dataclass(frozen=True)
class _Graph:
    """A network to trace.

    Attributes:
        module: module that holds the network as `model`.
        inputs: example inputs by name.
        outputs: names of the outputs.
        dynamic: names of the sizes that may vary, by input or output and axis.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    dynamic: Mapping[str, Mapping[int, str]]


def write_policy_graphs(folder: Path, *, eight_bits: bool = False) -> None:
    """Write the graphs of the nano policy in a folder.

    Args:
        folder: holds the policy.
        eight_bits: whether the feed-forward layers of its language model get weights of 8 bits, see
            `onnx_eight_bits`.

    Raises:
        SaliencyError: if the package onnx is not installed, or the folder's weights are in several files.
    """
    model = NanoForImageTextToText.from_pretrained(str(folder), dtype=torch.float32).eval()
    stored = _Stored(folder)
    _write(_vision(model), stored, folder / VISION)
    _write(_language(model), stored, folder / LANGUAGE, eight_bits=eight_bits)
    if model.config.name_tree:
        _write(_names(model), stored, folder / NAMES)


def write_segmenter_graphs(folder: Path) -> None:
    """Write the graphs of the nano segmenter in a folder.

    Raises:
        SaliencyError: if the folder holds none, or the package onnx is not installed.
    """
    model = NanoSegmenterModel.from_pretrained(folder).eval()
    stored = _Stored(folder)
    features = EncodedImage._fields
    side = model.config.image_size
    with torch.no_grad():
        encoded = model.encode(torch.zeros(1, 3, side, side))
    pixels = torch.zeros((1, side, side, 3), dtype=torch.uint8)
    words = torch.ones((2, model.config.length), dtype=torch.int64)
    _write(_Graph(_Encode(model), {"pixels": pixels}, features, {}), stored, folder / ENCODE)
    inputs = {**dict(zip(features, encoded, strict=True)), "words": words}
    dynamic = {name: {0: "expressions"} for name in ("words", "logits", "scores")}
    _write(_Graph(_Segment(model), inputs, ("logits", "scores"), dynamic), stored, folder / SEGMENT)


def _vision(model: Any) -> _Graph:
    side = model.config.image_size
    pixels = torch.zeros((1, side, side, 3), dtype=torch.uint8)
    read = ("logits", "there") if model.config.name_tree else ()
    told = ("evidence",) if model.config.foreground else ()
    return _Graph(_Vision(model), {"pixels": pixels}, ("tokens", *read, *told), {})


def _names(model: Any) -> _Graph:
    images, classes = 2, len(model.model.adapter.names.tree.classes)
    inputs = {
        "logits": torch.zeros(images, NAME_SLOTS, classes),
        "there": torch.ones(images, NAME_SLOTS, dtype=torch.bool),
    }
    dynamic = {name: {0: "images"} for name in (*inputs, "spelled")}
    return _Graph(_Names(model), inputs, ("spelled", "classes"), dynamic)


def _language(model: Any) -> _Graph:
    text = model.config.text_config
    if text.model_type != "qwen2" or text.use_sliding_window:
        raise SaliencyError(f"the language model is a {text.model_type}: graphs are written of a Qwen2 alone")
    width, layers, heads = text.hidden_size, text.num_hidden_layers, text.num_key_value_heads
    batch, new, old = 2, 3, 5
    past = [f"past.{number}" for number in range(2 * layers)]
    present = [f"present.{number}" for number in range(2 * layers)]
    inputs = {
        "ids": torch.full((batch, new), text.vocab_size),
        "images": torch.zeros(batch * new, width),
        "mask": torch.zeros(batch, 1, new, old + new),
        "positions": torch.arange(old, old + new).repeat(batch, 1),
        "wanted": torch.arange(new - 1, new),
        **{name: torch.zeros(batch, heads, old, width // text.num_attention_heads) for name in past},
    }
    questions = {0: "questions"}
    dynamic = {
        "ids": {**questions, 1: "new"},
        "images": {0: "image_tokens"},
        "mask": {**questions, 2: "new", 3: "all"},
        "positions": {**questions, 1: "new"},
        "wanted": {0: "wanted"},
        "logits": {**questions, 1: "wanted"},
        **{name: {**questions, 2: "old"} for name in past},
        **{name: {**questions, 2: "all"} for name in present},
    }
    return _Graph(_Language(model), inputs, ("logits", *present), dynamic)


class _Traced(nn.Module):
    """A network with the inputs and outputs of its graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class _Vision(_Traced):
    """Pixels of an image, uint8 (1, S, S, 3), to its tokens, what is read of names, and the evidence."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        inner = self.model.model
        features = inner.encode_images(normalise(pixels))
        tokens, read = inner.adapter(features)
        told = inner.adapter.evidence(features)
        return tokens, *(read or ()), *(() if told is None else (told,))


class _Names(_Traced):
    """The tokens that spell the names of the images of one question, and the shared classes.

    See `NanoModel.image_embeddings`: the first slot becomes the evidence of the whole group.
    """

    def forward(self, logits: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        names = self.model.model.adapter.names
        count = torch.full((logits.shape[0],), logits.shape[0])
        shared = names.weighed(names.evidence(logits, there, count).sum(0), logits.shape[0])
        first = shared.expand(logits.shape[0], 1, -1)
        logits = torch.cat([first, logits[:, 1:]], dim=1)
        spelled = names(logits, there, self.model.get_input_embeddings().weight)
        return spelled, shared.softmax(-1)


class _Language(_Traced):
    """One step, or the first of many tokens; see `saliency_r1.policy.onnx.language`.

    It is the Qwen2 of transformers, with heads as axes of the weights. Traced as it stands there, most nodes
    of the graph would work out shapes.
    """

    def forward(
        self, ids: Tensor, images: Tensor, mask: Tensor, positions: Tensor, wanted: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        inner = self.model.model.language_model
        table, vocabulary = inner.embed_tokens.weight, self.model.config.text_config.vocab_size
        words = table[ids.clamp(max=vocabulary - 1)]
        seen = images[(ids - vocabulary).clamp(min=0)]
        x = torch.where((ids < vocabulary)[..., None], words, seen)
        cosine, sine = inner.rotary_emb(x, positions)
        half = inner.layers[0].self_attn.head_dim // 2
        turn = cosine[:, None], torch.cat([-sine[..., :half], sine[..., half:]], dim=-1)[:, None]
        scaled = tuple(part[:, None] * inner.layers[0].self_attn.scaling for part in turn)
        present: list[Tensor] = []
        for number, layer in enumerate(inner.layers):
            mixed, *own = self._attention(
                layer.self_attn,
                layer.input_layernorm(x),
                (scaled, turn),
                mask[:, None],
                past[2 * number : 2 * number + 2],
            )
            present += own
            x = x + mixed
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.lm_head(inner.norm(x[:, wanted])), *present

    def _attention(
        self, layer: Any, x: Tensor, turns: Sequence[Sequence[Tensor]], mask: Tensor, past: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The output of attention, (B, T, width), and all keys and values, (B, groups, S, size)."""
        size, groups = layer.head_dim, self.model.config.text_config.num_key_value_heads
        x = x[:, None]
        queries = _turned(_heads(layer.q_proj, x[:, None], (groups, -1), size), turns[0], size)
        keys = _turned(_heads(layer.k_proj, x, (groups,), size), turns[1], size)
        keys = torch.cat([past[0], keys], dim=2)
        values = torch.cat([past[1], _heads(layer.v_proj, x, (groups,), size)], dim=2)
        scores = queries @ keys[:, :, None].transpose(-1, -2) + mask
        mixed = scores.softmax(-1) @ values[:, :, None]
        back = layer.o_proj.weight.T.reshape(groups, -1, size, layer.o_proj.out_features)
        return (mixed @ back).sum((1, 2)), keys, values


def _heads(linear: nn.Linear, x: Tensor, heads: tuple[int, ...], size: int) -> Tensor:
    """The heads of a projection of (B, 1, ..., T, width), (B, *heads, T, size)."""
    weight = linear.weight.reshape(*heads, size, linear.in_features).transpose(-1, -2)
    found: Tensor = x @ weight + linear.bias.reshape(*heads, 1, size)
    return found


def _turned(x: Tensor, turn: Sequence[Tensor], size: int) -> Tensor:
    """Heads with their places, as rotary embeddings have them; the first half of the sines is negative."""
    cosine, sine = turn
    return x * cosine + torch.cat([x[..., size // 2 :], x[..., : size // 2]], dim=-1) * sine


class _Encode(_Traced):
    """Pixels, uint8 (1, S, S, 3), to what the segmenter keeps of an image."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.encode(normalise(pixels)))


class _Segment(_Traced):
    """Logits (N, h, w) and scores (N,) of N expressions for one encoded image."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *features, words = inputs
        each = (part.expand(words.shape[0], *part.shape[1:]) for part in features)
        found = self.model.segment(EncodedImage(*each), words)
        return found.stride2[:, 0], found.quality.sigmoid()


class _Stored:
    """The places of a folder's tensors in their file."""

    def __init__(self, folder: Path) -> None:
        path = folder / WEIGHTS
        if not path.is_file():
            raise SaliencyError(f"{folder}: has no {WEIGHTS}; graphs read the weights of one file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        self._spans = {
            name: (8 + length + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__"
        }
        self._tensors = load_file(path)

    def refer(self, graph: Any) -> None:
        """Make a graph read its weights from the file, in place."""
        import onnx
        from onnx import numpy_helper

        types = {
            torch.float32: onnx.TensorProto.FLOAT,
            torch.float16: onnx.TensorProto.FLOAT16,
            torch.bfloat16: onnx.TensorProto.BFLOAT16,
        }
        casts = []
        for held in graph.initializer:
            name = held.name.removeprefix("model.")
            tensor = self._tensors.get(name)
            if tensor is None or not tensor.is_floating_point():
                continue
            values = torch.from_numpy(numpy_helper.to_array(held).copy())
            if values.shape != tensor.shape or not torch.equal(values, tensor.float()):
                raise SaliencyError(f"the tensor {name} of the graph is not that of {WEIGHTS}")
            if tensor.dtype != torch.float32:
                stored = f"{held.name}.stored"
                casts.append(onnx.helper.make_node("Cast", [stored], [held.name], to=onnx.TensorProto.FLOAT))
                held.name = stored
            held.ClearField("raw_data")
            held.data_type = types[tensor.dtype]
            offset, length = self._spans[name]
            held.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
                held.external_data.add(key=key, value=str(value))
        nodes = [*casts, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)


def _shrink(graph: Any) -> None:
    """Store large tables of small whole numbers as bytes, in place."""
    import onnx
    from onnx import numpy_helper

    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Constant" or node.attribute[0].name != "value":
            continue
        values = numpy_helper.to_array(node.attribute[0].t)
        if values.dtype != np.float32 or values.size < _LARGE or not np.isin(values, np.arange(256)).all():
            continue
        name = node.output[0]
        node.attribute[0].t.CopyFrom(numpy_helper.from_array(values.astype(np.uint8)))
        node.output[0] = f"{name}.bytes"
        nodes.append(onnx.helper.make_node("Cast", [node.output[0]], [name], to=onnx.TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)


def _write(graph: _Graph, stored: _Stored, path: Path, *, eight_bits: bool = False) -> None:
    try:
        import onnx
    except ImportError:
        raise SaliencyError(
            "graphs are written with the package onnx: pip install 'saliency-r1[onnx]'"
        ) from None
    with TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of every size that becomes a constant
        traced = Path(folder, path.name)
        torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            str(traced),
            dynamo=False,
            opset_version=_OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: dict(axes) for name, axes in graph.dynamic.items()},
            do_constant_folding=False,
        )
        model = onnx.load(str(traced))
    for node in model.graph.node:
        node.ClearField("doc_string")
    _shrink(model.graph)
    if eight_bits:
        store_in_eight_bits(model, _FEED_FORWARD)
    stored.refer(model.graph)
    fold(model)
    write_bytes_atomic(path, model.SerializeToString())
