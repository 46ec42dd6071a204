"""What a model's modules hand out, found by running it once, without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def default_input(model: nn.Module) -> Tensor:
    """Zeros [1, C, H, W] that the model takes: its timm input size, or 224 x 224, on its device and in its dtype.

    C is what the first convolution takes, since timm's `in_chans` leaves the recorded input size alone.
    """
    recorded = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = (isinstance(recorded, Mapping) and recorded.get("input_size")) or (3, 224, 224)
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    channels = next((conv.in_channels for conv in convolutions), size[0])
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(1, channels, *size[1:], device=like.device, dtype=like.dtype)


def other_sizes(x: Tensor) -> list[Tensor]:
    """Zeros of other extents than x [B, C, *grid]: a small multiple of 32 that is cheap to run, then the double."""
    small = [32 * max(1, n // 64) for n in x.shape[2:]]
    small = [64 if n == old else n for n, old in zip(small, x.shape[2:], strict=True)]
    return [x.new_zeros(*x.shape[:2], *extent) for extent in (small, [2 * n for n in x.shape[2:]])]


def outputs_of(model: nn.Module, watched: Sequence[nn.Module], inputs: Sequence[Tensor]) -> dict[nn.Module, list[Any]]:
    """What each watched module hands out in one forward, call by call; one that is never called has an empty list."""
    outputs: dict[nn.Module, list[Any]] = {module: [] for module in watched}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        outputs[module].append(output)

    handles = [module.register_forward_hook(record) for module in outputs]
    try:
        with _untouched(model), torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def example_outputs_of(
    model: nn.Module, watched: Sequence[nn.Module], example_input: Tensor | tuple[Tensor, ...] | None
) -> tuple[tuple[Tensor, ...], dict[nn.Module, list[Any]]]:
    """The inputs of one forward, and `outputs_of` it.

    Args:
        example_input: what the forward takes; `default_input` if None.
    Raises:
        ValueError: the model does not run on it.
    """
    example = default_input(model) if example_input is None else example_input
    inputs = example if isinstance(example, tuple) else (example,)
    try:
        return inputs, outputs_of(model, watched, inputs)
    except Exception as error:
        shapes = " and ".join(str(list(x.shape)) for x in inputs)
        given = example_input is not None
        way_out = "example_input must be what its forward takes" if given else "pass an example_input that it takes"
        raise ValueError(f"{type(model).__name__} does not run on {shapes}: {error}; {way_out}") from error


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode; afterwards every module's own mode, every buffer and the random state are back.

    Modes are set module by module, because `train` and `eval` of a host may do more (mmseg's freeze stages).
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = [(b, b.clone()) for own in buffers for b in own.values() if b is not None]
    gpus = {t.device.index for t in (*model.parameters(), *model.buffers()) if t.is_cuda}
    with torch.random.fork_rng(list(gpus)):
        for module in modules:
            module.training = False
        try:
            yield
        finally:
            for module, mode, own in zip(modules, modes, buffers, strict=True):
                module.training = mode
                module._buffers.clear()
                module._buffers.update(own)
            with torch.no_grad():
                for buffer, old in values:
                    if not buffer.is_meta and not torch.equal(buffer, old):
                        buffer.copy_(old)
