"""A network's forward as one graph (torch.export), for a fixed or for any image size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


class Maps(nn.Module):
    """The model with a tuple of tensors for an answer, whatever nest of lists and dicts its own is."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The tensors that the model answers image [B, C, H, W] with."""
        return tuple(_tensors(self.model(image)))


def export_program(model: nn.Module, image: Tensor, *, dynamic: bool = False) -> ExportedProgram:
    """The graph that `Maps(model)` computes in eval mode; mechanisms take no shortcut in it.

    Args:
        model: on the CPU; its mode is left as it was.
        image: an example [B, C, H, W].
        dynamic: height and width stay open. A comparison of theirs in the model's own code closes them again to what
            three times the example's size answers (a multiple of 32, say): check what comes out at other sizes.
    Raises:
        ValueError: the model cannot be captured; the message has torch's reason.
    """
    shapes = None
    if dynamic:
        shapes = ({2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
        # An extent of 1 in the example (the windows of a small map) is taken for 1 at every size. Nothing is computed.
        image = image.new_empty(*image.shape[:2], *(3 * extent for extent in image.shape[2:]))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            return torch.export.export(Maps(model), (image,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises whatever the model, or one of its own stages, raised
        raise ValueError(f"torch.export cannot capture this model: {reason(error)}") from error
    finally:
        for module, mode in modes:
            module.training = mode


def reason(error: BaseException) -> str:
    """What torch's exporters say, in one line: the first of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _tensors(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
        return
    items = answer.values() if isinstance(answer, Mapping) else answer
    if not isinstance(answer, Mapping | list | tuple):
        raise TypeError(f"the model answers with a {type(answer).__name__}, not with tensors")
    for item in items:
        yield from _tensors(item)
