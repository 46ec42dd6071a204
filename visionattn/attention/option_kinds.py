"""Options of the wrong kind are refused as a mechanism is made: its signature says what each has to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from inspect import Parameter, signature
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def checks_kinds(init: Callable[..., None]) -> Callable[..., None]:
    """The `__init__` that looks, before anything else, whether options annotated int, float or bool are such.

    Each may also be annotated `| None`. A config writes strings and None as easily as numbers, and 'no' counts as true.

    Raises:
        TypeError: of the returned function: an option of another kind, None where it means nothing included.
        ValueError: of the returned function: an option that is nan.
    """
    declared = signature(init)

    @cache  # annotations are strings, whose names may be defined further down than the class
    def checks() -> Mapping[str, _Kind]:
        try:
            hints = get_type_hints(init)
        except NameError:  # a name that only a type checker sees
            return {}
        return {
            name: _Kind(kinds[0], type(None) in kinds, option.default)
            for name, option in declared.parameters.items()
            if (kinds := _alternatives(hints.get(name)))[0] in _KINDS
        }

    @wraps(init)
    def checking_init(self: Any, *args: Any, **options: Any) -> None:
        try:
            given = declared.bind(self, *args, **options).arguments
        except TypeError:
            given = {}  # Python's own error, from the call below, names the class as well
        for name, value in given.items():
            if name in checks():
                checks()[name].check(name, value)
        init(self, *args, **options)

    return checking_init


@dataclass(frozen=True)
class _Kind:
    """int, float or bool, perhaps None too, and the default (None or Parameter.empty if there is none)."""

    kind: type
    optional: bool
    default: object

    def check(self, name: str, value: object) -> None:
        if value is None and self.optional:
            return
        is_one, description, without, example = _KINDS[self.kind]
        instead = example if self.default in (None, Parameter.empty) else self.default
        if not is_one(value):
            raise TypeError(f"{name}={value!r} is {description}; write {name}={instead}, without {without}")
        if self.kind is float and math.isnan(value):  # type: ignore[arg-type]  # a real number
            raise ValueError(f"{name}=nan leads to nothing but nan; write {name}={instead}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """What a union is of; another annotation alone."""
    return get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # NumPy's own too


_KINDS: Mapping[Any, tuple[Callable[[object], bool], str, str, object]] = {
    int: (lambda value: isinstance(value, Integral) and not _is_flag(value), "no whole number", "quotes or a point", 8),
    float: (lambda value: isinstance(value, Real) and not _is_flag(value), "no number", "quotes", 0.5),
    bool: (_is_flag, "neither True nor False", "quotes", True),
}
