"""A nano policy run by onnxruntime writes what torch writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image
from skimage import data

from saliency_r1 import nano
from saliency_r1.errors import SaliencyError
from saliency_r1.language.left_out import left_out_spans
from saliency_r1.language.name_claims import wrong_name_spans
from saliency_r1.nano.configuration import NanoConfig
from saliency_r1.nano.name_tree import NameTree
from saliency_r1.nano.policy_model import NanoForImageTextToText
from saliency_r1.photos import FOLDER, SINGLE
from saliency_r1.policy import distinct
from saliency_r1.policy.base import Policy
from saliency_r1.policy.onnx.distinct import rewrite_repeats
from saliency_r1.policy.onnx.policy import OnnxPolicy
from saliency_r1.policy.repeats import first_repeat
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.sharing.onnx_graphs import write_policy_graphs
from saliency_r1.tasks import Task

pytestmark = pytest.mark.slow

TWICE = "<think>Two cups.</think><answer><ins>the left cup</ins><ins>the left cup</ins></answer>"
PHOTOS = [Image.fromarray(each) for each in (data.coffee(), data.chelsea(), data.astronaut())]


def without_names(folder: Path) -> Path:
    """The embedded policy without its reader of names, and its graphs."""
    policy = TransformersPolicy.from_pretrained(None, device="cpu")
    config = NanoConfig.from_pretrained(str(nano.POLICY_FOLDER), name_tree=None)
    model = NanoForImageTextToText(config)
    kept = {name: each for name, each in policy.model.state_dict().items() if ".adapter.names." not in name}
    model.load_state_dict(kept, strict=True)
    model.save_pretrained(folder)
    policy.processor.image_tokens = config.image_tokens
    policy.processor.save_pretrained(folder)
    write_policy_graphs(folder)
    return folder


@pytest.fixture(scope="module", params=["embedded", "without names"])
def folder(
    request: pytest.FixtureRequest, onnx_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return onnx_model if request.param == "embedded" else without_names(tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="module")
def found(folder: Path) -> OnnxPolicy:
    return OnnxPolicy(folder, "cpu")


@pytest.fixture(scope="module")
def wanted(folder: Path) -> TransformersPolicy:
    return TransformersPolicy.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("reasoning", [True, False])
@pytest.mark.parametrize("task", list(Task))
def test_a_batch_gets_the_same_answers(
    found: OnnxPolicy, wanted: TransformersPolicy, task: Task, reasoning: bool
) -> None:
    assert isinstance(found, Policy)
    batch = [PHOTOS, PHOTOS[:2]] if task.spec.several_images else [[photo] for photo in PHOTOS]
    for one, other in zip(
        found.respond(batch, task, reasoning=reasoning),
        wanted.respond(batch, task, reasoning=reasoning),
        strict=True,
    ):
        assert one.text == other.text
        assert one.token_ids == other.token_ids
        assert [name for name, _ in one.names] == [name for name, _ in other.names]
        assert dict(one.names) == pytest.approx(dict(other.names), abs=2e-4)
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert one.expression_confidences == pytest.approx(other.expression_confidences, abs=1e-4)


@pytest.mark.parametrize("reasoning", [True, False])
def test_an_answer_has_the_name_that_was_read(
    found: OnnxPolicy, wanted: TransformersPolicy, reasoning: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = found.respond([[PHOTOS[1]]], Task.SOD, reasoning=reasoning)
    monkeypatch.setattr(NameTree, "narrowest_of", lambda *_: "stork")
    monkeypatch.setattr(NameTree, "probability", lambda *_: 0.1)
    asked = ([[PHOTOS[1]]], Task.SOD)
    (one,), (other,) = (each.respond(*asked, reasoning=reasoning) for each in (found, wanted))
    if not one.names:
        assert one.text == before.text
        return
    assert one.text == other.text
    assert one.text.endswith("<answer><rg>the stork</rg></answer>")
    assert "the cat" not in one.text
    assert one.token_ids == other.token_ids
    assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)
    assert (one.confidence or 0) < (before.confidence or 0), "the policy itself would not have written it"


@pytest.mark.parametrize("task", [Task.SOD, Task.SIS])
def test_a_garbled_answer_is_written_again_with_the_name_that_was_read(
    found: OnnxPolicy, wanted: TransformersPolicy, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = (each.respond([[PHOTOS[1]]], task)[0] for each in (found, wanted))
    if not before.names:
        return
    garbled = "saliency_r1.language.read_name.is_garbled"
    monkeypatch.setattr(garbled, lambda text: "the cat" in text)
    monkeypatch.setattr(NameTree, "narrowest_of", lambda *_: "stork")
    one, other = (each.respond([[PHOTOS[1]]], task)[0] for each in (found, wanted))
    assert one.text == other.text
    assert one.text.count("stork") >= 2
    assert "the cat" not in one.text
    assert "object" not in one.text.replace("one object", "")
    assert one.token_ids == other.token_ids
    assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-3)


def test_an_answer_ends_where_it_must(found: OnnxPolicy) -> None:
    (short,) = found.respond([[PHOTOS[0]]], Task.SOD, max_new_tokens=3)
    assert len(short.token_ids) == len(short.token_logprobs or ()) == 3
    assert found.respond([], Task.SOD) == []


def test_tokens_that_are_ruled_out_are_not_written(found: OnnxPolicy, wanted: TransformersPolicy) -> None:
    prompt, *_ = found._prompt([PHOTOS[0]], Task.SIS.spec.prompt())
    ((usual, _),) = found._language.greedy([prompt], 96, found._end)
    tag = found._tokenizer.number("<ins>")
    assert tag in usual
    ((ids, logprobs),) = found._language.greedy([prompt], 96, found._end, [tag])
    assert tag not in ids
    assert all(value <= 0 for value in logprobs)
    settings = wanted._settings(96, do_sample=False, temperature=1.0)
    settings.suppress_tokens = [tag]
    inputs, _ = wanted._with_names(wanted._inputs([[PHOTOS[0]]], Task.SIS.spec.prompt()), [[PHOTOS[0]]])
    with torch.inference_mode():
        other = wanted.model.generate(**inputs, generation_config=settings)
    assert other[0, inputs["input_ids"].shape[1] :].tolist() == ids


def test_what_the_measurements_refute_is_left_out() -> None:
    embedded = OnnxPolicy(None, "cpu")
    photos = [Image.open(FOLDER / name).convert("RGB").resize((96, 128)) for name in SINGLE]
    written, left = 0, 0
    for photo in photos:
        prompt, _, evidence = embedded._prompt([photo], Task.SOD.spec.prompt())
        assert evidence is not None
        ((ids, _),) = embedded._language.greedy([prompt], 192, embedded._end)
        (answer,) = embedded.respond([[photo]], Task.SOD)
        written += len(left_out_spans(embedded._tokenizer.decode(ids), evidence[0].tolist()))
        left += len(left_out_spans(answer.text, evidence[0].tolist()))
        assert len(answer.token_ids) == len(answer.token_logprobs or ())
        assert embedded._tokenizer.decode(answer.token_ids) == answer.text
    assert written > left == 0


def test_what_the_answer_contradicts_is_left_out() -> None:
    embedded, large = OnnxPolicy(None, "cpu"), TransformersPolicy.from_pretrained(device="cpu")
    photos = [[Image.open(FOLDER / name).convert("RGB")] for name in SINGLE]
    answers = embedded.respond(photos, Task.SIS)
    assert not any(wrong_name_spans(one.text) for one in (*answers, *large.respond(photos, Task.SIS)))
    for (photo,), answer in zip(photos, answers, strict=True):
        prompt, *_ = embedded._prompt([photo], Task.SIS.spec.prompt())
        ((ids, _),) = embedded._language.greedy([prompt], 192, embedded._end)
        written = embedded._tokenizer.decode(ids)
        if answer.text != written and not first_repeat(written):
            assert wrong_name_spans(written)
            break
    else:
        pytest.fail("no answer contradicts its reasoning: the photos test nothing")


@pytest.mark.parametrize("images", [1, 3])
def test_the_question_is_that_of_the_chat_template(
    found: OnnxPolicy, wanted: TransformersPolicy, images: int
) -> None:
    question = Task.COSOD.spec.prompt()
    inputs = wanted._inputs([PHOTOS[:images]], question)
    prompt, *_ = found._prompt(PHOTOS[:images], question)
    vocabulary = found._language.vocabulary
    assert [3 if token >= vocabulary else token for token in prompt.ids] == inputs["input_ids"][0].tolist()
    assert [token - vocabulary for token in prompt.ids if token >= vocabulary] == list(
        range(len(prompt.images))
    )


@pytest.mark.parametrize("room", [96, 24])
@pytest.mark.parametrize("photo", PHOTOS)
def test_an_expression_that_is_written_twice_is_written_again_alike(
    found: OnnxPolicy, wanted: TransformersPolicy, photo: Image.Image, room: int
) -> None:
    question = Task.SIS.spec.prompt()
    ids = found._tokenizer.encode(TWICE)
    with torch.inference_mode():
        other = distinct.rewrite_repeats(
            wanted.model,
            wanted.processor.tokenizer,
            wanted._inputs([[photo]], question),
            ids,
            wanted._settings(room, do_sample=False, temperature=1.0),
        )
    one = rewrite_repeats(
        found._language, found._tokenizer, found._prompt([photo], question)[0], ids, room, found._end
    )
    assert one is not None
    assert other is not None
    assert one[0] == other[0]
    assert one[1] == pytest.approx(other[1], abs=1e-4)


def test_a_graph_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(nano.POLICY_FOLDER, folder)
    graph = onnx.load(str(folder / "language.onnx"), load_external_data=False)
    for each in (*graph.graph.input, *graph.graph.node):
        if isinstance(each, onnx.ValueInfoProto) and each.name == "wanted":
            each.name = "other"
        elif isinstance(each, onnx.NodeProto):
            each.input[:] = ["other" if name == "wanted" else name for name in each.input]
    onnx.save(graph, str(folder / "language.onnx"))
    with pytest.raises(SaliencyError, match=r"written by an earlier version: write it again with .*export"):
        OnnxPolicy(folder, "cpu")
