"""Write the model card: README.md with metadata for the hub, numbers, data and commands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from huggingface_hub import EvalResult, ModelCardData

from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.evaluation.outputs import TITLES, shown
from saliency_r1.tasks import Task

Kind: TypeAlias = Literal["nano", "model", "adapter"]
"""The kind of model: a policy of our own architecture, a large model or a LoRA adapter."""

RECIPE = "recipe.json"
"""The recipe's file name in a run's folder."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LONGEST_CHAIN = 10
_TAGS = ["saliency-r1", "salient-object-detection", "image-segmentation"]
_TITLE = {
    "nano": "A nano policy of saliency-r1, for all three saliency tasks on any device.",
    "model": "An image-text-to-text model that says what stands out in a picture, for saliency-r1.",
    "adapter": "A LoRA adapter that makes an image-text-to-text model say what stands out in a picture, for "
    "saliency-r1. It is not merged: `saliency-r1 export ADAPTER --merge --out FOLDER` gives a model that the "
    "commands take.",
}


@dataclass(frozen=True)
class Card:
    """The content of a card.

    Attributes:
        name: the model's name.
        kind: kind of model.
        licence: licence of the weights, by its name on the hub; None if unknown.
        base_model: the model that it was made from, if any.
        datasets: names of data sets on the hub.
        summaries: summaries of evaluations, see `read_summaries`.
        recipes: recipes of its training, see `read_recipes`.
        segmenter: whether the folder has a segmenter too.
        about: text that replaces the first paragraph, with its own title.
    """

    name: str
    kind: Kind
    licence: str | None
    base_model: str | None
    datasets: tuple[str, ...]
    summaries: Sequence[dict[str, Any]]
    recipes: Sequence[tuple[Path, dict[str, Any]]]
    segmenter: bool
    about: str | None = None

    def text(self) -> str:
        """Return the content of README.md."""
        parts = [
            f"---\n{self._metadata()}\n---",
            f"# {self.name}\n\n{_TITLE[self.kind]}",
            self._use(),
            self._numbers(),
            self._training(),
            self._licence(),
            _lowered(self.about) if self.about else "",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _metadata(self) -> str:
        results = [
            EvalResult(
                task_type="image-segmentation",
                task_name=Task.parse(summary["task"]).spec.title,
                dataset_type=_slug(summary["data"]["name"]),
                dataset_name=summary["data"]["name"],
                dataset_split=summary["data"].get("split"),
                metric_type=metric,
                metric_name=TITLES.get(metric, metric),
                metric_value=round(value, 6),
            )
            for summary in self.summaries
            for metric, value in _known(summary).items()
        ]
        data = ModelCardData(
            base_model=self.base_model if self.base_model and _on_the_hub(self.base_model) else None,
            datasets=list(self.datasets) or None,
            eval_results=results or None,
            library_name={"nano": "saliency-r1", "adapter": "peft"}.get(self.kind, "transformers"),
            license=self.licence or "other",
            model_name=self.name,
            pipeline_tag="image-text-to-text",
            tags=_TAGS,
        )
        return str(data.to_yaml())

    def _use(self) -> str:
        if self.kind == "adapter":
            return ""
        lines = [
            "## Use",
            "",
            "```python",
            "from saliency_r1 import SaliencyPipeline",
            "",
            'pipe = SaliencyPipeline.from_pretrained("FOLDER OR HUB NAME OF THIS MODEL")',
            'result = pipe("photo.jpg")',
            "result.reasoning, result.expressions, result.mask",
            "```",
            "",
            "The model writes a reasoning and a referring expression; a segmenter makes the mask. "
            + (
                "The segmenter in `segmenter/` is taken unless another is named."
                if self.segmenter
                else "The package's own segmenter is taken unless another is named."
            ),
        ]
        if self.kind == "model":
            lines[-1] += (
                " Transformers alone loads it with `AutoModelForImageTextToText` and `AutoProcessor`."
            )
        return "\n".join(lines)

    def _numbers(self) -> str:
        if not self.summaries:
            return "## Numbers\n\nNone were given when this was written."
        parts = ["## Numbers"]
        for summary in self.summaries:
            known = _known(summary)
            data, task = summary["data"], Task.parse(summary["task"]).spec.title
            split = f", split {data['split']}" if data.get("split") else ""
            rows = [
                " | ".join(TITLES.get(metric, metric) for metric in known),
                " | ".join("--:" for _ in known),
                " | ".join(shown(value) for value in known.values()),
            ]
            parts.append(f"{data['name']}{split}: {task}, method {summary['method']['name']}.")
            parts.append("\n".join(f"| {row} |" for row in rows))
            parts += [f"{note}." for note in summary.get("notes", ())]
            parts.append(f"```\n{summary['command']}\n```")
        return "\n\n".join(parts)

    def _training(self) -> str:
        parts = ["## Training"]
        if self.base_model:
            parts.append(f"It was made from {self.base_model}.")
        if self.datasets:
            parts.append(f"Data: {', '.join(self.datasets)}.")
        for folder, recipe in self.recipes:
            rows = "\n".join(f"{key}: {json.dumps(value)}" for key, value in recipe.items())
            parts.append(
                f"The recipe of the run `{folder.name}`, for `saliency-r1 train`:\n\n```yaml\n{rows}\n```"
            )
        return "\n\n".join(parts) if len(parts) > 1 else ""

    def _licence(self) -> str:
        told = (
            f"The weights: {self.licence}."
            if self.licence
            else "That of the weights was not told when this was written. The terms of the model and of the "
            "data that they were made from apply."
        )
        return f"## Licence\n\n{told}"


def read_summaries(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read what `saliency-r1 evaluate` wrote.

    Args:
        paths: `summary.json` files, or the folders that hold them.

    Raises:
        SaliencyError: if a file is not such a summary.
    """
    summaries = []
    for given in paths:
        path = given / "summary.json" if given.is_dir() else given
        try:
            summary = json.loads(path.read_bytes())
            Task.parse(summary["task"])
            summary["data"]["name"], summary["method"]["name"], summary["command"]
            _known(summary)
        except OSError as error:
            raise SaliencyError(f"{path}: cannot be read ({one_line(error)})") from None
        except (ValueError, KeyError, TypeError, AttributeError, SaliencyError):
            raise SaliencyError(f"{path}: is no summary.json of saliency-r1 evaluate") from None
        summaries.append(summary)
    return summaries


def read_recipes(policy: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read the run folders and recipes that led to a policy, the last one first.

    A recipe is in the policy's folder or in its parent (`runs/sft/policy`, `runs/cgpo/checkpoint-100`); its
    start leads to the run before.
    """
    recipes: list[tuple[Path, dict[str, Any]]] = []
    while len(recipes) < _LONGEST_CHAIN:
        policy = policy.absolute()
        folder = next((where for where in (policy, policy.parent) if (where / RECIPE).is_file()), None)
        if folder is None or any(folder == known for known, _ in recipes):
            break
        try:
            recipe = json.loads((folder / RECIPE).read_bytes())
        except ValueError:
            raise SaliencyError(f"{folder / RECIPE}: is no JSON") from None
        recipes.append((folder, recipe))
        start = _start(recipe)
        if start is None:
            break
        policy = Path(start)
    return recipes


def first_model(recipes: Sequence[tuple[Path, dict[str, Any]]]) -> str | None:
    """Return the hub name from which the first of these runs started; None if it was something else."""
    start = _start(recipes[-1][1]) if recipes else None
    return start if start is not None and _on_the_hub(start) else None


def _start(recipe: dict[str, Any]) -> str | None:
    """Return the start of a run, under the names of `train cgpo` and of `train sft`."""
    found = [recipe[key] for key in ("start", "policy") if isinstance(recipe.get(key), str)]
    return found[0] if found else None


def _known(summary: dict[str, Any]) -> dict[str, float]:
    """Return the metrics that have a value."""
    values = {metric: value for metric, value in summary["metrics"].items() if value is not None}
    return {metric: float(value) for metric, value in values.items() if not math.isnan(float(value))}


def _on_the_hub(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name.lower()).strip("-")


def _lowered(text: str) -> str:
    """Return the text with its headings one level lower."""
    return re.sub(r"^#", "##", text.strip(), flags=re.MULTILINE)
