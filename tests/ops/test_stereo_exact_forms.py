"""The volume networks' exact forms against the plain operations: values and every gradient, in float64 and float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops import group_correlation, score_convolution, tiled_soft_argmax
from visionattn.ops.concatenation_convolution import concatenation_convolution
from visionattn.ops.cost_volume import concatenation_volume, group_correlation_volume
from visionattn.ops.disparity_regression import upsampled_soft_argmax
from visionattn.ops.doubling_convolution import doubling_convolution
from visionattn.ops.group_correlation import walked_group_correlation


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns
    yield
    torch.use_deterministic_algorithms(False)


def made(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def assert_same(exact: Callable[..., Tensor], plain: Callable[..., Tensor], *leaves: Tensor) -> None:
    """Output and gradients of float64 to 1e-12; the error of float32 at most twice the plain form's, and rounding."""
    results = {}
    for name, run in (("exact", exact), ("plain", plain)):
        for dtype in (torch.float64, torch.float32):
            cast = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
            out = run(*cast)
            grad = made(*out.shape, seed=9).detach().to(dtype)
            assert out.dtype == dtype
            results[name, dtype] = [out.detach(), *torch.autograd.grad(out, cast, grad)]
    for index, truth in enumerate(results["plain", torch.float64]):
        torch.testing.assert_close(results["exact", torch.float64][index], truth, rtol=1e-12, atol=1e-12)
        single, usual = ((results[name, torch.float32][index] - truth).abs().max() for name in ("exact", "plain"))
        assert single <= 2 * usual + 4e-7 * truth.abs().max()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "size",
    # batch, channels, outputs, height, width, disparities: fewer and more disparities than columns, single rows
    [(2, 3, 4, 3, 9, 5), (1, 2, 3, 2, 4, 9), (1, 2, 2, 3, 3, 6), (1, 2, 2, 3, 12, 3), (1, 1, 1, 1, 1, 3)],
    ids=str,
)
def test_the_convolution_of_a_volume_makes_none(size: tuple[int, ...], channels_last: bool) -> None:
    batch, channels, outputs, height, width, disparities = size
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def exact(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
        out = concatenation_convolution(
            left.contiguous(memory_format=layout), right.contiguous(memory_format=layout), weight, disparities
        )
        assert out.is_contiguous(memory_format=torch.channels_last_3d)
        return out

    def plain(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
        return F.conv3d(concatenation_volume(left, right, disparities), weight, padding=1)

    maps = made(batch, channels, height, width), made(batch, channels, height, width, seed=1)
    assert_same(exact, plain, *maps, made(outputs, 2 * channels, 3, 3, 3, seed=2))


@pytest.mark.parametrize("chunk_bytes", [2**20, 1])
@pytest.mark.parametrize("size", [(2, 6, 3, 3, 9, 5), (1, 4, 2, 2, 4, 9), (1, 1, 1, 1, 1, 1)], ids=str)
def test_group_correlation_in_one_walk(
    size: tuple[int, ...], chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_correlation, "_CHUNK_BYTES", chunk_bytes)
    batch, channels, groups, height, width, disparities = size
    assert_same(
        lambda left, right: walked_group_correlation(left, right, disparities, groups),
        lambda left, right: group_correlation_volume(left, right, disparities, groups),
        made(batch, channels, height, width),
        made(batch, channels, height, width, seed=1),
    )


@pytest.mark.parametrize("tile_bytes", [2**20, 3000, 1])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("coarse", "full"),
    [((2, 4, 3, 5), (16, 12, 20)), ((1, 3, 2, 2), (7, 5, 9)), ((1, 1, 1, 1), (4, 4, 4)), ((1, 6, 5, 4), (3, 5, 2))],
    ids=str,
)
def test_disparities_in_tiles(
    coarse: tuple[int, ...],
    full: tuple[int, int, int],
    align_corners: bool,
    tile_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiled_soft_argmax, "_TILE_BYTES", tile_bytes)
    assert_same(
        lambda logits: tiled_soft_argmax.tiled_soft_argmax(4 * logits, *full, align_corners=align_corners),
        lambda logits: upsampled_soft_argmax(4 * logits, *full, align_corners=align_corners),
        made(*coarse),
    )


@pytest.mark.parametrize("size", [1e3, -1e5])
def test_large_costs_overflow_nowhere(size: float) -> None:
    logits = (size * made(1, 4, 3, 5).detach()).float().requires_grad_()
    found = tiled_soft_argmax.tiled_soft_argmax(logits, 16, 12, 20)
    wanted = upsampled_soft_argmax(logits.double(), 16, 12, 20)
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=size * 1e-7 * 16 if size > 0 else 0.2)
    (grad,) = torch.autograd.grad(found.sum(), logits)
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_exponential_is_subnormal(dtype: torch.dtype) -> None:
    costs = torch.linspace(-1000, 0, 5001).to(dtype)[:, None]
    found = tiled_soft_argmax._exponentials(costs.clone(), torch.zeros(1, dtype=dtype))
    assert found.min() > 1e3 * torch.finfo(dtype).tiny
    torch.testing.assert_close(found, costs.exp(), rtol=1e-6, atol=1e-26)


