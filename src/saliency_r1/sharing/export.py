"""Write a folder to share: safetensors, configuration, processor, tokenizer and a model card.

Transformers' Auto classes, the hub and `SaliencyPipeline.from_pretrained` can read it. It never holds a
pickle, code or a trainer's state, because only known files are written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from saliency_r1 import nano
from saliency_r1.catalogue import NANO
from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.nano.configuration import MODEL_TYPE
from saliency_r1.nano.segmenter_model import CONFIG_FILE, WEIGHTS_FILE, NanoSegmenterModel
from saliency_r1.pipeline import SEGMENTER_FOLDER
from saliency_r1.policy.processors import add_flat_file
from saliency_r1.policy.prompts import is_fine_tuned, mark_fine_tuned
from saliency_r1.policy.transformers import TransformersPolicy
from saliency_r1.segmenters.nano import EMBEDDED
from saliency_r1.sharing.card import Card, Kind, first_model, read_recipes, read_summaries

SHARD_SIZE = "5GB"

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
"""The files that a checkpoint's processor and tokenizer may consist of."""

_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Export:
    """The settings of an export.

    Attributes:
        policy: a folder or a hub name of a model, the folder of a LoRA adapter, or `nano` for the embedded
            policy.
        out: the folder, which must be new or empty.
        segmenter: the folder of a nano segmenter to put beside it, or `nano` for the embedded one.
        merge: whether to merge a LoRA adapter into its model; otherwise it is written unchanged.
        base_model: the model of an adapter, or that the policy was made from; None takes it from the adapter
            or the recipe.
        fine_tuned: whether the policy knows the response format and gets the plain question; None means yes
            if it is marked, is an adapter's, or is in a training run's folder.
        metrics: `summary.json` files of `saliency-r1 evaluate`.
        licence: licence of the weights, by its name on the hub (`apache-2.0`); None if unknown.
        datasets: data sets that it was trained on, by their names on the hub.
        shard_size: maximum size of a weights file.
        graphs: whether the folder also gets graphs for onnxruntime, of a nano policy and its segmenter. The
            default segmenter is then the embedded one.
        eight_bits: whether these graphs have weights of 8 bits where that hardly changes the texts.
    """

    policy: str
    out: Path
    segmenter: str | None = None
    merge: bool = False
    base_model: str | None = None
    fine_tuned: bool | None = None
    metrics: Sequence[Path] = ()
    licence: str | None = None
    datasets: Sequence[str] = ()
    shard_size: str = SHARD_SIZE
    graphs: bool = False
    eight_bits: bool = False


