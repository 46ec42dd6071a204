"""What `visionattn::window_attention` is given, in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class WindowCase(NamedTuple):
    """The op's arguments, in their order; `window_attention_op` says what they are."""

    qkv: Tensor
    table: Tensor | None
    padding: Tensor | None
    scale: Tensor | None
    mask: Tensor | None
    window: Sequence[int]
    shift: Sequence[int]
    mask_padding: bool
    shift_before_padding: bool
