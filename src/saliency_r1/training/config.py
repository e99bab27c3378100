"""Recipes: a YAML file and `key=value` overrides to a dataclass, with errors that name the key."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from saliency_r1.errors import SaliencyError, one_line
from saliency_r1.files import read_text

Recipe = TypeVar("Recipe")


def load_recipe(path: str | Path, kind: type[Recipe], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file of keys and values.
        kind: the dataclass that says which keys there are and of which type; fields without a default are
            required. Fields may be str, int, float, bool, Path, tuples of these, and unions with None.
        overrides: `key=value` texts that go over the file, the value in YAML.

    Raises:
        SaliencyError: in one line, for a file that cannot be read, a key that is unknown or missing, or a
            value of another type.

    Example:
        >>> load_recipe("recipes/nano/sft.yaml", SFTRecipe, ["batch_size=8"])  # doctest: +SKIP
    """
    return recipe_from(read_values(path, overrides), kind, str(path))


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[Any, Any]:
    """The keys and values of a recipe's file, overrides over them, of any type. See `load_recipe`."""
    try:
        values = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise SaliencyError(f"{path}: is not YAML ({one_line(error)})") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SaliencyError(f"{path}: expected keys and values, got a {type(values).__name__}")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise SaliencyError(f"override {override!r}: expected key=value")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise SaliencyError(f"override {override!r}: the value is not YAML") from None
    return values


def recipe_from(values: dict[Any, Any], kind: type[Recipe], source: str) -> Recipe:
    """A recipe from keys and values; `source` begins the error messages. See `load_recipe`."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    renamed: Mapping[str, str] = getattr(kind, "OLD_KEYS", {})
    for key in values:
        if key in renamed and key not in fields:
            raise SaliencyError(f"{source}: the key {key!r} has another name now: {renamed[key]}")
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(fields))}"
            raise SaliencyError(f"{source}: unknown key {key!r}: {advice}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise SaliencyError(f"{source}: the key {name!r} is missing")
    read = {}
    for name, value in values.items():
        try:
            read[name] = _read(value, hints[name])
        except (TypeError, ValueError):
            raise SaliencyError(f"{source}: {name} is {value!r}: expected {_wanted(hints[name])}") from None
    try:
        return kind(**read)
    except ValueError as error:
        raise SaliencyError(f"{source}: {error}") from None


def _wanted(hint: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_wanted(argument) for argument in arguments)
    if origin is tuple:
        return f"a list of {_wanted(arguments[0])}"
    return "null" if hint is type(None) else hint.__name__


def _read(value: Any, hint: Any) -> Any:
    """`value` as the type `hint`; TypeError or ValueError if it is of another."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        for argument in arguments:
            if argument is type(None):
                continue
            try:
                return _read(value, argument)
            except (TypeError, ValueError):
                continue
        raise TypeError
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise ValueError
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_read(item, arguments[0]) for item in value)
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):
        return float(value)  # YAML reads 1e-3 as a text
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if (hint is not bool and isinstance(value, bool)) or not isinstance(value, hint):
        raise TypeError
    return value
