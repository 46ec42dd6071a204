"""The best constant disparity, against trying them all."""

from __future__ import annotations

import pytest
import torch

from visionattn.registry import HOOKS
from visionattn.stereo.constant_baseline import best_constant
from visionattn.stereo.errors import error_sums
from visionattn.stereo.protocols import protocol


@pytest.mark.parametrize("name", ["visionattn", "psmnet", "kitti"])
def test_no_other_constant_is_better(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    truths = []
    for scale in (10, 40, 150):
        truth = scale * torch.rand(5, 7, generator=generator)
        truths.append((truth, torch.rand(5, 7, generator=generator) > 0.2))
    truths = [(torch.where(valid, truth, 0), valid) for truth, valid in truths]

    def error(constant: float) -> float:
        counted = protocol(name).counted
        rows = [error_sums(torch.full_like(t, constant), t, counted(t, v), v) for t, v in truths]
        return protocol(name).reduce(torch.stack(rows))["EPE"]

    best, found = best_constant(truths, protocol(name))
    assert found == error(best)
    assert found <= min(error(0.75 * step) for step in range(200)) + 2e-3


def test_it_is_a_median() -> None:
    truth = torch.tensor([[1.0, 2.0, 9.0]])
    best, error = best_constant([(truth, truth > 0)], protocol("visionattn"))
    assert best == pytest.approx(2, abs=2e-3)
    assert error == pytest.approx(8 / 3, abs=2e-3)


def test_pairs_are_checked() -> None:
    with pytest.raises(ValueError, match="pairs=0 must be 1 or more"):
        HOOKS.build({"type": "visionattn.ConstantBaselineHook", "pairs": 0})
