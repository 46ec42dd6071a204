"""Losses over a network's disparities, against PyTorch's on the pixels that count."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.stereo.losses import SequenceL1Loss, SequenceSmoothL1Loss, WeightedSmoothL1Loss

PSMNET = (0.5, 0.7, 1.0)


def arrays(outputs: int = 3):
    generator = torch.Generator().manual_seed(0)
    truth = 20 * torch.rand(2, 7, 11, generator=generator)
    disparities = [truth + 3 * torch.randn(2, 7, 11, generator=generator) for _ in range(outputs)]
    valid = torch.rand(2, 7, 11, generator=generator) > 0.3
    return [d.requires_grad_() for d in disparities], truth, valid


def test_weighted_smooth_l1_is_psmnets() -> None:
    disparities, truth, valid = arrays()
    counted = valid & (truth < 16)
    expected = sum(w * F.smooth_l1_loss(d[counted], truth[counted]) for w, d in zip(PSMNET, disparities, strict=True))
    found = WeightedSmoothL1Loss(PSMNET, max_disparity=16)(disparities, truth, valid)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, disparities), torch.autograd.grad(expected, disparities), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_sequence_losses_are_the_published_sums() -> None:
    disparities, truth, valid = arrays(outputs=4)
    means = [(d - truth).abs()[valid].mean() for d in disparities]
    gamma = 0.9 ** (15 / 3)
    expected = gamma**3 * means[0] + gamma**2 * means[1] + gamma * means[2] + means[3]
    torch.testing.assert_close(SequenceL1Loss(0.9)(disparities, truth, valid), expected)
    torch.testing.assert_close(SequenceL1Loss(0.9)(disparities[-1:], truth, valid), means[3])
    smooth = [F.smooth_l1_loss(d[valid], truth[valid]) for d in disparities]
    expected = 0.9**3 * smooth[0] + 0.9**2 * smooth[1] + 0.9 * smooth[2] + smooth[3]
    torch.testing.assert_close(SequenceSmoothL1Loss(0.9)(disparities, truth, valid), expected)


@pytest.mark.parametrize("loss", [WeightedSmoothL1Loss(PSMNET, 16), SequenceL1Loss(), SequenceSmoothL1Loss()])
def test_nothing_to_learn_from_costs_nothing(loss) -> None:
    """Not NaN, whatever the truth holds where it is unknown, and a gradient of zeros for every output."""
    disparities, truth, _ = arrays()
    truth = truth.clone()
    truth[0, 0], truth[0, 1] = math.nan, math.inf
    found = loss(disparities, truth, torch.zeros_like(truth, dtype=torch.bool))
    assert found.item() == 0
    for gradient in torch.autograd.grad(found, disparities):
        assert gradient.abs().sum().item() == 0


def test_nan_where_the_truth_is_unknown_reaches_no_gradient() -> None:
    disparities, truth, valid = arrays()
    hurt = torch.where(valid, truth, math.nan)
    loss = WeightedSmoothL1Loss(PSMNET)
    expected, found = loss(disparities, truth, valid), loss(disparities, hurt, valid)
    assert expected == found
    for gradient in torch.autograd.grad(found, disparities):
        assert gradient.isfinite().all()


def test_half_precision_is_summed_in_float32() -> None:
    disparities, truth, valid = arrays()
    found = WeightedSmoothL1Loss(PSMNET)([d.detach().to(torch.bfloat16) for d in disparities], truth, valid)
    assert found.dtype == torch.float32


def test_limit_is_exclusive_and_may_be_absent() -> None:
    truth = torch.tensor([[[1.0, 16.0, 300.0]]])
    disparities, valid = [truth + 2], torch.ones_like(truth, dtype=torch.bool)
    disparities[0][0, 0, 1:] += 10
    assert WeightedSmoothL1Loss(max_disparity=16)(disparities, truth, valid).item() == 1.5
    assert WeightedSmoothL1Loss()(disparities, truth, valid).item() == pytest.approx((1.5 + 11.5 + 11.5) / 3)


def test_bad_input_is_named() -> None:
    disparities, truth, valid = arrays(outputs=2)
    with pytest.raises(ValueError, match=r"gives 2 disparities, the loss has 3 weights \(0.5, 0.7, 1.0\)"):
        WeightedSmoothL1Loss(PSMNET)(disparities, truth, valid)
    with pytest.raises(ValueError, match=r"differ in shape: \[2, 7, 11\], \[2, 6, 11\], \[2, 7, 11\]"):
        SequenceL1Loss()(disparities, truth[:, 1:], valid)
    with pytest.raises(ValueError, match="gave no disparity"):
        SequenceL1Loss()([], truth, valid)
    with pytest.raises(ValueError, match="gamma=0 must be above 0"):
        SequenceL1Loss(0)
    with pytest.raises(ValueError, match="max_disparity=-1 must be positive"):
        SequenceL1Loss(max_disparity=-1)


def test_losses_are_built_by_name() -> None:
    assert MODELS.build({"type": "visionattn.SequenceL1Loss", "gamma": 0.8}).gamma == 0.8
