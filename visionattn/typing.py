"""The shape vocabulary of the signatures.

B batch, N query tokens, M context tokens, C channels, d channels per head, H W grid, D depth or disparity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

Grid: TypeAlias = tuple[int, ...]
"""Extent of a token grid: (N,), (H, W) or (D, H, W)."""

Feature: TypeAlias = Tensor
"""A map as backbones hand it out: [B, C, H, W] or [B, C, D, H, W]."""

Tokens: TypeAlias = Tensor
"""A map as mechanisms take it: [B, *grid, C]."""

AttentionConfig: TypeAlias = str | Mapping[str, Any]
"""A mechanism's name, or dict(type=name, **its keyword-only options)."""
