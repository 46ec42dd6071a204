"""The parts of a model are compiled each on its own, its weights' names and its results stay."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from visionattn.engine.compile import CompileHook


class Head(nn.Module):
    """As mmseg's: the loss calls the head's own forward, past __call__."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)

    def loss(self, x: Tensor) -> Tensor:
        return self.forward(x).sum()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.data_preprocessor = nn.Identity()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.decode_head = Head()
        self.auxiliary_head = nn.ModuleList([Head(), Head()])

    def losses(self, x: Tensor) -> list[Tensor]:
        x = self.backbone(self.data_preprocessor(x))
        return [head.loss(x) for head in (self.decode_head, *self.auxiliary_head)]


def test_each_part_runs_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(graph.code)
        return graph.forward

    torch.manual_seed(0)
    model = Model()
    x = torch.randn(5, 3)
    expected, names = model.losses(x), list(model.state_dict())
    said: list[str] = []
    runner = SimpleNamespace(model=model, logger=SimpleNamespace(info=said.append))
    CompileHook(backend=backend).before_train(runner)  # type: ignore[arg-type]
    assert said == [
        "compiling backbone, decode_head, auxiliary_head.0, auxiliary_head.1: the first iterations are slow"
    ]
    losses = model.losses(x)
    assert len(compiled) >= 2
    for one, other in zip(losses, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert list(model.state_dict()) == names
    sum(losses).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in model.parameters())
