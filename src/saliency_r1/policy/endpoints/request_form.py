"""The parameters of chat completions: servers and models differ in what they accept, and refuse the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLAINER: tuple[frozenset[str], ...] = (
    frozenset({"logprobs", "seed", "structured"}),
    frozenset({"temperature", "max_tokens"}),
)
"""The parts that a request leaves out, step by step, after it was refused without a reason."""

_NAMES = {"structured_outputs": "structured", "regex": "structured"}
_REFUSAL = re.compile(
    r"unsupported|not (?:\w+ )?support|unknown|unrecogni[sz]ed|unexpected|not allowed|not permitted|extra "
    r"(?:inputs?|fields?)|cannot find field|no such (?:parameter|field)|not available",
    re.IGNORECASE,
)
_CODES = {"unsupported_parameter", "unsupported_value", "unknown_parameter"}


def refused_parameters(error: Any, sent: Mapping[str, Any]) -> frozenset[str]:
    """Find the parameters of a request that a server says it does not accept.

    A number that is too large, a photo that cannot be read or a rejected text do not count.

    Args:
        error: the error of the openai package for HTTP 400 or 422.
        sent: the parameters that were sent, by their names in the request.

    Returns:
        Their names as `parameters` knows them; none if the server refuses something else.

    Example:
        >>> class Error(Exception):
        ...     body = {"message": "Unsupported parameter: 'temperature'."}
        >>> refused_parameters(Error(), {"temperature": 0, "max_tokens": 9})
        frozenset({'temperature'})
    """
    body = getattr(error, "body", None)
    body = body if isinstance(body, Mapping) else {}
    message = body.get("message") or str(error)
    if body.get("code") not in _CODES and not _REFUSAL.search(str(message)):
        return frozenset()
    droppable = frozenset().union(*PLAINER)
    names = {name: _NAMES.get(name, name) for name in _leaves(sent)}
    param = str(body.get("param") or "")
    if names.get(param) in droppable:
        return frozenset({names[param]})
    words = set(re.findall(r"\w+", str(message)))
    return frozenset(known for name, known in names.items() if name in words and known in droppable)


def parameters(limit: int, options: Mapping[str, Any], without: frozenset[str]) -> dict[str, Any]:
    """The parts of a request beside model and messages.

    Args:
        limit: maximum tokens of the answer.
        options: `temperature`, `seed`, `logprobs`, and `structured`, which is added to the body unchanged.
        without: the parameters that the server does not accept. Without `max_tokens` the limit is called
            `max_completion_tokens`, as newer models require.
    """
    kept = {name: value for name, value in options.items() if name not in without}
    if structured := kept.pop("structured", None):
        kept["extra_body"] = dict(structured)
    name = "max_completion_tokens" if "max_tokens" in without else "max_tokens"
    return {name: limit, **kept}


def _leaves(sent: Mapping[str, Any]) -> set[str]:
    return {name for name in sent if name != "extra_body"} | set(sent.get("extra_body", ()))
