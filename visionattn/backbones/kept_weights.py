"""Which options and weights another mechanism takes over from the attention that it replaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionattn.attention.base import QKVAttention, TokenMixer
from visionattn.attention.window import WindowAttention

_WINDOWED = ("window", "shift", "mask_padding", "shift_covered_axes", "shift_before_padding", "pretrained_window")
_ABSENT_IS_ZERO = ("qkv.bias", "proj.bias")


@dataclass(frozen=True)
class Replacement:
    """What became of an attention's weights, by their names in it.

    Attributes:
        before, after: classes of the attention and of the mechanism in its place.
        kept: parameters that the mechanism took over.
        fresh: its parameters that start anew (a bias that the attention did not have starts at zero).
        dropped: the attention's parameters that it has no use for, or has in another shape.
    """

    before: str
    after: str
    kept: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{what} {', '.join(names)}" for what, names in self._parts().items() if names]
        return f"{self.before} -> {self.after}: {'; '.join(parts)}"

    def _parts(self) -> dict[str, tuple[str, ...]]:
        return {"kept": self.kept, "fresh": self.fresh, "dropped": self.dropped}


def options_of(attn: nn.Module) -> dict[str, Any]:
    """Options that a mechanism in this one's place gets where its config names none: heads, widths, biases, dropouts.

    Args:
        attn: a mechanism of ours, or timm's attention with qkv, proj and num_heads.
    """
    if not hasattr(attn, "qkv"):
        return {}
    qkv: Any = attn.qkv
    if isinstance(attn, QKVAttention):
        widths = {"key_dim": attn.key_dim, "value_dim": attn.value_dim}
    else:
        widths = dict.fromkeys(("key_dim", "value_dim"), qkv.out_features // 3)
    options: dict[str, Any] = {name: width for name, width in widths.items() if width != qkv.in_features}
    options["num_heads"] = attn.num_heads
    options["qkv_bias"] = qkv.bias is not None or getattr(attn, "q_bias", None) is not None
    for name in ("attn_drop", "proj_drop"):
        drop = getattr(attn, name)
        options[name] = drop.p if isinstance(drop, nn.Dropout) else drop
    if isinstance(attn, WindowAttention):
        options |= {name: getattr(attn, name) for name in _WINDOWED if getattr(attn, name, None) is not None}
    return options


def fitted_to_window(options: Mapping[str, Any], cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The options, where the config names a window of its own: half of it is the shift where there was one, and Swin
    V2's coordinates go on being told in units of the window in which they were learned."""
    window = cfg.get("window")
    if "window" not in options or not isinstance(window, Sequence) or len(window) != len(options["window"]):
        return dict(options)  # whatever is wrong with it, the mechanism says
    if tuple(window) == tuple(options["window"]):
        return dict(options)
    shift = tuple(length // 2 if moved else 0 for length, moved in zip(window, options["shift"], strict=True))
    return {"pretrained_window": options["window"], **options, "shift": shift}


def keep_weights(old: nn.Module, new: TokenMixer) -> Replacement:
    """Gives `new` the parameters of `old` that it has by the same name and shape: the parameters themselves.

    Swin V2's separate biases of q and v become one bias of qkv where the mechanism has that.
    """
    have = dict(old.named_parameters())
    want = dict(new.named_parameters())
    joined = _joined_bias(old) if "qkv.bias" in want and "qkv.bias" not in have else None
    if joined is not None and joined.shape == want["qkv.bias"].shape:
        have["qkv.bias"] = nn.Parameter(joined, requires_grad=have["q_bias"].requires_grad)
        del have["q_bias"], have["v_bias"]
    kept = tuple(name for name, parameter in want.items() if name in have and have[name].shape == parameter.shape)
    for name in kept:
        owner, _, leaf = name.rpartition(".")
        new.get_submodule(owner).register_parameter(leaf, have[name])
    fresh = tuple(name for name in want if name not in kept)
    for name in fresh:
        if name in _ABSENT_IS_ZERO and name not in have:
            nn.init.zeros_(want[name])
    return Replacement(
        before=type(old).__name__,
        after=type(new).__name__,
        kept=kept,
        fresh=fresh,
        dropped=tuple(name for name in have if name not in kept),
    )


def _joined_bias(old: nn.Module) -> Tensor | None:
    q_bias, v_bias = getattr(old, "q_bias", None), getattr(old, "v_bias", None)
    if q_bias is None or v_bias is None:
        return None
    return torch.cat([q_bias, torch.zeros_like(q_bias), v_bias]).detach()
