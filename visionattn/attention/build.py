"""Mechanisms by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, cast

from visionattn.attention.base import TokenMixer
from visionattn.registry import ATTENTION, SCOPE
from visionattn.typing import AttentionConfig

_HOST_GIVES = ("self", "dim", "grid")


def list_attention() -> list[str]:
    """Names of the registered mechanisms, in alphabetical order."""
    ATTENTION.import_all()
    return sorted(ATTENTION.module_dict)


def attention_class(name: str | type[TokenMixer]) -> type[TokenMixer]:
    """The mechanism's class, by registry name (with or without the scope) or given as a class.

    Raises:
        KeyError: no mechanism of this name; the message has the nearest ones.
    """
    if isinstance(name, type) and issubclass(name, TokenMixer):
        return name
    known = list_attention()
    bare = str(name).removeprefix(f"{SCOPE}.")
    if bare not in known:
        by_lower_case = {key.lower(): key for key in known}
        close = [by_lower_case[key] for key in get_close_matches(bare.lower(), by_lower_case, n=3, cutoff=0.4)]
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise KeyError(f"no attention mechanism is called {name!r}; {hint}known: {', '.join(known)}")
    return cast("type[TokenMixer]", ATTENTION.get(bare))


def build_attention(cfg: AttentionConfig, dim: int, grid: Sequence[int] | None = None) -> TokenMixer:
    """The mechanism that `cfg` describes, for maps of `dim` channels.

    Args:
        cfg: a name, or dict(type=name, **options). A `grid` among the options serves where the host gives none.
        dim: channels of the map.
        grid: extent at which position-bound parameters are learned.
    Raises:
        KeyError: unknown or missing type.
        TypeError: an option that the mechanism does not have, or of another kind than its signature says.
        ValueError: an option's value.
    """
    options: dict[str, Any] = {"type": cfg} if isinstance(cfg, str | type) else dict(cfg)
    if not isinstance(cfg, str | type | Mapping) or "type" not in options:
        raise KeyError(f'an attention config is a name or dict(type="EfficientAttention", ...), got {cfg!r}')
    mixer = attention_class(options.pop("type"))
    if "dim" in options:
        raise TypeError(f"the host gives dim={dim} to {mixer.__name__}; remove dim={options['dim']!r} from the config")
    config_grid = options.pop("grid", None)
    allowed = [name for name in inspect.signature(mixer.__init__).parameters if name not in _HOST_GIVES]
    for name in options:
        if name not in allowed:
            close = get_close_matches(name, allowed, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise TypeError(f"{mixer.__name__} has no option {name!r}; {hint}it has {', '.join(allowed)}")
    return mixer(dim, config_grid if grid is None else grid, **options)
