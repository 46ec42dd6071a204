"""Weights into a model, and an account of how they met."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import nn

from visionattn.weights.dialects.dialect import described
from visionattn.weights.dialects.swin import is_computed
from visionattn.weights.reading import below, find_state_dict, read_checkpoint
from visionattn.weights.report import LoadReport, compare, patterns_for
from visionattn.weights.resizing import resized
from visionattn.weights.translation import Spoken, detect, dialect_names, from_canonical, speaking, to_canonical

_WITHOUT_STRICT = "; strict=False loads what matches"


def load_checkpoint(
    model: nn.Module, path: str | Path, *, strict: bool = True, prefix: str = "", allow: Sequence[str] = ()
) -> LoadReport:
    """Loads a file's weights into the model and says how they met.

        load_checkpoint(create_backbone("swin_tiny_window7"), "swin_tiny.pth", allow=("norm*", "head.*"))

    A Swin or ViT under timm's, microsoft's, torchvision's or mmseg's names loads into one under any of these, whether
    its names begin with "backbone." or not. Bias tables of another window and position embeddings of another image size
    are interpolated; buffers that follow from both are left as the model has them.

    Args:
        model: receives the weights, on whatever device it is.
        path: .safetensors, or a torch checkpoint: a state dict or a dict with one under state_dict, model, module,
            state_dict_ema, model_ema or teacher (the first there is).
        strict: every name and shape must fit; False loads those that do.
        prefix: takes only the names that begin so, and cuts it off ("backbone." for a segmentor's backbone).
        allow: patterns such as "head.*" of names that may be left over, in the file or the model, and do not count.
    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, holds no weights, or belongs to another model; the model is as it
            was.
    """
    try:
        state = find_state_dict(read_checkpoint(path))
        if prefix:
            state = below(prefix, state)
        return load_weights(model, state, strict=strict, allow=allow)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def load_state_dict(model: nn.Module, state: Mapping[str, Any], *, strict: bool = True) -> LoadReport:
    """Loads tensors by name; with strict, a state dict that does not fit leaves the model as it was.

    Raises:
        ValueError: strict and something does not fit, or nothing fits at all.
    """
    report = compare(model.state_dict(), state)
    if not report.matched or (strict and not report.complete):
        raise ValueError(_refusal(model, report) + (_WITHOUT_STRICT if report.matched else ""))
    _load(model, state, report)
    return report


def load_weights(
    model: nn.Module, state: Mapping[str, Any], *, strict: bool = True, allow: Sequence[str] = ()
) -> LoadReport:
    """What `load_checkpoint` does with the tensors of a file; its arguments and errors."""
    own: Mapping[str, Any] = model.state_dict()
    found, dialect, changed = fitted(model, state)
    source, wanted = detect(state), detect(own)
    if source is not None and wanted is not None:
        own = _without_computed(own)
    report = replace(compare(own, found, allow), resized=dict(changed), dialect=dialect)
    if not report.matched or (strict and not report.complete):
        sizes = "" if source is None or wanted is None else _sizes(state, source, own, wanted)
        patterns = patterns_for((*report.missing, *report.unexpected, *report.mismatched), report.matched)
        given = f"allow={tuple(patterns)} (--allow {' '.join(map(repr, patterns))})"
        advice = f"; {given} lets these be left over" if patterns and not sizes else _WITHOUT_STRICT
        raise ValueError(_refusal(model, report, sizes) + (advice if report.matched else _where_else(own, state)))
    _load(model, found, report)
    return report


class Fitted(NamedTuple):
    """A state dict as a model wants it.

    Attributes:
        state: under the model's names where both are known, without buffers that follow from window and image size.
        dialect: whose names it had, where they were others.
        resized: what was interpolated, with "[file's shape] to [model's shape]".
    """

    state: Mapping[str, Any]
    dialect: str | None = None
    resized: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def as_it_is(cls, model: nn.Module, state: Mapping[str, Any]) -> Fitted:
        """The state itself, for a model that must be the one that wrote it."""
        return cls(state)

    def __str__(self) -> str:
        names = "" if self.dialect is None else f"{self.dialect}'s names translated"
        shapes = ", ".join(f"{name} {shape}" for name, shape in list(self.resized.items())[:1])
        return "; ".join(filter(None, (names, f"{len(self.resized)} resized (first: {shapes})" if shapes else "")))


def fitted(model: nn.Module, state: Mapping[str, Any]) -> Fitted:
    """The state under the model's names, and for its window and image size."""
    own: Mapping[str, Any] = model.state_dict()
    state = _under_its_only_part(own, state)
    source, wanted = detect(state), detect(own)
    dialect = None
    if source is not None and wanted is not None:
        state = _without_computed(state)
        if compare(_without_computed(own), state).missing:
            state = _renamed(state, source, wanted)
        if source.dialect.name != wanted.dialect.name:
            dialect = source.dialect.name
    changed = resized(model, own, state)
    shapes = {name: f"{list(state[name].shape)} to {list(value.shape)}" for name, value in changed.items()}
    return Fitted(_copied(state, {**state, **changed}), dialect, shapes)


def _under_its_only_part(own: Mapping[str, Any], state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state with "network." before its names, if all that a model has lies there and the file has it from there."""
    prefix = next(iter(own), "").partition(".")[0] + "."
    if not all(name.startswith(prefix) for name in own) or any(str(name).startswith(prefix) for name in state):
        return state
    if not any(f"{prefix}{name}" in own for name in state):
        return state
    metadata = getattr(state, "_metadata", None)
    found = OrderedDict((f"{prefix}{name}", value) for name, value in state.items())
    if metadata is not None:
        found._metadata = {f"{prefix}{name}".rstrip("."): value for name, value in metadata.items()}  # type: ignore[attr-defined]
    return found


def _renamed(state: Mapping[str, Any], source: Spoken, wanted: Spoken) -> Mapping[str, Any]:
    """The state under the names that are wanted; what has no such name keeps its own, but for the prefix."""
    target = speaking(wanted.dialect.name, source.dialect.family.name)
    if target is None:
        return state
    canonical = to_canonical(state, source)
    found, homeless = from_canonical(canonical.state, target)
    rest = (*canonical.unknown, *(canonical.spelled.get(name, name) for name in homeless))
    moved = {
        wanted.prefix + name[len(source.prefix) :] if name.startswith(source.prefix) else name: state[name]
        for name in rest
        if name in state
    }
    return {**moved, **{wanted.prefix + name: value for name, value in found.items()}}


def _sizes(state: Mapping[str, Any], source: Spoken, own: Mapping[str, Any], wanted: Spoken) -> str:
    """Both sizes in words, if the file's model is of another size; else nothing."""
    pairs = [
        (spoken.dialect.family, to_canonical(one, spoken).state) for one, spoken in ((state, source), (own, wanted))
    ]
    theirs, ours = (family.size(canonical) for family, canonical in pairs)
    if pairs[0][0] is pairs[1][0] and all(theirs[what] == ours[what] for what in theirs.keys() & ours.keys()):
        return ""
    return "{}, expected {}: ".format(*(described(family, canonical) for family, canonical in pairs))


def _where_else(own: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """What to do about a file of which nothing matches, as far as its names tell; else nothing."""
    first = next(iter(own), "")
    prefix = next((name[: -len(first)] for name in map(str, state) if first and name.endswith(f".{first}")), None)
    if prefix is not None:
        return f"; prefix={prefix!r} takes what stands behind it"
    if detect(own) is not None and detect(state) is None:
        names = dialect_names()
        return f"; its names are none of {', '.join(names[:-1])} and {names[-1]}"
    return ""


def _without_computed(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return _copied(state, {name: value for name, value in state.items() if not is_computed(name)})


def _copied(state: Mapping[str, Any], items: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """The items, with the versions of the modules that wrote the state: torch upgrades old layouts by them."""
    copied = OrderedDict(items)
    if hasattr(state, "_metadata"):
        copied._metadata = state._metadata  # type: ignore[attr-defined]
    return copied


def _load(model: nn.Module, state: Mapping[str, Any], report: LoadReport) -> None:
    other_shape = {name for name in (*report.mismatched, *report.allowed) if name in state}
    model.load_state_dict(
        _copied(state, {name: value for name, value in state.items() if name not in other_shape}), strict=False
    )


def _refusal(model: nn.Module, report: LoadReport, sizes: str = "") -> str:
    return f"the weights belong to another model than {type(model).__name__}: {sizes}{report}"
