"""Window attention with relative position bias (Liu et al., Swin Transformer, ICCV 2021, section 3.2, equation 4).

Compared with: microsoft/Swin-Transformer@f82860bf (MIT) `WindowAttention` and `SwinTransformerBlock`, golden vectors
`swin1_window_attn_*` and `swin1_block_*`; timm 1.0.31 `SwinTransformerBlock`, golden vectors `swin1_timm_*`;
onedl-mmsegmentation 1.4.2 `ShiftWindowMSA`, golden vectors `swin1_mmseg_*`; torchvision 0.26 and later
`shifted_window_attention`.
Differs: padding, shift and partition are here and not in the block, so any H x W will do; padding takes no part in
attention (mask_padding=False: it does, as in all of the above); the two edges that a shift brings into one window are
kept apart exactly, where the references add -100 to the logit (a weight of 4e-44); tokens can be masked; a query that
sees no real key answers 0; windows may have one or three dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from numbers import Integral
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from visionattn.attention.base import Claims, QKVAttention, check_extents
from visionattn.attention.shortcut import ResidualMixer, plain_pair, takes_shortcuts, unobserved
from visionattn.ops.kernels.dispatch import asked_for, nothing_against, serves_windows
from visionattn.ops.kernels.window_attention import window_attention_op
from visionattn.ops.window import (
    WindowLayout,
    hidden_pairs,
    merge,
    partition,
    relative_position_index,
    window_attention,
    window_bias,
    window_layout,
)
from visionattn.ops.window_groups import WindowGroup, positions_at_once, window_groups
from visionattn.ops.window_map import Projections, group_biases, window_attention_map
from visionattn.registry import ATTENTION
from visionattn.typing import Grid, Tokens

Made = TypeVar("Made")


@ATTENTION.register_module()
class WindowAttention(QKVAttention, ResidualMixer):
    """Softmax attention inside windows; with a shift, Swin's second kind of block.

    Args:
        window: extent of a window, one entry per axis of the grid. A smaller grid is padded to one window.
        shift: where the windows start, one entry per axis, each from 0 to window - 1; Swin's is window // 2.
        relative_position_bias: a learned bias per head for each offset between query and key.
        mask_padding: False lets the padding to whole windows take part as tokens of zeros, as the Swin checkpoints of
            microsoft, timm, torchvision and mmseg were trained.
        shift_covered_axes: True shifts also along an axis that one window covers, as mmseg does.
        shift_before_padding: True rolls first and pads behind, as timm does; windows at the seam of a padded axis then
            mix both edges.
    Raises:
        TypeError: a window or shift that is one number.
        ValueError: a window below 1, a shift outside the window, or lengths that differ from each other or the grid's.
    """

    claims = Claims(
        paper="Liu et al., ICCV 2021, arXiv 2103.14030",
        cost="N",
        convex=True,
        softmax_limit={"window": (5, 7), "relative_position_bias": False},
    )

    relative_position_index: Tensor
    relative_position_bias_table: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        grid: Sequence[int] | None = None,
        *,
        window: Sequence[int] = (7, 7),
        shift: Sequence[int] = (0, 0),
        num_heads: int = 8,
        key_dim: int | None = None,
        value_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        relative_position_bias: bool = True,
        mask_padding: bool = True,
        shift_covered_axes: bool = False,
        shift_before_padding: bool = False,
    ) -> None:
        super().__init__(
            dim,
            grid,
            num_heads=num_heads,
            key_dim=key_dim,
            value_dim=value_dim,
            qkv_bias=qkv_bias,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
        )
        self.window = check_extents("window", window, self.grid)
        self.shift = _checked_shift(shift, self.window)
        self.grid_dims = (len(self.window),)
        self.mask_padding = mask_padding
        self.shift_covered_axes = shift_covered_axes
        self.shift_before_padding = shift_before_padding
        index = relative_position_index(self.window)
        self.register_buffer("relative_position_index", index, persistent=False)
        offsets = math.prod(2 * length - 1 for length in self.window)
        table = nn.Parameter(torch.empty(offsets, num_heads)) if relative_position_bias else None
        if table is not None:
            nn.init.trunc_normal_(table, std=0.02)
        self.register_parameter("relative_position_bias_table", table)
        self._kept_layout = _Kept[WindowLayout]()
        self._kept_groups = _Kept[list[WindowGroup]]()
        self._kept_bias = _Kept[tuple[Tensor | None, list[Tensor]]]()
        self._kept_table = _Kept[tuple[Tensor | None, list[Tensor]]]()
        self._kept_group_biases = _Kept[tuple[tuple[Tensor, list[Tensor]], list[Tensor]]]()

    def check_map(self, x: Tensor, mask: Tensor | None, name: str = "x") -> None:
        axes = len(self.window)
        if 1 <= x.dim() - 2 <= 3 and x.dim() - 2 != axes:
            raise ValueError(
                f"{type(self).__name__} expects {name} of shape [B, *grid, C] with {axes} axes in the grid, as in "
                f"window={self.window}, got {list(x.shape)}; give window and shift one entry per axis"
            )
        super().check_map(x, mask, name)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, kv_grid: Grid, mask: Tensor | None = None
    ) -> Tensor:
        layout = self._layout(q_grid, q.device)
        padding = self._padding()
        q, k, v = (partition(t, layout, row) for t, row in zip((q, k, v), padding, strict=True))
        dropout = self.attn_drop if self.training else 0.0
        if mask is None:
            return merge(window_attention(q, k, v, self._bias(layout, q.dtype), dropout), layout)
        hidden = hidden_pairs(layout, mask, mask_padding=self.mask_padding)
        assert hidden is not None
        out = window_attention(q, k, v, window_bias(self._relative_bias(q.dtype), hidden), dropout)
        return merge(out.masked_fill(hidden.all(dim=-1)[:, :, None, :, None], 0.0), layout)

    def add_to(self, residual: Tokens, x: Tokens, scale: Tensor | None = None, mask: Tensor | None = None) -> Tokens:
        """One walk over the map where there is no scale, `walked_projections` allows it and nothing observes self."""
        self.check_map(x, mask)
        if scale is None and unobserved(self) and type(residual) is type(x) and residual.dtype == x.dtype:
            projections = walked_projections(self, x, mask=mask)
            if projections is not None:
                return self._walk(x, projections, residual)
        mixed = self(x, mask=mask).to(residual.dtype)
        return residual + mixed if scale is None else torch.addcmul(residual, mixed, scale.to(residual.dtype))

    def train(self, mode: bool = True) -> WindowAttention:
        # Averaging hooks exchange weights through `.data` before they switch the mode; no version counter tells of it.
        self._kept_bias.clear()
        self._kept_group_biases.clear()
        self._kept_table.clear()
        super().train(mode)
        return self

    def _attend_map(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        projections = walked_projections(self, x, context, mask)
        return super()._attend_map(x, context, mask) if projections is None else self._walk(x, projections)

    def _attend_joined(self, qkv: Tensor, grid: Grid, mask: Tensor | None) -> Tensor:
        """One op, straight from the projected map, where its kernel serves."""
        if asked_for(qkv) and nothing_against("window_attention", self._beyond_kernel()):
            parts = torch.unflatten(torch.unflatten(qkv, 1, grid), -1, (3, self.num_heads, -1))
            if serves_windows(parts, mask, self.window):
                answer = window_attention_op(
                    parts,
                    self._while_the_bias_stands(self._kept_table, (qkv.device,), self._bias_table),
                    self._padded_keys_and_values(),
                    self._cosine_scale(),
                    mask,
                    self.window,
                    self._shift_on(grid),
                    self.mask_padding,
                    self.shift_before_padding,
                )[0]
                return answer.flatten(3).flatten(1, 2)
        return super()._attend_joined(qkv, grid, mask)

    def _beyond_kernel(self) -> str | None:
        """What about this module a kernel cannot follow."""
        if not self._is_published() or "attend" in vars(self):
            return "attend is not that of a published class"
        if len(self.window) != 2:
            return f"windows have {len(self.window)} axes, not two"
        if self.key_dim != self.value_dim:
            return f"keys are {self.key_dim} wide, values {self.value_dim}"
        if self.attn_drop and self.training:
            return "attention weights are dropped"
        return None

    def _is_published(self) -> bool:
        """No subclass, which may look at queries or weights."""
        return type(self) is WindowAttention

    def _padded_keys_and_values(self) -> Tensor | None:
        """[2, heads, d], as projected, where padding is seen; None if that is zeros."""
        bias = None if self.mask_padding else self._joined_bias()
        return None if bias is None else bias[self.key_dim :].view(2, self.num_heads, -1)

    def _joined_bias(self) -> Tensor | None:
        """The bias of q, k and v side by side."""
        return self.qkv.bias

    def _cosine_scale(self) -> Tensor | None:
        """[heads], of logits that are cosines; None where they are products."""
        return None

    def _walk(self, x: Tensor, projections: Projections, residual: Tensor | None = None) -> Tensor:
        layout, positions = self._layout(tuple(x.shape[1:-1]), x.device), positions_at_once()
        groups = self._kept_groups.get(
            (layout.grid, positions),
            lambda: window_groups(layout, mask_padding=self.mask_padding, positions=positions),
        )

        def make() -> tuple[Tensor, list[Tensor]]:
            relative = self._relative_bias(x.dtype)
            return relative, group_biases(relative, groups)

        biases: list[Tensor] | None
        if torch.is_grad_enabled():
            relative, biases = self._relative_bias(x.dtype), None
        else:
            key = (layout.grid, x.device, x.dtype, positions)
            relative, biases = self._while_the_bias_stands(self._kept_group_biases, key, make)
        added = None if residual is None else residual.flatten(1, -2)
        return window_attention_map(x.flatten(1, -2), relative, projections, groups, added, biases).reshape(x.shape)

    def _padding(self) -> tuple[Tensor | None, ...]:
        """What q, k and v are where there is padding: the projection of a token of zeros."""
        bias = None if self.mask_padding else self._joined_bias()
        if bias is None:
            return None, None, None
        parts = torch.split(bias, [self.key_dim, self.key_dim, self.value_dim])
        return tuple(part.view(self.num_heads, -1) for part in parts)

    def _layout(self, grid: Grid, device: torch.device) -> WindowLayout:
        def make() -> WindowLayout:
            return window_layout(
                grid,
                self.window,
                self._shift_on(grid),
                self.num_heads,
                shift_before_padding=self.shift_before_padding,
                device=device,
            )

        return self._kept_layout.get((grid, device), make)

    def _shift_on(self, grid: Grid) -> Grid:
        if self.shift_covered_axes:
            return self.shift
        return tuple(_shift_of(*axis) for axis in zip(self.shift, grid, self.window, strict=True))

    def _bias(self, layout: WindowLayout, dtype: torch.dtype) -> Tensor | None:
        """What the logits of a map without a mask get."""
        sources = self._bias_sources()

        def make() -> Tensor | None:
            hidden = hidden_pairs(layout, mask_padding=self.mask_padding)
            if not sources and hidden is None:
                return None
            return window_bias(self._relative_bias(dtype), hidden)

        return self._while_the_bias_stands(self._kept_bias, (layout.grid, layout.tokens.device, dtype), make)

    def _while_the_bias_stands(
        self, kept: _Kept[tuple[Made, list[Tensor]]], key: tuple[Hashable, ...], make: Callable[[], Made]
    ) -> Made:
        """make(), or what it made last for this key while no gradient is wanted and the bias's sources stand still."""
        sources = self._bias_sources()
        versions = tuple(_version(source) for source in sources)
        if None in versions or (torch.is_grad_enabled() and any(source.requires_grad for source in sources)):
            return make()
        # The sources' aliases are kept as well: while they live, no other parameter can have their address.
        return kept.get((*key, versions), lambda: (make(), [source.detach() for source in sources]))[0]

    def _bias_sources(self) -> list[nn.Parameter]:
        """The parameters that the bias is made of."""
        return [] if self.relative_position_bias_table is None else [self.relative_position_bias_table]

    def _relative_bias(self, dtype: torch.dtype) -> Tensor:
        """[heads, T, T]."""
        index, table = self.relative_position_index, self._bias_table()
        if table is None:
            return torch.zeros(self.num_heads, *index.shape, dtype=dtype, device=index.device)
        return table.to(dtype).index_select(0, index.flatten()).t().reshape(-1, *index.shape)

    def _bias_table(self) -> Tensor | None:
        """[offsets, heads], in the order of `relative_position_index`."""
        return self.relative_position_bias_table


