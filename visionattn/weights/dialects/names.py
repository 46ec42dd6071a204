"""Tables of names, read in both directions."""

from __future__ import annotations

import re
from typing import NamedTuple

_FIELD = re.compile(r"\{(?P<times>\d*)(?P<letter>[a-z])(?:\+(?P<plus>\d+))?\}|(?P<rest>\*)")


class NameTable:
    """What each canonical name is called in a dialect.

        table = NameTable(("features.{2i+1}.{j}.*", "layers.{i}.blocks.{j}.*"))
        table.to_canonical("features.3.0.norm1.bias")  # "layers.1.blocks.0.norm1.bias"

    Args:
        pairs: (a dialect's pattern, the canonical pattern). A letter in braces is a whole number of 0 or more, which
            may stand in the dialect's name times a number and plus a number; a `*` at the end is anything. The first
            pair that fits a name decides.
    """

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = [(_Pattern.of(theirs), _Pattern.of(canonical)) for theirs, canonical in pairs]

    def to_canonical(self, name: str) -> str | None:
        """The canonical name; None where the dialect has no such name."""
        return next((to.filled(found) for own, to in self._pairs if (found := own.match(name)) is not None), None)

    def from_canonical(self, name: str) -> str | None:
        """The dialect's name; None where it has none for this."""
        return next((own.filled(found) for own, to in self._pairs if (found := to.match(name)) is not None), None)


class _Pattern(NamedTuple):
    text: str
    regex: re.Pattern[str]
    fields: tuple[tuple[str, int, int], ...]  # letter, times, plus; of the `*`: "*", 0, 0

    @classmethod
    def of(cls, text: str) -> _Pattern:
        fields, regex, end = [], "", 0
        for field in _FIELD.finditer(text):
            regex += re.escape(text[end : field.start()]) + ("(.+)" if field["rest"] else r"(0|[1-9]\d*)")
            fields.append((field["letter"] or "*", int(field["times"] or 1), int(field["plus"] or 0)))
            end = field.end()
        return cls(text, re.compile(regex + re.escape(text[end:])), tuple(fields))

    def match(self, name: str) -> dict[str, str | int] | None:
        """What stands for each letter and the `*`; None if the name does not fit."""
        found = self.regex.fullmatch(name)
        if found is None:
            return None
        values: dict[str, str | int] = {}
        for (letter, times, plus), value in zip(self.fields, found.groups(), strict=True):
            if letter == "*":
                values[letter] = value
                continue
            number, rest = divmod(int(value) - plus, times)
            if rest or number < 0:
                return None
            values[letter] = number
        return values

    def filled(self, values: dict[str, str | int]) -> str:
        def written(field: re.Match[str]) -> str:
            if field["rest"]:
                return str(values["*"])
            return str(int(values[field["letter"]]) * int(field["times"] or 1) + int(field["plus"] or 0))

        return _FIELD.sub(written, self.text)
