"""Thinking models: their own `<think>` does not collide with ours, in templates, responses and training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import tiny_policies
from saliency_r1.errors import SaliencyError
from saliency_r1.policy.asking import ask
from saliency_r1.policy.base import PolicyOutput
from saliency_r1.policy.prompts import Prompting
from saliency_r1.policy.thinking import check_reasoning_is_kept, forced_opening
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.response import own_thoughts_end, parse_lenient, parse_strict
from saliency_r1.tasks import Task

OURS = "<think>It is large.</think><answer><rg>the dog</rg></answer>"
TEMPLATE = """
{%- macro render(content) -%}
  {%- if content is string %}{{ content }}{% else %}{% for part in content %}
    {%- if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
    {%- else %}{{ part.text }}{% endif %}
  {%- endfor %}{% endif %}
{%- endmacro -%}
{%- for message in messages %}
  {%- set content = render(message.content) | trim %}
  {%- if message.role == 'assistant' and '</think>' in content %}
    {%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {{- '<|im_start|>assistant\\n<think>\\n' + reasoning + '\\n</think>\\n\\n' + content + '<|im_end|>\\n' }}
  {%- else %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\\n<think>\\n' }}
{%- endif %}
"""
"""Written as thinking models' are: it begins the thought itself, and sets an answer's thought apart."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_policies.qwen3_vl(tmp_path_factory.mktemp("thinking") / "policy")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


@pytest.fixture(scope="module")
def policy(folder: Path) -> TransformersPolicy:
    return TransformersPolicy.from_pretrained(
        folder, device="cpu", max_pixels=20_000, prompting=Prompting.PLAIN
    )


QUESTION = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}


def test_the_template_leaves_the_tag_to_the_model_and_is_else_the_same(policy: TransformersPolicy) -> None:
    processor = policy.processor
    changed, processor.chat_template = processor.chat_template, TEMPLATE
    answer = {"role": "assistant", "content": [{"type": "text", "text": OURS}]}
    written = {}
    for name, template in (("stock", TEMPLATE), ("ours", changed)):
        processor.chat_template = template
        written[name] = (
            processor.apply_chat_template([QUESTION], add_generation_prompt=True),
            processor.apply_chat_template([QUESTION]),
            processor.apply_chat_template([QUESTION, answer]),
        )
    assert written["stock"][0].endswith("<|im_start|>assistant\n<think>\n")
    assert written["ours"][0] == written["stock"][0].removesuffix("<think>\n")
    assert written["ours"][1:] == written["stock"][1:]
    assert written["ours"][2].startswith(written["ours"][0])
    assert forced_opening(processor) == ""


def test_a_saved_policy_keeps_the_changed_template(policy: TransformersPolicy, tmp_path: Path) -> None:
    policy.model.save_pretrained(tmp_path)
    policy.processor.save_pretrained(tmp_path)
    again = TransformersPolicy.from_pretrained(tmp_path, device="cpu", prompting=Prompting.PLAIN)
    assert again.processor.chat_template == policy.processor.chat_template
    [output] = again.respond([[Image.new("RGB", (60, 40), "red")]], Task.SOD, max_new_tokens=3)
    assert output.token_ids


def test_what_training_sees_is_our_form(policy: TransformersPolicy) -> None:
    check_reasoning_is_kept(policy.processor, "thinking")
    answer = {"role": "assistant", "content": [{"type": "text", "text": OURS}]}
    asked = policy.processor.apply_chat_template([QUESTION], add_generation_prompt=True)
    completion = policy.processor.apply_chat_template([QUESTION, answer]).removeprefix(asked)
    parsed = parse_strict(completion.removesuffix("<|im_end|>\n"), Task.SOD)
    assert (parsed.reasoning, parsed.expressions) == ("It is large.", ("the dog",))


def test_a_template_that_drops_the_reasoning_is_refused(folder: Path) -> None:
    policy = TransformersPolicy.from_pretrained(folder, device="cpu")
    dropping = TEMPLATE.replace("<think>\\n' + reasoning + '\\n</think>\\n\\n' + content", "' + content")
    assert dropping != TEMPLATE
    policy.processor.chat_template = dropping
    with pytest.raises(SaliencyError, match="does not write a response as it is") as error:
        check_reasoning_is_kept(policy.processor, "mine")
    assert "\n" not in str(error.value)


def test_tags_that_are_special_tokens_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "special")
    path = tmp_path / "special" / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["extra_special_tokens"] = [*content["extra_special_tokens"], "<think>"]
    path.write_text(json.dumps(content))
    with pytest.raises(SaliencyError, match="makes <think> a special token") as error:
        TransformersPolicy.from_pretrained(tmp_path / "special", device="cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "own",
    [
        "<think>A dog and a ball. Which?</think>\n\n",
        "<think>I must write <think>…</think><answer><rg>expression</rg></answer>.\n</think>",
        "\n<think></think>",
    ],
)
def test_own_thoughts_before_our_form_are_left_out(own: str) -> None:
    assert own_thoughts_end(own + OURS) == len(own)
    assert parse_lenient(own + OURS, Task.SOD) == parse_strict(OURS, Task.SOD)


@pytest.mark.parametrize(
    "text",
    [
        OURS,
        "",
        "<answer><rg>the dog</rg></answer>",
        "A dog. " + OURS,
        "<think>a</think><answer><rg>the dog</rg></answer><think>b</think><answer><rg>x</rg></answer>",
        "<think>a</think> and <think>b</think><answer><rg>the dog</rg></answer>",
    ],
)
def test_what_is_no_own_thought_stays(text: str) -> None:
    assert own_thoughts_end(text) == 0
    assert parse_lenient(text, Task.SOD).expressions == (("the dog",) if text else ())


def test_tags_quoted_in_a_thought_are_no_answer() -> None:
    text = (
        "<think>The form is <think>why</think><answer><rg>what</rg></answer>, so:</think>\n"
        "<answer><rg>the dog</rg></answer>"
    )
    assert parse_lenient(text, Task.SOD).expressions == ("the dog",)


def test_own_thoughts_cost_no_second_try() -> None:
    asked: list[int] = []

    def write(batch: object, prompt: str, limit: int) -> list[PolicyOutput]:
        asked.append(1)
        return [PolicyOutput(f"<think>Which?</think>\n{OURS}", [])]

    [output] = ask(write, [[Image.new("RGB", (8, 8))]], Task.SOD, zero_shot=True)
    assert len(asked) == 1
    assert output.retries == 0
