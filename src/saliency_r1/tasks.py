"""The three saliency tasks: their inputs, questions and tags."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_r1.choices import Choice


class Task(Choice):
    """A saliency task. `Task("sod")` and the plain string are equal."""

    SOD = "sod"
    SIS = "sis"
    COSOD = "cosod"

    @property
    def spec(self) -> TaskSpec:
        """The facts of the task."""
        return _SPECS[self]


@dataclass(frozen=True)
class TaskSpec:
    """Facts of one task.

    Attributes:
        title: its usual name in papers.
        tag: the tag of its expressions, `rg` (region) or `ins` (instance).
        question: the question to the policy.
        several_images: whether one question is about a group of images.
        several_expressions: whether an answer may hold more than one expression.
    """

    title: str
    tag: str
    question: str
    several_images: bool = False
    several_expressions: bool = False

    def prompt(self, *, reasoning: bool = True) -> str:
        """Return the user's text. Without `reasoning` it asks only for the answer."""
        return self.question if reasoning else f"{self.question} Answer at once."


_SPECS = {
    Task.SOD: TaskSpec(
        title="salient object detection",
        tag="rg",
        question="What stands out in this image?",
    ),
    Task.SIS: TaskSpec(
        title="salient instance segmentation",
        tag="ins",
        several_expressions=True,
        question="Which instances stand out in this image?",
    ),
    Task.COSOD: TaskSpec(
        title="co-salient object detection",
        tag="rg",
        several_images=True,
        question="Which salient object do these images share?",
    ),
}