def walked_projections(
    mixer: WindowAttention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
) -> Projections | None:
    """The layers of a `WindowAttention` that walks over x in groups of windows; None where it may not.

    All of these must hold (`ops/window_map.py` is the form):
    - the environment does not say VISIONATTN_KERNELS=off;
    - x is on the CPU, float32 or float64, and without a mask;
    - eager mode: no autocast, torch.compile, export, tracing, torch.func transform or forward-mode derivative;
    - the mixer is exactly WindowAttention (a subclass may look at queries or weights), with values as wide as keys;
    - qkv and proj are exactly nn.Linear, without hooks, parametrisations or wrappers, and no dropout is at work.
    """
    if not (
        type(mixer) is WindowAttention
        and context is None
        and mask is None
        and mixer.key_dim == mixer.value_dim
        and (mixer.attn_drop == 0 or not mixer.training)
        and "attend" not in vars(mixer)
        and takes_shortcuts(x)
    ):
        return None
    weights = plain_pair(mixer.qkv, mixer.proj, mixer.proj_drop, x.dtype)
    return None if weights is None else Projections(*weights)


def _shift_of(offset: int, extent: int, length: int) -> int:
    """`offset` where the axis is longer than a window, else 0; not by a comparison, which would pin an export to it."""
    return torch.sym_min(offset, offset * torch.sym_max(extent - length, 0))  # type: ignore[return-value]  # a SymInt