def export(what: Export) -> Path:
    """Write the folder, in one step; graphs are compared with torch first.

    Raises:
        SaliencyError: if policy or segmenter cannot be read or have only pickled weights, if a summary is
            invalid, if there is no adapter to merge, if the folder is not empty, or if graphs cannot be
            written or do not do what torch does.
    """
    if what.out.exists() and (not what.out.is_dir() or any(what.out.iterdir())):
        raise SaliencyError(f"{what.out}: holds files already; choose another folder, or empty it")
    embedded = what.policy == NANO and not Path(NANO).exists()
    source = str(nano.POLICY_FOLDER) if embedded else what.policy
    summaries = read_summaries(what.metrics)
    recipes = [] if embedded else read_recipes(Path(source))
    adapter = _adapter(source)
    if what.merge and adapter is None:
        raise SaliencyError(f"{source}: has no {_ADAPTER_CONFIG}, so there is nothing to merge")
    base = what.base_model or (str(adapter["base_model_name_or_path"]) if adapter else first_model(recipes))
    fresh = what.out.with_name(f".{what.out.name}.{os.getpid()}.tmp")
    fresh.mkdir(parents=True)
    kind: Kind = "adapter"
    try:
        if adapter is not None and not what.merge:
            _copy_adapter(Path(source), adapter, base, fresh)
            # Users of an adapter have its model: nothing is downloaded for this.
            near = [source, str(adapter["base_model_name_or_path"])]
            _copy_processor([folder for folder in near if Path(folder).is_dir()], fresh)
        else:
            model = base if adapter else None
            kind = _write_model(source, model, bool(recipes), what.fine_tuned, fresh, what.shard_size)
            # A trainer rewrites the processor; the model's own files are the original ones.
            if not _copy_processor([model or source, source], fresh):
                raise SaliencyError(f"{source}: has no processor; copy that of the model it was made from")
        segmenter = _segmenter_of(what, source)
        if segmenter is not None:
            _copy_segmenter(segmenter, fresh)
        if what.graphs:
            _add_graphs(source, kind, fresh, what.eight_bits)
        card = Card(
            name=what.out.name,
            kind=kind,
            licence=what.licence or ("apache-2.0" if kind == "nano" else None),
            base_model=base,
            datasets=tuple(what.datasets),
            summaries=summaries,
            recipes=recipes,
            segmenter=segmenter is not None,
            about=(nano.POLICY_FOLDER.parent / "README.md").read_text("utf-8") if embedded else None,
        )
        (fresh / "README.md").write_text(card.text(), encoding="utf-8")
        fresh.replace(what.out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return what.out


def _segmenter_of(what: Export, source: str) -> Path | None:
    """The folder of the segmenter that goes with the policy."""
    if what.segmenter is not None:
        return EMBEDDED if what.segmenter == NANO else Path(what.segmenter)
    if not what.graphs:
        return None
    beside = Path(source) / SEGMENTER_FOLDER
    return beside if (beside / CONFIG_FILE).is_file() else EMBEDDED


def _add_graphs(source: str, kind: Kind, out: Path, eight_bits: bool) -> None:
    """Write the graphs of a policy and its segmenter, and see that they do what torch does."""
    if kind != "nano":
        raise SaliencyError(f"{source}: is no nano policy, and graphs are written of these alone")
    from saliency_r1.sharing.onnx_check import check_graphs
    from saliency_r1.sharing.onnx_graphs import write_policy_graphs, write_segmenter_graphs

    write_policy_graphs(out, eight_bits=eight_bits)
    write_segmenter_graphs(out / SEGMENTER_FOLDER)
    check_graphs(out, out / SEGMENTER_FOLDER, eight_bits=eight_bits)


def _adapter(source: str) -> dict[str, Any] | None:
    """Return the configuration of a LoRA adapter's folder; None if it is not one."""
    path = Path(source) / _ADAPTER_CONFIG
    if not path.is_file() or (path.parent / "config.json").is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        content["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        raise SaliencyError(f"{path}: is no configuration of an adapter") from None
    if not (path.parent / _ADAPTER_WEIGHTS).is_file():
        raise SaliencyError(
            f"{source}: has no {_ADAPTER_WEIGHTS}; a pickled one (.bin) is not read, save it as safetensors"
        )
    return dict(content)


def _copy_adapter(source: Path, adapter: dict[str, Any], base: str | None, out: Path) -> None:
    shutil.copyfile(source / _ADAPTER_WEIGHTS, out / _ADAPTER_WEIGHTS)
    content = {**adapter, "base_model_name_or_path": base}
    (out / _ADAPTER_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_model(
    source: str, base: str | None, trained: bool, fine_tuned: bool | None, out: Path, shard_size: str
) -> Kind:
    """Write weights and configurations of a model, or of `base` with the adapter at `source` merged."""
    # In the stored type of the weights.
    policy = TransformersPolicy.from_pretrained(base or source, device="cpu", dtype="auto")
    model = policy.model if base is None else _merged(policy.model, source)
    nano_policy = model.config.model_type == MODEL_TYPE
    if not nano_policy:
        marked = is_fine_tuned(model.config)
        if marked and fine_tuned is False:
            raise SaliencyError(
                f"{source}: its config.json says that it is fine-tuned; leave --zero-shot out"
            )
        if fine_tuned or (fine_tuned is None and (base is not None or trained)):
            mark_fine_tuned(model.config)
    model.save_pretrained(out, max_shard_size=shard_size)
    return "nano" if nano_policy else "model"


def _merged(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise SaliencyError("merging an adapter needs peft: pip install 'saliency-r1[train]'") from None
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = one_line(error)[:300]
        raise SaliencyError(f"{adapter}: does not fit its model ({reason})") from error


def _copy_processor(sources: Sequence[str], out: Path) -> bool:
    """Copy the files of processor and tokenizer from the first source that has them."""
    for source in dict.fromkeys(sources):
        found = {
            name: cached_file(source, name, _raise_exceptions_for_missing_entries=False)
            for name in PROCESSOR_FILES
        }
        # Trainers put only the tokenizer beside an adapter.
        if found["processor_config.json"] or found["preprocessor_config.json"]:
            for name, path in found.items():
                if path is not None:
                    shutil.copyfile(path, out / name)
            add_flat_file(out)
            return True
    return False


def _copy_segmenter(folder: Path, out: Path) -> None:
    NanoSegmenterModel.from_pretrained(folder)  # refuses an invalid one
    (out / SEGMENTER_FOLDER).mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copyfile(folder / name, out / SEGMENTER_FOLDER / name)
