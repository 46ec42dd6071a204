"""Mechanisms for one test: in the registry while it runs; and runs whose time and memory the test decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from visionattn.analysis import interleaved
from visionattn.analysis.bench.run import Instruments
from visionattn.attention.base import Claims, TokenMixer
from visionattn.attention.build import list_attention
from visionattn.registry import ATTENTION


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[TokenMixer]], str]:
    """Puts a class into the registry and returns its name there."""
    list_attention()
    monkeypatch.setattr(ATTENTION, "_module_dict", dict(ATTENTION.module_dict))

    def put(mixer: type[TokenMixer]) -> str:
        ATTENTION.module_dict[mixer.__name__] = mixer
        return mixer.__name__

    return put


@dataclass
class Laboratory:
    """A clock and a memory that mechanisms move as they say: `ms` and `megabytes` of the tokens, by name."""

    now_ms: float = 0.0
    held: int = 0
    ms: dict[str, Callable[[int], float]] = field(default_factory=dict)
    megabytes: dict[str, Callable[[int], float]] = field(default_factory=dict)

    def ran(self, name: str, x: Tensor) -> None:
        if x.device.type == "meta":
            return  # what is counted without running takes no time
        tokens = x.shape[1] * x.shape[2]
        self.now_ms += self.ms.get(name, lambda tokens: 1.0)(tokens)
        self.held = round(1e6 * self.megabytes.get(name, lambda tokens: 1.0)(tokens))

    def instruments(self, device: torch.device) -> Instruments:
        def meter(run: Callable[[], object], times: int) -> float:
            before = self.now_ms
            for _ in range(times):
                started = self.now_ms
                run()
                self.now_ms += 0.1 if self.now_ms == started else 0.0  # also what does not move it takes its time
            return (self.now_ms - before) / times

        def peak(run: Callable[[], object]) -> int:
            run()
            return self.held

        return Instruments(meter, peak, lambda: self.now_ms / 1e3)

    def mixer(self, name: str, growth: str) -> type[TokenMixer]:
        """A linear layer for each token that says it takes what the laboratory says."""
        laboratory = self

        class Mixer(TokenMixer):
            claims = Claims(paper="-", cost=growth)

            def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
                super().__init__(dim, grid)
                self.proj = nn.Linear(dim, dim)

            def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
                if x.dim() == 4:
                    laboratory.ran(name, x)
                return self.proj(x)

        Mixer.__name__ = name
        return Mixer


@pytest.fixture
def laboratory(monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    """Without bursts: a clock that the test moves has no noise."""
    monkeypatch.setattr(interleaved, "BURST_MS", 0.0)
    return Laboratory()
