"""The large segmenters in small: real architectures, random weights, the layout of the published ones.

`deep=True` keeps the published depths and, at about an eighth, the widths, for timings.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    BertTokenizer,
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2Config,
    Sam2Model,
    Sam3Config,
    Sam3Model,
    SamConfig,
    SamModel,
    XLMRobertaTokenizer,
)

from saliency_r1.segmenters.evf_sam.beit3 import Beit3Sizes
from saliency_r1.segmenters.evf_sam.model import EvfSam, SamSizes, original_name
from saliency_r1.segmenters.load_segmenter import load_segmenter

WORDS = "the a cat dog cup ball small brown red on left right of it two and behind in front".split()  # noqa: SIM905
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def clip_tokenizer(folder: Path, length: int) -> int:
    """Save CLIP's kind of tokenizer, one token a letter, and return the size of its vocabulary."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,'-"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=length
    ).save_pretrained(folder)
    return len(tokens)


def save_clipseg(folder: Path, *, deep: bool = False) -> Path:
    """CLIPSeg, ViT-B/16 with 12 layers and a text encoder of 12 as published."""
    folder.mkdir(parents=True)
    size = clip_tokenizer(folder, 77)
    layers, width, text_width = (12, 96, 64) if deep else (4, 32, 24)
    side = 176 if deep else 64
    text = {
        "vocab_size": size,
        "hidden_size": text_width,
        "intermediate_size": 4 * text_width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "image_size": side // 16 // 2 * 16,  # positions are stretched, as the published 224 are to 352
        "patch_size": 16,
    }
    torch.manual_seed(0)
    config = CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=32,
        extract_layers=[3, 6, 9] if deep else [0, 1, 2],
        reduce_dim=16,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=512 if deep else 32,
    )
    model = CLIPSegForImageSegmentation(config)
    _enliven(model)
    model.save_pretrained(folder)
    _processor(folder, image_processor_type="ViTFeatureExtractor", size=side, resample=2, **IMAGENET)
    return folder


def save_grounding_dino(folder: Path, *, deep: bool = False) -> Path:
    """GroundingDINO with a Swin backbone; the ids of its special tokens are BERT's."""
    folder.mkdir(parents=True)
    tokens = [f"[unused{index}]" for index in range(1040)]
    tokens[0], tokens[100:104] = "[PAD]", ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens[1012], tokens[1029] = ".", "?"
    tokens[200 : 200 + len(WORDS)] = WORDS
    BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}).save_pretrained(folder)
    backbone = {
        "model_type": "swin",
        "embed_dim": 16 if deep else 8,
        "depths": [2, 2, 18, 2] if deep else [1, 1, 1, 1],
        "num_heads": [1, 2, 4, 8] if deep else [1, 1, 2, 2],
        "window_size": 6 if deep else 4,
        "out_features": ["stage2", "stage3", "stage4"],
        "image_size": 200 if deep else 64,
    }
    text = {
        "model_type": "bert",
        "vocab_size": len(tokens),
        "hidden_size": 96 if deep else 24,
        "num_hidden_layers": 12 if deep else 2,
        "num_attention_heads": 4,
        "intermediate_size": 384 if deep else 48,
        "max_position_embeddings": 512,
    }
    torch.manual_seed(1)
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=6 if deep else 2,
        decoder_layers=6 if deep else 2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256 if deep else 48,
        decoder_ffn_dim=256 if deep else 48,
        num_queries=100 if deep else 20,
        num_feature_levels=4,
    )
    model = GroundingDinoForObjectDetection(config)
    _enliven(model)
    model.save_pretrained(folder)
    edges = (
        {"shortest_edge": 200, "longest_edge": 333} if deep else {"shortest_edge": 64, "longest_edge": 107}
    )
    _processor(folder, image_processor_type="GroundingDinoImageProcessor", size=edges, resample=2, **IMAGENET)
    return folder


