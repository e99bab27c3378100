"""EVF-SAM in small: random weights under the original's names."""

import json
from dataclasses import asdict

import torch
from safetensors.torch import save_file
from transformers import XLMRobertaTokenizer

from saliency_r1.segmenters.evf_sam.beit3 import Beit3Sizes
from saliency_r1.segmenters.evf_sam.model import EvfSam, SamSizes, original_name
from saliency_r1.segmenters.evf_sam.segmenter import SEMANTIC

BEIT3 = Beit3Sizes(64, 8, 70, 48, 3, 80, 2, 30)
SAM = SamSizes(128, 8, 40, 3, 5, (1,), 6, 16, 24, 2, 1, 4, 20, 2, 100, 8)
TEXTS = ("the cat", "the small brown dog on the left of the cup", "cup")


def random_model(beit3=BEIT3, sam=SAM, seed=0):
    torch.manual_seed(seed)
    model = EvfSam(beit3, sam).eval().requires_grad_(False)
    for name, tensor in model.named_parameters():
        tensor.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    return model


def original_state(model):
    depth = model.sam_sizes.iou_head_depth
    return {
        original_name(name, iou_head_depth=depth): tensor.clone()
        for name, tensor in model.state_dict().items()
    }


def sizes_of(beit3=BEIT3, sam=SAM):
    return {"beit3": asdict(beit3), "sam": asdict(sam)}


def tokenizer_of(words):
    """A unigram vocabulary in the original's order: start, padding, end, unknown, pieces, mask."""
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(f"▁{word}", -1.0) for word in words] + [("▁", -5.0)]
    return XLMRobertaTokenizer(vocab=[*specials, *pieces, ("<mask>", 0.0)])


def save_weights(folder, model, sizes):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "evf"} | sizes))
    save_file(original_state(model), folder / "model.safetensors")
    tokenizer_of(dict.fromkeys(f"{SEMANTIC}{' '.join(TEXTS)}".split())).save_pretrained(folder)
    return folder
