"""EVF-SAM's network: BEiT-3 reads photo and expression, and its class token prompts SAM's mask decoder.

Source: Zhang et al., EVF-SAM, arXiv:2406.20076, section 3. SAM comes from transformers; `original_name` gives
the original's name of each tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import SamConfig, SamModel

from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.evf_sam.beit3 import Beit3, Beit3Sizes, Sizes


@dataclass(frozen=True)
class SamSizes(Sizes):
    """Sizes of the SAM part, under the names of the original's constructors.

    Attributes:
        image_size: side of the padded square, in pixels.
        patch_size: side of a patch, in pixels.
        encoder_embed_dim: width of the image encoder.
        encoder_depth: number of its layers.
        encoder_num_heads: heads of each layer.
        encoder_global_attn_indexes: the layers that attend over the whole image; the others, within windows.
        window_size: side of a window, in patches.
        out_chans: channels of the image embedding, and width of prompts and mask decoder.
        decoder_mlp_dim: inner width of the mask decoder's feed-forward networks.
        decoder_num_heads: heads of its attention.
        decoder_depth: number of its layers.
        iou_head_depth: linear layers of the head that predicts the masks' IoU, at least 2.
        iou_head_hidden_dim: its inner width.
        num_multimask_outputs: number of masks of the multi-mask output, without the single one.
        encoder_mlp_dim: inner width of the image encoder's feed-forward networks.
        mask_in_chans: inner channels of the encoder of mask prompts, which EVF-SAM does not use.
    """

    image_size: int
    patch_size: int
    encoder_embed_dim: int
    encoder_depth: int
    encoder_num_heads: int
    encoder_global_attn_indexes: Sequence[int]
    window_size: int
    out_chans: int
    decoder_mlp_dim: int
    decoder_num_heads: int
    decoder_depth: int
    iou_head_depth: int
    iou_head_hidden_dim: int
    num_multimask_outputs: int
    encoder_mlp_dim: int
    mask_in_chans: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_multiple("image_size", self.patch_size)
        self.check_multiple("encoder_embed_dim", self.encoder_num_heads)
        self.check_multiple("out_chans", 8)
        self.check_multiple("out_chans", 2 * self.decoder_num_heads)
        if self.iou_head_depth < 2:
            raise SaliencyError(f"iou_head_depth is {self.iou_head_depth} in SamSizes: give 2 or more")
        chosen: Any = self.encoder_global_attn_indexes
        if not isinstance(chosen, Sequence) or not all(one in range(self.encoder_depth) for one in chosen):
            raise SaliencyError(
                f"encoder_global_attn_indexes are {chosen!r} in SamSizes: give a list of layers from 0 to "
                f"{self.encoder_depth - 1}"
            )

    def config(self) -> SamConfig:
        """Return the configuration of transformers' SAM with these sizes."""
        square = {"image_size": self.image_size, "patch_size": self.patch_size}
        return SamConfig(
            vision_config={
                **square,
                "hidden_size": self.encoder_embed_dim,
                "output_channels": self.out_chans,
                "num_hidden_layers": self.encoder_depth,
                "num_attention_heads": self.encoder_num_heads,
                "window_size": self.window_size,
                "global_attn_indexes": list(self.encoder_global_attn_indexes),
                "num_pos_feats": self.out_chans // 2,
                "mlp_dim": self.encoder_mlp_dim,
            },
            prompt_encoder_config={
                **square,
                "hidden_size": self.out_chans,
                "mask_input_channels": self.mask_in_chans,
            },
            mask_decoder_config={
                "hidden_size": self.out_chans,
                "mlp_dim": self.decoder_mlp_dim,
                "num_hidden_layers": self.decoder_depth,
                "num_attention_heads": self.decoder_num_heads,
                "num_multimask_outputs": self.num_multimask_outputs,
                "iou_head_depth": self.iou_head_depth,
                "iou_head_hidden_dim": self.iou_head_hidden_dim,
                # The norms of the original's decoder have torch's default epsilon, not transformers' 1e-6.
                "layer_norm_eps": 1e-5,
            },
        )


HUGE = SamSizes(1024, 16, 1280, 32, 16, (7, 15, 23, 31), 14, 256, 2048, 8, 2, 3, 256, 3, 5120)
"""SAM ViT-H, which both published EVF-SAM checkpoints have."""