class _Kept(Generic[Made]):
    """The last value that was made, for as long as its key comes again. Copies and pickles start empty."""

    def __init__(self) -> None:
        self._last: tuple[Hashable, Made] | None = None

    def clear(self) -> None:
        self._last = None

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The kept value of this key, or a new one."""
        if torch.compiler.is_compiling() or type(torch.empty(0)) is not Tensor or _captures_a_graph():
            return make()  # a tracer's tensors must not outlive the trace
        last = self._last
        if last is None or last[0] != key:
            # Normal tensors even in inference mode: training may be next.
            with torch.inference_mode(False), torch.no_grad():
                last = (key, make())
            self._last = last
        return last[1]

    def __reduce__(self) -> tuple[type[_Kept[Made]], tuple[()]]:
        return type(self), ()


def _captures_a_graph() -> bool:
    """What is made now is filled whenever the CUDA graph is replayed; what was made before may be gone by then."""
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return initialized and torch.cuda.is_current_stream_capturing()


def _version(parameter: Tensor) -> tuple[int, int] | None:
    """What changes when the parameter's values do; None where nothing tells: under a tracer, or for a stand-in."""
    if torch.compiler.is_compiling() or type(parameter) is not nn.Parameter or parameter.is_inference():
        return None
    return parameter.data_ptr(), parameter._version


def _checked_shift(shift: Sequence[int], window: Grid) -> Grid:
    """As a tuple.

    Raises:
        TypeError: it is one number.
        ValueError: it does not lie in the window.
    """
    if not isinstance(shift, Sequence):
        raise TypeError(f"shift={shift!r} must hold one integer per axis of the grid: ({shift}, {shift})")
    checked = tuple(shift)
    if len(checked) != len(window):
        raise ValueError(
            f"shift={checked} and window={window} differ in length; give both one entry per axis of the grid"
        )
    if any(not isinstance(s, Integral) or not 0 <= s < n for s, n in zip(checked, window, strict=True)):
        half = tuple(n // 2 for n in window)
        raise ValueError(
            f"shift={checked} must be from 0 to window - 1 on every axis of window={window}; Swin's is {half}"
        )
    return checked