def save_sam(folder: Path, *, deep: bool = False) -> Path:
    """SAM, its image encoder of ViT-H's 32 layers if deep."""
    folder.mkdir(parents=True)
    side, width, layers = (256, 160, 32) if deep else (64, 24, 3)
    torch.manual_seed(2)
    model = SamModel(
        SamConfig(
            vision_config={
                "hidden_size": width,
                "mlp_dim": 4 * width,
                "num_hidden_layers": layers,
                "num_attention_heads": 4,
                "output_channels": 32,
                "image_size": side,
                "patch_size": 16,
                "window_size": 4 if deep else 3,
                "global_attn_indexes": [7, 15, 23, 31] if deep else [1],
                "num_pos_feats": 16,
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": side, "mask_input_channels": 4},
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 256 if deep else 40,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 32,
            },
        )
    )
    _enliven(model)
    with torch.no_grad():  # transformers draws them far larger than the published ones are
        model.shared_image_embedding.positional_embedding.normal_()
    model.save_pretrained(folder)
    size, pad = {"longest_edge": side}, {"height": side, "width": side}
    _processor(folder, image_processor_type="SamImageProcessor", size=size, pad_size=pad, **IMAGENET)
    return folder


def save_sam2(folder: Path, *, deep: bool = False) -> Path:
    """SAM 2 with a Hiera of the large one's blocks if deep."""
    folder.mkdir(parents=True)
    side = 256 if deep else 64
    width = 24 if deep else 8
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": 1,
        "image_size": [side, side],
        "window_positional_embedding_background_size": [2, 2],
        "blocks_per_stage": [2, 6, 36, 4] if deep else [1, 2, 2, 1],
        "embed_dim_per_stage": [width, 2 * width, 4 * width, 8 * width],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 16, 8] if deep else [4, 4, 4, 4],
        "global_attention_blocks": [23, 33, 43] if deep else [4],
    }
    torch.manual_seed(3)
    model = Sam2Model(
        Sam2Config(
            vision_config={
                "backbone_config": backbone,
                "backbone_channel_list": [8 * width, 4 * width, 2 * width, width],
                "backbone_feature_sizes": [[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],
                "fpn_hidden_size": 32,
            },
            prompt_encoder_config={"hidden_size": 32, "image_size": side, "mask_input_channels": 4},
            mask_decoder_config={
                "hidden_size": 32,
                "mlp_dim": 256 if deep else 40,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 32,
            },
        )
    )
    _enliven(model)
    model.save_pretrained(folder)
    size = {"height": side, "width": side}
    _processor(folder, image_processor_type="Sam2ImageProcessorFast", size=size, resample=2, **IMAGENET)
    return folder


def save_sam3(folder: Path, *, deep: bool = False) -> Path:
    """SAM 3, its image encoder of 32 layers if deep."""
    folder.mkdir(parents=True)
    size = clip_tokenizer(folder, 32)
    side, width, layers = (252, 128, 32) if deep else (56, 16, 2)
    grid = side // 14
    hidden = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 256 if deep else 40}
    text_width = 128 if deep else 16
    torch.manual_seed(4)
    model = Sam3Model(
        Sam3Config(
            vision_config={
                "backbone_config": {
                    "model_type": "sam3_vit_model",
                    "hidden_size": width,
                    "intermediate_size": 37 * width // 8,
                    "num_hidden_layers": layers,
                    "num_attention_heads": 4,
                    "image_size": side,
                    "patch_size": 14,
                    "window_size": 6 if deep else 2,
                    "global_attn_indexes": [7, 15, 23, 31] if deep else [1],
                    "pretrain_image_size": side // 3 // 14 * 14,
                },
                "fpn_hidden_size": 32,
                "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
            },
            text_config={
                "vocab_size": size,
                "hidden_size": text_width,
                "intermediate_size": 4 * text_width,
                "projection_dim": 16,
                "num_hidden_layers": 24 if deep else 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 32,
                "bos_token_id": size - 2,
                "eos_token_id": size - 1,
            },
            geometry_encoder_config=hidden | {"num_layers": 1},
            detr_encoder_config=hidden | {"num_layers": 6 if deep else 1},
            detr_decoder_config=hidden | {"num_layers": 6 if deep else 2, "num_queries": 50 if deep else 10},
            mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
        )
    )
    _enliven(model)
    model.save_pretrained(folder)
    _processor(
        folder,
        name="processor_config.json",
        image_processor={
            "image_processor_type": "Sam3ImageProcessorFast",
            "size": {"height": side, "width": side},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
        },
    )
    return folder