@dataclass(frozen=True)
class EvfSamSteps:
    """The steps of EVF-SAM from one photo and N expressions to N masks.

    Attributes:
        image_embedding: (1, C, h, w) from SAM's image encoder.
        cls: (N, 1, D), BEiT-3's output of the class token.
        prompt: (N, 1, C), the same after the MLP: SAM's sparse prompt.
        low_res: (N, 1, 4 h, 4 w) logits of the single mask.
        iou: (N, 1), the IoU that SAM expects of it.
        low_res_multi: (N, M, 4 h, 4 w) logits of the multi-mask output.
        iou_multi: (N, M), the IoU expected of each.
        logits: float32 (N, H, W) logits of the single mask at the original size; over 0 is the mask.
    """

    image_embedding: torch.Tensor
    cls: torch.Tensor
    prompt: torch.Tensor
    low_res: torch.Tensor
    iou: torch.Tensor
    low_res_multi: torch.Tensor
    iou_multi: torch.Tensor
    logits: torch.Tensor


class EvfSam(nn.Module):
    """The network, for tensors; `EvfSamSegmenter` takes photos and texts.

    Args:
        beit3: sizes of the encoder that reads photo and expression.
        sam: sizes of SAM.
    """

    def __init__(self, beit3: Beit3Sizes, sam: SamSizes) -> None:
        super().__init__()
        self.sam_sizes = sam
        self.beit3 = Beit3(beit3)
        width = beit3.encoder_embed_dim
        self.projector = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, sam.out_chans))
        self.sam = SamModel(sam.config())

    def fuse(
        self, photo: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Read N expressions, each together with its photo.

        Args:
            photo: (N, P, D) from `beit3.embed_photo`, or (1, P, D) for one photo under all expressions.
            input_ids: (N, T), padded on the right.
            attention_mask: (N, T), 0 on padding; None if there is none.

        Returns:
            The class token, (N, 1, D).
        """
        return self.beit3(photo, input_ids, attention_mask)[:, :1]

    def decode(
        self, image_embedding: torch.Tensor, prompt: torch.Tensor, *, multimask: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the masks of N prompts, each on its image.

        Args:
            image_embedding: (N, C, h, w), or (1, C, h, w) for one image under all prompts.
            prompt: (N, 1, C).
            multimask: whether to return the multi-mask output instead of the single mask.

        Returns:
            Logits (N, M, 4 h, 4 w) and the IoU expected of each, (N, M); M is 1 without `multimask`.
        """
        _, dense = self.sam.prompt_encoder(None, None, None, None)
        masks, iou = self.sam.mask_decoder(
            image_embeddings=image_embedding.expand(len(prompt), -1, -1, -1),
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings().expand(
                len(prompt), -1, -1, -1
            ),
            sparse_prompt_embeddings=prompt[:, None],
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return masks[:, 0], iou[:, 0]

    def upscale(
        self, low_res: torch.Tensor, resized: tuple[int, int], original: tuple[int, int]
    ) -> torch.Tensor:
        """Resize the decoder's logits to the photo's size.

        Args:
            low_res: (N, 1, 4 h, 4 w).
            resized: height and width of the photo inside the padded square.
            original: height and width of the photo.

        Returns:
            float32 (N, H, W).
        """
        side = self.sam_sizes.image_size
        square = F.interpolate(low_res.float(), (side, side), mode="bilinear", align_corners=False)
        inside = square[..., : resized[0], : resized[1]]
        return F.interpolate(inside, original, mode="bilinear", align_corners=False)[:, 0]

    def forward(
        self,
        images: torch.Tensor,
        images_evf: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        resized: tuple[int, int],
        original: tuple[int, int],
    ) -> EvfSamSteps:
        """Compute every step for one photo, for inspection or for comparison with another implementation.

        Args:
            images: (1, 3, S, S), the photo as SAM reads it: normalised, zero-padded right and bottom.
            images_evf: (1, 3, s, s), the photo as BEiT-3 reads it, in [-1, 1].
            input_ids: (N, T) token ids of N expressions, padded on the right.
            attention_mask: (N, T), 0 on padding; None if there is none.
            resized: height and width of the photo inside `images`.
            original: height and width of the photo.
        """
        image_embedding = self.sam.get_image_embeddings(images)
        cls = self.fuse(self.beit3.embed_photo(images_evf), input_ids, attention_mask)
        prompt = self.projector(cls)
        low_res, iou = self.decode(image_embedding, prompt)
        low_res_multi, iou_multi = self.decode(image_embedding, prompt, multimask=True)
        logits = self.upscale(low_res, resized, original)
        return EvfSamSteps(image_embedding, cls, prompt, low_res, iou, low_res_multi, iou_multi, logits)


def evf_sam_from_state_dict(
    state: Mapping[str, torch.Tensor], sizes: Mapping[str, Any], dtype: torch.dtype | None = None
) -> EvfSam:
    """Make the network from the original's tensors by renaming; every tensor must be used, none missing.

    To compare with the original step by step, in float32 on the CPU and without gradients:

        model = evf_sam_from_state_dict(load_file("state_dict.safetensors"), json.loads(config_text))
        with torch.inference_mode():
            steps = model(
                io["images"], io["images_evf"], io["0.input_ids"],
                resized=tuple(config["resize"]), original=tuple(config["original"]),
            )
        (steps.logits - io["0.logits"]).abs().max()

    `steps` is an `EvfSamSteps`: `image_embedding`, `cls`, `prompt`, `low_res`, `iou`, `low_res_multi`,
    `iou_multi` and `logits`, each of the shape that the original gives for the same expressions (a first
    dimension of N where there are N). Several expressions in one call are rows of `input_ids` padded on the
    right with any id, with an `attention_mask` that is 0 there; each row then gives what it gives alone.

    Args:
        state: all tensors of `visual_model`, `mm_extractor` and `text_hidden_fcs`, under those names.
        sizes: a mapping `beit3` with the attributes of `Beit3Sizes` and a mapping `sam` with those of
            `SamSizes`. `max_source_positions`, `encoder_mlp_dim` and `mask_in_chans` are optional: they are
            read from the tensors. Other entries are ignored.
        dtype: type of the weights in memory; None for the stored type.

    Returns:
        The network in evaluation mode, its weights frozen, on the device of `state`'s tensors. Where the type
        is not changed it shares their memory.

    Raises:
        SaliencyError: if sizes are missing or do not fit together, or if a tensor is missing, is one too
            many, holds no floating-point numbers, or has a shape other than the sizes ask for; or if the
            tensors are of several types and no `dtype` is given. The message names the first of them.
    """
    for part in ("beit3", "sam"):
        if not isinstance(sizes.get(part), Mapping):
            raise SaliencyError(
                f"the sizes of an EVF-SAM model are two mappings, beit3 and sam: {part} is missing"
            )
    _check_types(state, dtype)
    rows = {size: len(state[tensor]) for size, tensor in _ROWS.items() if tensor in state}
    for size, tensor in _ROWS.items():
        if tensor not in state and size not in sizes["beit3"] and size not in sizes["sam"]:
            raise SaliencyError(f"not EVF-SAM: a tensor is missing, {tensor}")
    beit3 = Beit3Sizes.from_mapping(rows | dict(sizes["beit3"]))
    sam = SamSizes.from_mapping(rows | dict(sizes["sam"]))
    with torch.device("meta"):
        model = EvfSam(beit3, sam)
    wanted = model.state_dict()
    originals = {name: original_name(name, iou_head_depth=sam.iou_head_depth) for name in wanted}
    missing = [original for original in originals.values() if original not in state]
    if missing:
        raise SaliencyError(
            f"not EVF-SAM of these sizes: {len(missing)} tensors are missing, the first is {missing[0]}"
        )
    left_over = sorted(set(state) - set(originals.values()))
    if left_over:
        raise SaliencyError(
            f"not EVF-SAM of these sizes: {len(left_over)} tensors too many, the first is {left_over[0]}"
        )
    for name, tensor in wanted.items():
        given = state[originals[name]]
        if given.shape != tensor.shape:
            raise SaliencyError(
                f"EVF-SAM's tensor {originals[name]} has shape {tuple(given.shape)}, and the sizes ask for "
                f"{tuple(tensor.shape)}: give the sizes of these weights"
            )
    tensors = {
        name: state[original].to(dtype or state[original].dtype) for name, original in originals.items()
    }
    model.load_state_dict(tensors, assign=True)
    model.sam.tie_weights()
    return model.eval().requires_grad_(False)


def _check_types(state: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> None:
    """Refuse what is no tensor of weights, before its shape is looked at."""
    types: dict[torch.dtype, str] = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.ndim:
            shape = f"shape {tuple(tensor.shape)}" if tensor.ndim else "no dimension"
            raise SaliencyError(
                f"EVF-SAM's tensor {name} has {shape} and type {tensor.dtype}: expected floating-point "
                "weights of one dimension or more"
            )
        types.setdefault(tensor.dtype, name)
    if dtype is None and len(types) > 1:
        (one, first), (other, second) = list(types.items())[:2]
        raise SaliencyError(
            f"EVF-SAM's tensor {first} is of type {one}, {second} of {other}: give a dtype for all"
        )


_ROWS = {
    "max_source_positions": "mm_extractor.beit3.encoder.embed_positions.B.weight",
    "encoder_mlp_dim": "visual_model.image_encoder.blocks.0.mlp.lin1.weight",
    "mask_in_chans": "visual_model.prompt_encoder.mask_downscaling.3.weight",
}
"""The sizes that are a tensor's number of rows, and which tensor's."""

_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # BEiT-3: branch A reads the photo, branch B the text.
        (r"^beit3\.patch_embed\.", "mm_extractor.beit3.vision_embed.proj."),
        (r"^beit3\.(cls_token|mask_token)$", r"mm_extractor.beit3.vision_embed.\1"),
        (r"^beit3\.text_embed\.", "mm_extractor.beit3.text_embed."),
        (r"^beit3\.vision_positions\.", "mm_extractor.beit3.encoder.embed_positions.A."),
        (r"^beit3\.text_positions\.", "mm_extractor.beit3.encoder.embed_positions.B."),
        (r"^beit3\.norm\.", "mm_extractor.beit3.encoder.layer_norm."),
        (r"^beit3\.layers\.", "mm_extractor.beit3.encoder.layers."),
        (r"\.attention_norm\.", ".self_attn_layer_norm."),
        (r"\.(q_proj|k_proj|v_proj|out_proj)\.(vision|text)\.", r".self_attn.\1.\2."),
        (r"\.inner_norm\.", ".self_attn.inner_attn_ln."),
        (r"\.ffn_norm\.", ".final_layer_norm."),
        (r"\.ffn\.(vision|text)\.norm\.", r".ffn.\1.ffn_layernorm."),
        (r"^(mm_extractor\..*)\.vision\.", r"\1.A."),
        (r"^(mm_extractor\..*)\.text\.", r"\1.B."),
        (r"^projector\.", "text_hidden_fcs.0."),
        # SAM.
        (r"^sam\.shared_image_embedding\.", "sam.prompt_encoder.shared_embedding."),
        (r"^sam\.vision_encoder\.", "visual_model.image_encoder."),
        (r"^sam\.", "visual_model."),
        (r"\.image_encoder\.layers\.(\d+)\.layer_norm", r".image_encoder.blocks.\1.norm"),
        (r"\.image_encoder\.layers\.", ".image_encoder.blocks."),
        (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
        (r"\.neck\.conv1\.", ".neck.0."),
        (r"\.neck\.layer_norm1\.", ".neck.1."),
        (r"\.neck\.conv2\.", ".neck.2."),
        (r"\.neck\.layer_norm2\.", ".neck.3."),
        (r"\.shared_embedding\.positional_embedding$", ".pe_layer.positional_encoding_gaussian_matrix"),
        (r"\.point_embed\.", ".point_embeddings."),
        (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
        (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
        (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
        (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
        (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
        (r"\.upscale_conv1\.", ".output_upscaling.0."),
        (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
        (r"\.upscale_conv2\.", ".output_upscaling.3."),
        (r"\.transformer\.layers\.(\d+)\.layer_norm", r".transformer.layers.\1.norm"),
        (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    )
)
_HEAD = re.compile(
    r"\.(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.(proj_in|layers\.(\d+)|proj_out)\."
)


def original_name(name: str, *, iou_head_depth: int = HUGE.iou_head_depth) -> str:
    """Return the original's name of a tensor of `EvfSam`.

    Args:
        name: a key of `EvfSam.state_dict()`.
        iou_head_depth: linear layers of the IoU head, which the original counts through.

    Returns:
        Its key there. Two of ours share one: SAM in transformers holds its positional matrix in two places.

    Example:
        >>> original_name("beit3.layers.0.ffn.text.fc1.bias")
        'mm_extractor.beit3.encoder.layers.0.ffn.B.fc1.bias'
    """
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)

    def count(match: re.Match[str]) -> str:
        depth = iou_head_depth if match[1] == "iou_prediction_head" else 3
        index = {"proj_in": 0, "proj_out": depth - 1}.get(match[2], int(match[3] or 0) + 1)
        return f".{match[1]}.layers.{index}."

    return _HEAD.sub(count, name)
