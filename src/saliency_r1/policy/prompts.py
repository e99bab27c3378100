"""The prompts of a policy: the plain question, or the format explained to a model that was not fine-tuned.

The prompts are ours; the paper's are not public.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saliency_r1.choices import Choice
from saliency_r1.response import Response
from saliency_r1.tasks import Task

MARKER = "saliency_r1"
"""The entry in a checkpoint's `config.json` that marks it as fine-tuned to the response format."""


class Prompting(Choice):
    """Ways to ask a policy.

    `PLAIN` is only the task's question, which fine-tuned models know. `ZERO_SHOT` explains the format, gives
    an example, and asks a second time if the response does not parse. `AUTO` is plain for models that
    `mark_fine_tuned` marked, and zero-shot for all others.
    """

    AUTO = "auto"
    PLAIN = "plain"
    ZERO_SHOT = "zero-shot"


def mark_fine_tuned(config: Any) -> None:
    """Mark a model as fine-tuned in its configuration; `save_pretrained` keeps the mark."""
    setattr(config, MARKER, {"prompting": Prompting.PLAIN.value})


def is_fine_tuned(config: Any) -> bool:
    """Whether a model's configuration has the mark, or is the nano policy's."""
    note = getattr(config, MARKER, None)
    marked = isinstance(note, dict) and note.get("prompting") == Prompting.PLAIN.value
    return marked or str(getattr(config, "model_type", "")).startswith(f"{MARKER}_")


EXAMPLES = {
    Task.SOD: Response(
        "Sand and sea fill the picture but are blurred and pale. The dog in mid-leap is large, sharp and the "
        "only warm colour, so the eye goes to it first.",
        ("the brown dog leaping over a wave",),
        "rg",
    ),
    Task.SIS: Response(
        "The street and the parked cars are dull and far away. A woman in a bright coat and the dog beside "
        "her stand close and in the light, and each is a thing of its own.",
        ("the woman in the red coat", "the small white dog on her left"),
        "ins",
    ),
    Task.COSOD: Response(
        "The first image shows a parrot and a fruit bowl, the second a parrot on a branch, the third a "
        "parrot in a hand. The parrot stands out in each of them; the other things are in one image alone.",
        ("the green parrot",),
        "rg",
    ),
}
"""A worked example for each task."""

_WHAT = {
    Task.SOD: "Name the one object or region that draws the eye first; several things that stand out "
    "together are one expression.",
    Task.SIS: "Name each single thing that stands out, every one on its own, the most striking first.",
    Task.COSOD: "Name the one kind of object that is in all images and stands out in them, in words that are "
    "true of every image.",
}

_FORMS = {
    Task.SOD: "<answer><rg>expression</rg></answer>",
    Task.SIS: "<answer><ins>first expression</ins><ins>second expression</ins></answer>",
    Task.COSOD: "<answer><rg>expression</rg></answer>",
}


def zero_shot_prompt(task: Task, *, reasoning: bool = True, again: bool = False) -> str:
    """Return the question, the format and a worked example, for a model that was not fine-tuned.

    Args:
        task: the task.
        reasoning: whether to reason first, or to leave the reasoning empty.
        again: whether this is the second try, after a response that did not parse.
    """
    example = EXAMPLES[task] if reasoning else replace(EXAMPLES[task], reasoning="")
    thought = "one to three sentences of reasoning" if reasoning else ""
    order = "Reason first, then answer" if reasoning else "Do not reason, answer at once"
    parts = [
        f"{task.spec.question} {_WHAT[task]}",
        "An expression is a short noun phrase by which someone who has only these words finds the thing: "
        "what it is, and if need be its colour, size or place. It holds no coordinates.",
        f"{order}, in exactly this form:\n<think>{thought}</think>{_FORMS[task]}",
        "If nothing stands out, the answer is empty: <answer></answer>.",
        f"An example, of other images:\n{example.text}",
    ]
    if again:
        parts.append(
            "Mind the form: begin with <think>, write every tag as shown, close it, and add nothing after "
            "</answer>."
        )
    return "\n\n".join(parts)