def test_half_precision_costs_are_answered_in_float32() -> None:
    logits = made(1, 4, 3, 5).detach().bfloat16()
    found = tiled_soft_argmax.tiled_soft_argmax(logits, 16, 12, 20)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, upsampled_soft_argmax(logits.float(), 16, 12, 20), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 2, 3, 4), (1, 1, 1, 1, 1), (1, 2, 1, 2, 5)], ids=str)
def test_a_transposed_convolution_is_a_gradient(size: tuple[int, ...], channels_last: bool) -> None:
    def exact(x: Tensor, weight: Tensor) -> Tensor:
        out = doubling_convolution(x.contiguous(memory_format=layout), weight)
        assert out.is_contiguous(memory_format=torch.channels_last_3d)
        return out

    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    plain = lambda x, weight: F.conv_transpose3d(x, weight, stride=2, padding=1, output_padding=1)  # noqa: E731
    assert_same(exact, plain, made(*size), made(size[1], 5, 3, 3, 3, seed=1))


@pytest.mark.parametrize("chunk_bytes", [2**22, 2000, 1])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4, 5, 6), (1, 2, 1, 1, 1), (1, 1, 2, 3, 1), (1, 2, 1, 2, 5)], ids=str)
def test_a_convolution_to_one_channel_is_a_product(
    size: tuple[int, ...], channels_last: bool, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_convolution, "_CHUNK_BYTES", chunk_bytes)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    assert_same(
        lambda x, weight: score_convolution.score_convolution(x.contiguous(memory_format=layout), weight),
        lambda x, weight: F.conv3d(x, weight, padding=1),
        made(*size),
        made(1, size[1], 3, 3, 3, seed=1),
    )


def test_gradients_are_those_of_finite_differences() -> None:
    maps, weight = (made(1, 2, 2, 4), made(1, 2, 2, 4, seed=1)), made(2, 4, 3, 3, 3, seed=2)
    assert torch.autograd.gradcheck(lambda *t: concatenation_convolution(*t, 4), (*maps, weight))
    assert torch.autograd.gradcheck(lambda *t: walked_group_correlation(*t, 3, 2), maps)
    assert torch.autograd.gradcheck(lambda t: tiled_soft_argmax.tiled_soft_argmax(t, 6, 4, 5), made(1, 3, 2, 3))


def test_what_is_not_asked_for_gets_no_gradient() -> None:
    x, weight = made(1, 2, 1, 2, 2), made(2, 3, 3, 3, 3, seed=1)
    (grad,) = torch.autograd.grad(doubling_convolution(x, weight.detach()).sum(), x)
    assert grad.shape == x.shape
    (grad,) = torch.autograd.grad(doubling_convolution(x.detach(), weight).sum(), weight)
    assert grad.shape == weight.shape


def test_bad_input_is_named() -> None:
    left = made(1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"3 disparities or more and a weight \[O, 4, 3, 3, 3\], got 2 and"):
        concatenation_convolution(left, left, made(1, 4, 3, 3, 3), 2)
    with pytest.raises(ValueError, match=r"weight \[O, 4, 3, 3, 3\], got 5 and \[1, 4, 1, 3, 3\]"):
        concatenation_convolution(left, left, made(1, 4, 1, 3, 3), 5)
    with pytest.raises(ValueError, match=r"one shape \[B, C, H, W\], got"):
        concatenation_convolution(left, left[..., 1:], made(1, 4, 3, 3, 3), 5)
    with pytest.raises(ValueError, match="groups=3 does not divide the 2 channels"):
        walked_group_correlation(left, left, 4, 3)
