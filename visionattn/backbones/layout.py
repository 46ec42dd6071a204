"""Where the channels of a module's output are: [B, C, *grid] or [B, *grid, C]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Channels of a feature map, and whether they are its last dimension."""

    channels: int
    channels_last: bool


def map_layout(
    outputs: Sequence[Any],
    resized: Sequence[Any],
    inputs: Sequence[Tensor],
    *,
    output_format: str | None = None,
    channels_last: bool | None = None,
) -> Layout:
    """The layout of the maps that a module returns.

    Args:
        outputs: of the module, one for each call in a forward on `inputs`.
        resized: the same for an input of another size; empty if the model takes no other.
        inputs: [B, C, *extent] each.
        output_format: "NCHW" or "NHWC" as the model calls it, for maps that do not tell.
        channels_last: known to the caller.
    Raises:
        ValueError: the module returns no map, or maps of different channels.
    """
    x, batch, input_dims = outputs[0], len(inputs[0]), inputs[0].dim()
    if not isinstance(x, Tensor):
        raise ValueError(f"returns a {type(x).__name__}, not one feature map")
    other = resized[0] if resized and isinstance(resized[0], Tensor) and resized[0].dim() == x.dim() else None
    # A model of two images may stack them in the batch; windows of an image depend on its size.
    same_batch = len(x) in (batch, batch * len(inputs)) and (other is None or len(other) == len(x))
    if not (x.is_floating_point() and max(3, input_dims) <= x.dim() <= 5 and same_batch):
        what = "tokens" if x.dim() == 3 < input_dims else "no feature map:"
        raise ValueError(f"returns {what} {list(x.shape)} for an input {list(inputs[0].shape)}")
    if channels_last is None:
        channels_last = _channels_last(x.shape, None if other is None else other.shape, output_format)
    axis = -1 if channels_last else 1
    shapes = sorted({tuple(output.shape) for output in outputs})
    if len({shape[axis] for shape in shapes}) > 1:
        raise ValueError(f"returns maps of different channels in one forward: {', '.join(map(str, shapes))}")
    return Layout(x.shape[axis], channels_last)


def _channels_last(shape: Sequence[int], other: Sequence[int] | None, output_format: str | None) -> bool:
    if other is not None:
        first_stays, last_stays = shape[1] == other[1], shape[-1] == other[-1]
        if not (first_stays or last_stays):
            raise ValueError(
                f"returns {list(shape)} and, for another input, {list(other)}: neither the first nor the last "
                "dimension holds channels"
            )
        if first_stays != last_stays:
            return last_stays
    # At one size, a square input betrays the channels as the extent that is unlike the others.
    if len(set(shape[2:])) == 1 and shape[1] != shape[2]:
        return False
    if len(set(shape[1:-1])) == 1 and shape[-1] != shape[1]:
        return True
    return output_format == "NHWC"
