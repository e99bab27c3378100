"""Upload an exported folder to the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from saliency_r1.errors import SaliencyError, one_line

TOKEN_VARIABLE = "HF_TOKEN"
_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_LONGEST_REASON = 300


def check_push(repository: str) -> str:
    """Check name and token for an upload, before any work is done; return the token.

    It is read only from the environment variable HF_TOKEN, not from the files of the hub's own commands.

    Raises:
        SaliencyError: if the repository's name is invalid, there is no token, or the hub is switched off.
    """
    if not _NAME.fullmatch(repository):
        raise SaliencyError(f"{repository}: is no repository on the hub; expected OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise SaliencyError(f"{repository}: HF_HUB_OFFLINE is set; unset it to push, or leave --push out")
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise SaliencyError(
            f"{repository}: pushing needs a token in the environment variable {TOKEN_VARIABLE}"
        )
    return token


def push(folder: Path, repository: str) -> str:
    """Upload a folder; a missing repository is created as a private one.

    Args:
        folder: a folder that `export` wrote.
        repository: `OWNER/NAME`.

    Returns:
        The address of the commit.

    Raises:
        SaliencyError: if the hub cannot be reached or refuses; the folder stays. See also `check_push`.
    """
    api = HfApi(token=check_push(repository))
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export of saliency-r1"
        )
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "error")
        raise SaliencyError(f"{repository}: the hub refused it (HTTP {status}: {_line(error)})") from None
    except Exception as error:  # any error of the HTTP library in use
        raise SaliencyError(
            f"{repository}: could not be pushed, {folder} is complete ({_line(error)})"
        ) from None
    return str(commit.commit_url)


def _line(error: Exception) -> str:
    text = one_line(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
