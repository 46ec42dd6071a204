"""Configs for reading: values by dotted key, what two configs differ in, and one value explained."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any

from mmengine.config import Config

from visionattn.engine.config import import_scope
from visionattn.engine.config_kinds import keyword_doc, owner_of, value_at
from visionattn.engine.config_origin import Place, find_origin, trace_config
from visionattn.engine.registered import keywords, type_label

_WIDTH = 100


def flat_values(config: Config) -> dict[str, Any]:
    """Every value that is no dict and no list of dicts, by its dotted key."""
    return dict(_leaves(config._cfg_dict.to_dict(), ""))


def python_text(config: Config) -> str:
    """The config as Python that can be loaded again; keys in the order in which its bases and itself set them."""
    return "\n".join(f"{key} = {_literal(value, 0, len(key) + 3)}" for key, value in config.to_dict().items())


def differences(one: Config, other: Config) -> list[tuple[str, str]]:
    """("-", "key = value") for what `one` alone has, ("+", ...) for what `other` alone has, in the order of keys."""
    before, after = flat_values(one), flat_values(other)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key in before and key in after and _equal(before[key], after[key]):
            continue
        lines += [("-", f"{key} = {before[key]!r}")] if key in before else []
        lines += [("+", f"{key} = {after[key]!r}")] if key in after else []
    return lines


def explain_key(config: Config, key: str, options: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """(heading, text) of what is known of a value: itself, where it was set, what takes it, its default and meaning.

    A keyword that the config leaves out, and whose owner takes it, is explained too.

    Args:
        options: those put over the config file.
    Raises:
        KeyError: neither the config nor what it builds has the key; the message has the nearest keys.
    """
    import_scope(config)
    parts = tuple(key.split("."))
    kind, keyword = owner_of(config, parts)
    taken, _ = keywords(kind) if kind is not None else ({}, False)
    parameter = taken.get(keyword)
    try:
        value = value_at(config, parts)
        rows = [("value", _shown(value)), ("type", type(value).__name__)]
        rows += _set_at(config, key, options)
    except KeyError:
        if parameter is None or keyword != parts[-1]:
            known = _all_keys(config) | {".".join((*parts[:-1], name)) for name in taken}
            raise KeyError(
                f"the config has no {key}; nearest: {', '.join(get_close_matches(key, sorted(known), 3))}"
            ) from None
        rows = [("value", "not set")]
    if kind is not None:
        rows.append(("of", f"{keyword} of {type_label(kind)}"))
    if parameter is not None:
        if parameter.annotation is not parameter.empty:
            rows.append(("expects", _annotation(parameter.annotation)))
        rows.append(
            ("default", "none: it must be given" if parameter.default is parameter.empty else f"{parameter.default!r}")
        )
    if kind is not None:
        meaning = keyword_doc(kind, keyword)
        if meaning:
            rows.append(("meaning", meaning))
    return rows


def _set_at(config: Config, key: str, options: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if not config.filename:
        return
    origin = find_origin(trace_config(config.filename, options), key)
    places: tuple[Place, ...] = origin.places
    for heading, place in zip(["set", *["then"] * (len(places) - 1)], places, strict=True):
        yield heading, str(place)
    if origin.name:
        yield "from", f"the variable {origin.name}"


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value):
        inner = enumerate(value)
    if not inner:
        yield key, value
    for name, entry in inner:
        yield from _leaves(entry, f"{key}.{name}" if key else str(name))


def _all_keys(config: Config) -> set[str]:
    """Of every value and of what holds it."""
    keys = set()
    for leaf in flat_values(config):
        parts = leaf.split(".")
        keys |= {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    return keys


def _literal(value: Any, indent: int, column: int) -> str:
    """Python of a value that begins in this column; in several lines, a dict's always, where one is too narrow."""
    if isinstance(value, type):
        return value.__name__ if value.__module__ == "builtins" else f"{value.__module__}.{value.__name__}"
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    by_name = isinstance(value, dict) and all(str(key).isidentifier() and not iskeyword(str(key)) for key in value)
    if isinstance(value, dict):
        begins = [(f"{key}=" if by_name else f"{key!r}: ", entry) for key, entry in value.items()]
        left, right = ("dict(", ")") if by_name else ("{", "}")
    else:
        begins = [("", entry) for entry in value]
        left, right = ("[", "]") if isinstance(value, list) else ("(", ")")
    flat = [begin + _literal(entry, 0, 0) for begin, entry in begins]
    last = "," if isinstance(value, tuple) and len(value) == 1 else ""
    line = f"{left}{', '.join(flat)}{last}{right}"
    if "\n" not in line and column + len(line) < _WIDTH:
        return line
    inner = indent + 4
    lines = [f"{' ' * inner}{begin}{_literal(entry, inner, inner + len(begin))}," for begin, entry in begins]
    return "\n".join([left, *lines, " " * indent + right])


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
