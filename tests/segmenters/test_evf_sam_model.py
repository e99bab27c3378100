"""EVF-SAM's network against what the original computes, and of other sizes."""

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repository import ROOT
from saliency_r1.errors import SaliencyError
from saliency_r1.segmenters.evf_sam.beit3 import BASE, LARGE
from saliency_r1.segmenters.evf_sam.model import HUGE, EvfSam, evf_sam_from_state_dict, original_name
from tiny_evf_sam import BEIT3, SAM, original_state, random_model, sizes_of

STEPS = ("image_embedding", "cls", "prompt", "low_res", "iou", "low_res_multi", "iou_multi", "logits")


# Against the original.


@pytest.fixture(scope="module")
def folder():
    beside = ROOT.parent / "shared" / "reference"
    root = Path(os.environ.get("SALIENCY_R1_REFERENCE", beside)) / "evf_sam_tiny"
    if not root.is_dir():
        pytest.skip(f"needs {root}: set SALIENCY_R1_REFERENCE to the folder that holds evf_sam_tiny")
    return root


@pytest.fixture(scope="module")
def config(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def state(folder):
    return load_file(folder / "state_dict.safetensors")


@pytest.fixture(scope="module")
def io(folder):
    return load_file(folder / "io.safetensors")


@pytest.fixture(scope="module")
def model(state, config):
    return evf_sam_from_state_dict(state, config)


def run(model, io, config, input_ids, attention_mask=None):
    with torch.inference_mode():
        return model(
            io["images"],
            io["images_evf"],
            input_ids,
            attention_mask,
            resized=tuple(config["resize"]),
            original=tuple(config["original"]),
        )


def padded(io, pad):
    """The three expressions as one batch."""
    rows = [io[f"{index}.input_ids"][0] for index in range(3)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


@pytest.mark.parametrize("index", range(3))
def test_every_step_is_the_original_s(model, io, config, index):
    steps = run(model, io, config, io[f"{index}.input_ids"])
    for name in STEPS:
        expected = io[name if name == "image_embedding" else f"{index}.{name}"]
        found = getattr(steps, name)
        assert found.shape == expected.shape, name
        assert (found - expected).abs().max() < 1e-4, name


@pytest.mark.parametrize("pad", [1, 150])
def test_expressions_padded_into_one_batch_give_what_each_gives_alone(model, io, config, pad):
    steps = run(model, io, config, *padded(io, pad))
    for index in range(3):
        for name in STEPS[1:]:
            assert (getattr(steps, name)[index] - io[f"{index}.{name}"][0]).abs().max() < 1e-4, name


def test_padding_that_is_not_masked_changes_the_result(model, io, config):
    ids, _ = padded(io, 1)
    steps = run(model, io, config, ids)
    assert (steps.cls[2] - io["2.cls"][0]).abs().max() > 1e-2


def test_every_tensor_of_the_original_is_loaded(model, state):
    ours = model.state_dict()
    assert {original_name(name) for name in ours} == set(state)
    assert len(state) == 337
    for name, tensor in ours.items():
        assert torch.equal(tensor, state[original_name(name)]), name


def test_the_tensors_that_only_pretraining_or_other_prompts_read_change_nothing(state, config, io):
    idle = ("vision_embed.mask_token", "point_embeddings", "not_a_point_embed", "mask_downscaling")
    other = {
        name: torch.full_like(tensor, 7.0) if any(part in name for part in idle) else tensor
        for name, tensor in state.items()
    }
    assert sum(not torch.equal(other[name], state[name]) for name in state) == 16
    steps = run(evf_sam_from_state_dict(other, config), io, config, io["0.input_ids"])
    assert (steps.logits - io["0.logits"]).abs().max() < 1e-4


def names_of(reference, sizes):
    """The original's names for other sizes: those of the reference, with as many layers as there are."""
    beit3, sam = sizes["beit3"], sizes["sam"]
    counts = {
        r"encoder\.layers\.": beit3["encoder_layers"],
        r"image_encoder\.blocks\.": sam["encoder_depth"],
        r"mask_decoder\.transformer\.layers\.": sam["decoder_depth"],
        r"iou_prediction_head\.layers\.": sam["iou_head_depth"],
        r"output_hypernetworks_mlps\.": sam["num_multimask_outputs"] + 1,
    }
    names = set(reference)
    for counted, count in counts.items():
        layer = re.compile(rf"(.*{counted})\d+(\..*)")
        matches = [match for name in names if (match := layer.fullmatch(name))]
        assert matches, counted
        names -= {match[0] for match in matches}
        names |= {f"{match[1]}{index}{match[2]}" for match in matches for index in range(count)}
    return names


OTHER = {
    "more of all": {
        "encoder_depth": 5,
        "encoder_global_attn_indexes": (0, 3),
        "decoder_depth": 3,
        "iou_head_depth": 5,
        "num_multimask_outputs": 5,
    },
    "less of all": {"encoder_depth": 1, "decoder_depth": 1, "iou_head_depth": 2, "num_multimask_outputs": 1}
    | {"encoder_global_attn_indexes": ()},
    "windows larger than the photo": {"window_size": 20, "encoder_global_attn_indexes": ()},
    "all layers global": {"encoder_global_attn_indexes": (0, 1, 2)},
    "odd grids and one head": {"image_size": 40, "encoder_num_heads": 1, "decoder_num_heads": 1},
}


@pytest.mark.parametrize("case", OTHER)
def test_nothing_is_tied_to_the_sizes_of_the_reference(state, case):
    beit3 = replace(BEIT3, encoder_layers=1 + len(case) % 3, patch_size=16)
    sam = replace(SAM, **OTHER[case])
    sizes = sizes_of(beit3, sam)
    other = original_state(random_model(beit3, sam))
    assert set(other) == names_of(state, sizes)
    model = evf_sam_from_state_dict(other, sizes)
    ids, seen = torch.tensor([[0, 5, 9, 7, 2], [0, 8, 2, 1, 1]]), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
    photo = torch.randn(1, 3, sam.image_size, sam.image_size), torch.randn(1, 3, 64, 64)
    place = {"resized": (sam.image_size // 2, sam.image_size), "original": (33, 70)}
    with torch.inference_mode():
        together = model(*photo, ids, seen, **place)
        alone = model(*photo, ids[1:, :3], **place)
    grid = sam.image_size // sam.patch_size
    assert together.image_embedding.shape == (1, sam.out_chans, grid, grid)
    assert together.low_res_multi.shape == (2, sam.num_multimask_outputs, 4 * grid, 4 * grid)
    assert together.logits.shape == (2, 33, 70)
    for name in STEPS[1:]:
        assert (getattr(together, name)[1] - getattr(alone, name)[0]).abs().max() < 1e-4, name
    assert (together.logits[0] - together.logits[1]).abs().max() > 1e-3


# With weights made here.


def test_other_sizes_round_trip_through_the_original_s_names():
    model = random_model()
    state = original_state(model)
    assert "visual_model.mask_decoder.iou_prediction_head.layers.3.bias" in state
    sizes = sizes_of()
    for part, name in (
        ("beit3", "max_source_positions"),
        ("sam", "encoder_mlp_dim"),
        ("sam", "mask_in_chans"),
    ):
        del sizes[part][name]
    again = evf_sam_from_state_dict(state, sizes)
    images, small = torch.randn(1, 3, 128, 128), torch.randn(1, 3, 64, 64)
    ids = torch.tensor([[0, 5, 9, 2]])
    with torch.inference_mode():
        steps = [
            network(images, small, ids, resized=(100, 128), original=(50, 64)) for network in (model, again)
        ]
    assert steps[0].logits.shape == (1, 50, 64)
    assert steps[0].low_res_multi.shape == (1, 2, 64, 64)
    for name in STEPS:
        assert torch.equal(getattr(steps[0], name), getattr(steps[1], name)), name


def test_the_published_sizes_have_the_published_number_of_weights():
    with torch.device("meta"):
        large = EvfSam(LARGE, HUGE)
    count = sum(tensor.numel() for tensor in large.parameters())
    assert 1.31e9 < count < 1.33e9
    assert BASE.encoder_embed_dim == 768
    assert large.beit3.text_embed.weight.shape == (64010, 1024)


# Bad input.


def one_line(call, match):
    with pytest.raises(SaliencyError, match=match) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "name", "value", "match"),
    [
        ("beit3", "encoder_layers", None, "Beit3Sizes lack encoder_layers"),
        ("beit3", "encoder_layers", 1, "tensors too many"),
        ("beit3", "encoder_layers", 3, "are missing"),
        ("beit3", "encoder_embed_dim", 24, r"shape \(.*\), and the sizes ask for \(.*24.*\)"),
        ("beit3", "encoder_attention_heads", 5, "encoder_embed_dim is 48 .* multiple of 5"),
        ("beit3", "vocab_size", 71, r"text_embed.weight has shape \(70, 48\)"),
        ("beit3", "img_size", 72, r"embed_positions.A.weight has shape \(67, 48\)"),
        ("sam", "window_size", 7, "rel_pos_h"),
        ("sam", "encoder_global_attn_indexes", [0], "rel_pos_h"),
        ("sam", "encoder_global_attn_indexes", [3], "give a list of layers from 0 to 2"),
        ("sam", "encoder_global_attn_indexes", 1, "are 1 in SamSizes: give a list of layers"),
        ("sam", "encoder_global_attn_indexes", (None,), "give a list of layers"),
        ("sam", "encoder_num_heads", 4, "rel_pos_h"),
        ("sam", "out_chans", 20, "out_chans is 20 .* multiple of 8"),
        ("sam", "num_multimask_outputs", 3, "are missing"),
        ("sam", "iou_head_depth", 1, "iou_head_depth is 1 in SamSizes: give 2 or more"),
        ("sam", "iou_head_depth", "three", "iou_head_depth is 'three'"),
    ],
)
def test_wrong_sizes_are_one_clear_line(part, name, value, match):
    sizes = sizes_of()
    sizes[part][name] = value
    if value is None:
        del sizes[part][name]
    state = original_state(random_model())
    one_line(lambda: evf_sam_from_state_dict(state, sizes), match)


def test_weights_of_another_model_are_one_clear_line():
    state = original_state(random_model())
    one_line(lambda: evf_sam_from_state_dict(state, {"beit3": asdict(BEIT3)}), "sam is missing")
    one_line(
        lambda: evf_sam_from_state_dict(state | {"lm_head.weight": torch.zeros(1)}, sizes_of()), "lm_head"
    )
    state.pop("text_hidden_fcs.0.2.bias")
    one_line(
        lambda: evf_sam_from_state_dict(state, sizes_of()),
        r"1 tensors are missing, .*text_hidden_fcs.0.2.bias",
    )


def test_no_layer_that_sees_the_whole_image_is_one_clear_line():
    sizes = sizes_of()
    sizes["sam"]["encoder_global_attn_indexes"] = None
    one_line(lambda: evf_sam_from_state_dict(original_state(random_model()), sizes), "are None in SamSizes")


def test_a_missing_tensor_that_tells_a_size_is_called_a_missing_tensor():
    name = "visual_model.image_encoder.blocks.0.mlp.lin1.weight"
    sizes, state = sizes_of(), original_state(random_model())
    del sizes["sam"]["encoder_mlp_dim"], state[name]
    one_line(lambda: evf_sam_from_state_dict(state, sizes), f"a tensor is missing, {name}")


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (torch.tensor(1.0), "has no dimension and type torch.float32: expected floating-point weights"),
        (torch.zeros(100, 40, dtype=torch.int8), r"has shape \(100, 40\) and type torch.int8"),
    ],
)
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_what_is_no_tensor_of_weights_is_one_clear_line(tensor, match, dtype):
    name = "visual_model.image_encoder.blocks.0.mlp.lin1.weight"
    state = original_state(random_model()) | {name: tensor}
    one_line(lambda: evf_sam_from_state_dict(state, sizes_of(), dtype), f"{name} {match}")


