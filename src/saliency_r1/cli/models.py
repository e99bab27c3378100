"""`saliency-r1 models`: list the known models and convert weights; also loads models for other commands.

Loading prints nothing, and stays offline unless a hub name is given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saliency_r1.catalogue import NANO, POLICIES, SEGMENTERS, KnownModel
from saliency_r1.errors import SaliencyError
from saliency_r1.runtime import Runtime

if TYPE_CHECKING:
    from rich.table import Table

    from saliency_r1.pipeline import SaliencyPipeline
    from saliency_r1.policy.base import Policy
    from saliency_r1.policy.options import PolicyOptions

app = typer.Typer(invoke_without_command=True, add_completion=False)

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_REVISION = re.compile(r"(@[\w./-]+)?")


def load_pipeline(
    policy: str | Policy | None,
    segmenter: str | None,
    device: str,
    policy_options: PolicyOptions | None = None,
    *,
    runtime: Runtime = Runtime.AUTO,
) -> SaliencyPipeline:
    """Load the pipeline of a policy and a segmenter; None stands for the nano model.

    A policy is a folder, a hub name, an endpoint, `nano`, or a loaded one. A segmenter is a name, with
    `:WEIGHTS` for other weights, or a folder.

    Raises:
        SaliencyError: if a model is no folder and no possible hub name, or cannot be loaded.
    """
    prepare_hub(policy if isinstance(policy, str) else None, segmenter)

    from saliency_r1.pipeline import SaliencyPipeline

    return SaliencyPipeline.from_pretrained(
        policy, segmenter, device=device, policy_options=policy_options, runtime=runtime
    )


def prepare_hub(policy: str | None, segmenter: str | None) -> None:
    """Set up the hub for the models of these names, before anything imports its client.

    Raises:
        SaliencyError: if a model is no folder and no possible hub name.
    """
    from saliency_r1.policy.options import is_endpoint
    from saliency_r1.segmenters.load_segmenter import parse_segmenter

    local = policy is None or policy == NANO or is_endpoint(policy) or Path(policy).exists()
    if not (local or _HUB_NAME.fullmatch(str(policy))):
        known = ", ".join([NANO, *(name for model in POLICIES for name in model.weights)])
        raise SaliencyError(
            f"{policy}: no such folder, and no hub name (owner/model) or endpoint "
            f"(openai:http://HOST:PORT/v1#MODEL); known policies: {known}"
        )
    name, weights = parse_segmenter(segmenter)
    remote = [each for each in weights if not Path(each).is_dir()]
    for each in remote:
        hub_name, at, revision = each.partition("@")
        if name == NANO or not (_HUB_NAME.fullmatch(hub_name) and _REVISION.fullmatch(at + revision)):
            expected = "" if name == NANO else ", and no hub name (owner/model or owner/model@REVISION)"
            raise SaliencyError(f"{each}: no such folder{expected}, expected weights of {name}")
    set_up_hub(online=not local or bool(remote))


def set_up_hub(*, online: bool) -> None:
    """Make transformers and the hub client quiet, and offline unless `online`.

    They read this once, at import.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "0" if online else "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if online else "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


@app.callback()
def models(context: typer.Context) -> None:
    """List the known models: size, licence, memory, and which weights are on this machine.

    Any other image-text-to-text model can be a policy too. The list needs no network.
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    cached = cached_weights()
    console.print(_table("Policies: --policy WEIGHTS", POLICIES, cached))
    console.print(_table("Segmenters: --segmenter NAME, or NAME:WEIGHTS", SEGMENTERS, cached))
    console.print(
        "Memory: the weights in 16 / 32 bits, computed from their number. Each photo takes some more.",
        style="dim",
    )


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE.bin", help="Pickled weights, or a folder with pytorch_model*.bin."),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write; it must not hold weights.")
    ],
) -> None:
    """Convert pickled weights that you trust to safetensors.

    Only tensors are read from the pickle (weights_only=True), in a separate process. The configuration and
    tokenizer beside it are copied, so that OUT can be loaded.
    """
    from saliency_r1.sharing.convert import convert_pickle

    count = convert_pickle(source, out)
    print(f"{count} tensors are in {out / 'model.safetensors'}")


def cached_weights(folder: Path | None = None) -> dict[str, int]:
    """Return the bytes of safetensors that the hub's cache on this machine holds, by model name.

    Args:
        folder: the cache. By default it is the folder that the hub's client uses.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(folder).repos
    except CacheNotFound:
        return {}
    found = {}
    for repo in repos:
        files = {file for revision in repo.revisions for file in revision.files}
        blobs = {
            file.blob_path: file.size_on_disk for file in files if file.file_name.endswith(".safetensors")
        }
        if repo.repo_type == "model" and blobs:
            found[repo.repo_id] = sum(blobs.values())
    return found


def _table(title: str, known: tuple[KnownModel, ...], cached: Mapping[str, int]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "weights", "parameters", "memory", "licence", "cached", "remark"):
        table.add_column(heading, overflow="fold")
    for model in known:
        small, large = (_gigabytes(model.weight_bytes(each)) for each in (2, 4))
        table.add_row(
            model.name,
            "\n".join(model.weights),
            f"{model.parameters / 1000:.2f} G" if model.parameters >= 1000 else f"{model.parameters:g} M",
            f"{small} / {large} GB",
            model.licence,
            "\n".join(_cached(name, cached) for name in model.weights) or "yes",
            model.remark,
        )
    return table


def _cached(name: str, cached: Mapping[str, int]) -> str:
    return f"{_gigabytes(cached[name])} GB" if name in cached else "no"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f}" if count >= 1e8 else f"{count / 1e9:.2f}"
