"""torch.compile for a model's parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from visionattn.registry import HOOKS


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles backbone, neck and heads each on its own when a training begins.

    mmengine's `compile=True` compiles the whole train_step, where data preparation, losses and logging break the graph.

    Args:
        backend: of torch.compile.
        dynamic: one program for every size; torch decides if None.
    """

    def __init__(self, backend: str = "inductor", dynamic: bool | None = None) -> None:
        self.backend = backend
        self.dynamic = dynamic

    def before_train(self, runner: Any) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        names = []
        for name, part in _parts(model):
            # Not part.compile(): mmseg's heads call their own forward, past __call__.
            part.forward = torch.compile(part.forward, backend=self.backend, dynamic=self.dynamic)
            names.append(name)
        runner.logger.info(f"compiling {', '.join(names)}: the first iterations are slow")


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model's direct parts that have parameters; the members of a list of heads each."""
    for name, part in model.named_children():
        members = part.named_children() if isinstance(part, nn.ModuleList) else [("", part)]
        for index, member in members:
            if any(True for _ in member.parameters()):
                yield f"{name}.{index}" if index else name, member