def test_weights_of_several_types_need_one_to_be_named():
    name = "visual_model.image_encoder.blocks.0.mlp.lin1.weight"
    state = original_state(random_model())
    state[name] = state[name].half()
    one_line(
        lambda: evf_sam_from_state_dict(state, sizes_of()),
        r"of type torch.float32, .*lin1.weight of torch.float16: give a dtype for all",
    )
    model = evf_sam_from_state_dict(state, sizes_of(), torch.float32)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_thirty_two_tensors_have_no_use():
    """Those that neither the single mask nor the multi-mask output depends on, as the documentation says."""
    model = random_model().requires_grad_(True)
    steps = model(
        torch.randn(1, 3, 128, 128),
        torch.randn(1, 3, 64, 64),
        torch.tensor([[0, 7, 9, 2]]),
        resized=(128, 128),
        original=(50, 64),
    )
    outputs = steps.logits.sum() + steps.low_res_multi.sum() + steps.iou.sum() + steps.iou_multi.sum()
    outputs.backward()
    unused = {
        name
        for name, tensor in model.named_parameters()
        if tensor.grad is None or not tensor.grad.any()
        # Transformers gives image embeddings without a gradient.
        if not name.startswith("sam.vision_encoder.")
    }
    last = f"beit3.layers.{BEIT3.encoder_layers - 1}."
    text = {name for name in unused if name.startswith((last, "beit3.norm."))}
    assert all(".text." in name and ".k_proj." not in name and ".v_proj." not in name for name in text)
    assert len(text) == 16
    assert len(unused) == 32, sorted(unused - text)