def save_evf_sam(folder: Path, *, deep: bool = False) -> Path:
    """EVF-SAM under its original's names, as deep as ViT-H and BEiT-3 large if deep."""
    folder.mkdir(parents=True)
    width, sam_width, side = (128, 160, 256) if deep else (48, 24, 64)
    beit3 = Beit3Sizes(
        img_size=64,
        patch_size=16,
        vocab_size=70,
        encoder_embed_dim=width,
        encoder_attention_heads=4,
        encoder_ffn_embed_dim=4 * width,
        encoder_layers=24 if deep else 2,
        max_source_positions=64,
    )
    sam = SamSizes(
        image_size=side,
        patch_size=16,
        encoder_embed_dim=sam_width,
        encoder_depth=32 if deep else 3,
        encoder_num_heads=4,
        encoder_global_attn_indexes=(7, 15, 23, 31) if deep else (1,),
        window_size=4 if deep else 3,
        out_chans=32,
        decoder_mlp_dim=256 if deep else 40,
        decoder_num_heads=4,
        decoder_depth=2,
        iou_head_depth=3,
        iou_head_hidden_dim=32,
        num_multimask_outputs=3,
        encoder_mlp_dim=4 * sam_width,
        mask_in_chans=4,
    )
    torch.manual_seed(5)
    model = EvfSam(beit3, sam)
    _enliven(model)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "evf", "beit3": asdict(beit3), "sam": asdict(sam)})
    )
    state = {
        original_name(name, iou_head_depth=sam.iou_head_depth): tensor.clone()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(f"▁{word}", -1.0) for word in WORDS] + [("▁", -5.0)]
    XLMRobertaTokenizer(vocab=[*specials, *pieces, ("<mask>", 0.0)]).save_pretrained(folder)
    return folder


def save_all(root: Path) -> dict[str, Path]:
    """All of them, by names of their own."""
    return {
        "clipseg": save_clipseg(root / "clipseg"),
        "dino": save_grounding_dino(root / "dino"),
        "sam": save_sam(root / "sam"),
        "sam2": save_sam2(root / "sam2"),
        "sam3": save_sam3(root / "sam3"),
        "evf-sam": save_evf_sam(root / "evf"),
    }


def named(name: str, folders: dict[str, Path]) -> str:
    """What `--segmenter` takes for the segmenter of that name with weights of `save_all`."""
    if name == "nano":
        return "nano"
    if name.startswith("grounded"):
        return f"{name}:{folders['dino']},{folders[name.removeprefix('grounded-')]}"
    return f"{name}:{folders[name]}"


def load(name: str, folders: dict[str, Path], dtype: str = "auto") -> Any:
    """The segmenter of that name, on the CPU."""
    segmenter: Any = load_segmenter(named(name, folders), "cpu", dtype)
    # Random weights are sure of nothing: let them find some of their candidates.
    if name == "sam3":
        segmenter.threshold = 0.1
    if name in ("grounded-sam", "grounded-sam2"):
        segmenter.detector.threshold = 0.6
    return segmenter


def _enliven(model: torch.nn.Module) -> None:
    """Larger random weights, so that masks and scores depend on photo and text."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "position" not in name:
                weight.normal_(0, (1.5 / weight[0].numel()) ** 0.5)
            elif weight.ndim == 1 and name.endswith("bias"):
                weight.normal_(0, 0.1)


def _processor(folder: Path, name: str = "preprocessor_config.json", **content: object) -> None:
    (folder / name).write_text(json.dumps(content))
