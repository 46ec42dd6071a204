"""Cost volumes and disparity regression, against loops and the official functions' outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import ROOT
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.cost_volume import concatenation_volume, group_correlation_volume
from visionattn.ops.disparity_regression import soft_argmax, upsampled_soft_argmax

FOLDER = ROOT / "stereo"


def maps(width: int = 9, channels: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(2, channels, 3, width, dtype=torch.float64, generator=generator, requires_grad=True)
        for _ in range(2)
    )
    return left, right


def naive_concatenation(left: Tensor, right: Tensor, disparities: int) -> Tensor:
    b, c, h, w = left.shape
    rows = [
        [
            torch.cat([left[:, :, :, x], right[:, :, :, x - d]], 1) if x >= d else left.new_zeros(b, 2 * c, h)
            for x in range(w)
        ]
        for d in range(disparities)
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], 2)


def naive_correlation(left: Tensor, right: Tensor, disparities: int, groups: int) -> Tensor:
    b, c, h, w = left.shape
    volume = []
    for g in range(groups):
        part = slice(g * c // groups, (g + 1) * c // groups)
        for d in range(disparities):
            for x in range(w):
                volume.append(
                    (left[:, part, :, x] * right[:, part, :, x - d]).mean(1) if x >= d else left.new_zeros(b, h)
                )
    return torch.stack(volume, -1).view(b, h, groups, disparities, w).permute(0, 2, 3, 1, 4)


@pytest.mark.parametrize(("width", "disparities"), [(9, 5), (4, 6), (1, 1)])
def test_volumes_are_their_loops_with_their_gradients(width: int, disparities: int) -> None:
    left, right = maps(width)
    for volume, naive in (
        (concatenation_volume(left, right, disparities), naive_concatenation(left, right, disparities)),
        (group_correlation_volume(left, right, disparities, 2), naive_correlation(left, right, disparities, 2)),
    ):
        torch.testing.assert_close(volume, naive, rtol=0, atol=1e-14)
        w = torch.randn(volume.shape, dtype=torch.float64)
        found, wanted = (torch.autograd.grad((v * w).sum(), (left, right), retain_graph=True) for v in (volume, naive))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_soft_argmax_of_a_sharp_peak_is_its_disparity() -> None:
    logits = torch.zeros(1, 12, 2, 3)
    logits[:, 7] = 100.0
    assert soft_argmax(logits).tolist() == [[[7.0] * 3] * 2]
    assert soft_argmax(torch.zeros(1, 12, 2, 3)).unique().item() == 5.5
    assert soft_argmax(logits.bfloat16()).dtype == torch.float32


def test_upsampled_is_upsample_then_expectation() -> None:
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    for align_corners in (False, True):
        full = F.interpolate(logits[:, None], (16, 12, 20), mode="trilinear", align_corners=align_corners)[:, 0]
        wanted = (full.softmax(1) * torch.arange(16.0).view(16, 1, 1)).sum(1)
        found = upsampled_soft_argmax(logits, 16, 12, 20, align_corners=align_corners)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_golden_volumes_and_regression() -> None:
    checked = 0
    for name in ("submodules.npz", "gwc_submodules.npz"):
        if not (FOLDER / name).is_file():
            continue
        with np.load(FOLDER / name) as arrays:
            held = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        left, right = held["fea1"], held["fea2"]
        for key, wanted in held.items():
            if key.startswith("concat_volume_d"):
                found = concatenation_volume(left, right, wanted.shape[2])
            elif key.startswith("gwc_volume_d"):
                found = group_correlation_volume(left, right, wanted.shape[2], wanted.shape[1])
            elif key == "softargmin":
                found = soft_argmax(held["logits"]).unsqueeze(1)
            else:
                continue
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
            checked += 1
    if not checked:
        pytest.skip(f"no golden stereo volumes in {FOLDER}: set VISIONATTN_GOLDEN")


def test_bad_input_is_named() -> None:
    left, right = maps()
    with pytest.raises(ValueError, match=r"one shape \[B, C, H, W\], got \[2, 4, 3, 9\] and \[2, 4, 3, 8\]"):
        concatenation_volume(left, right[..., :8], 3)
    with pytest.raises(ValueError, match="groups=3 does not divide the 4 channels"):
        group_correlation_volume(left, right, 3, 3)
    with pytest.raises(ValueError, match="one disparity or more, got 0"):
        concatenation_volume(left, right, 0)


def test_autocast_does_not_round_the_disparity() -> None:
    logits = 3 * torch.randn(1, 192, 3, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = soft_argmax(logits)
    assert torch.equal(found, soft_argmax(logits))
