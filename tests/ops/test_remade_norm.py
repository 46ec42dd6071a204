"""Batch norm, sum and ReLU that are made again for the backward: values, gradients, running numbers, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from visionattn.ops.remade_norm import is_packing, is_remaking, remade_norm, remaking

MOMENTUM, EPS = 0.3, 1e-5


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns
    yield
    torch.use_deterministic_algorithms(False)


def plain_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    momentum: float,
    eps: float,
    plus: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    out = F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    out = out if plus is None else out + plus
    return out.relu() if relu else out


def made(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def two_norms(norm: Callable[..., Tensor], dtype: torch.dtype, layout: torch.memory_format) -> list[Tensor]:
    """The answer, the gradients and the running numbers of two convolutions, whose norms' answers meet twice."""
    x, other = (made(2, 5, 3, 4, 7, seed=seed, dtype=dtype) for seed in (0, 1))
    first, second, third = (made(5, 5, 3, 3, 3, seed=seed, dtype=dtype) for seed in (2, 3, 4))
    scales = [made(5, seed=seed, dtype=dtype) for seed in range(5, 9)]
    running = [torch.zeros(5, dtype=dtype), torch.ones(5, dtype=dtype)]
    one = F.conv3d(x.contiguous(memory_format=layout), first, padding=1)
    one = norm(one, *scales[:2], *running, momentum=MOMENTUM, eps=EPS, plus=other, relu=True)
    two = F.conv3d(one, second, padding=1)
    two = norm(two, *scales[2:], *running, momentum=MOMENTUM, eps=EPS, plus=one)
    answer = F.conv3d(two.movedim(3, 4), third, padding=1) * one.movedim(3, 4)
    grads = torch.autograd.grad(
        (answer * made(*answer.shape, seed=9, dtype=dtype).detach()).sum(), [x, other, first, second, third, *scales]
    )
    return [answer.detach(), *grads, *running]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("around", [remaking, nullcontext])
def test_equal_to_the_plain_layers(around: Callable[..., object], layout: torch.memory_format) -> None:
    results = {}
    for dtype in (torch.float64, torch.float32):
        with around():  # type: ignore[attr-defined]
            ours = two_norms(remade_norm, dtype, layout)
        results[dtype] = ours, two_norms(plain_norm, dtype, layout)
    for double, single, usual in zip(results[torch.float64][0], *results[torch.float32], strict=True):
        assert (single - double).abs().max() <= 2 * (usual - double).abs().max() + 1e-6 * double.abs().max()
    for ours, plain in zip(*results[torch.float64], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_what_is_made_again_is_what_was() -> None:
    kept = two_norms(remade_norm, torch.float32, torch.channels_last_3d)
    with remaking():
        again = two_norms(remade_norm, torch.float32, torch.channels_last_3d)
    for one, other in zip(kept, again, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("relu", [False, True])
def test_the_answer_is_not_kept(relu: bool) -> None:
    x, weight = made(2, 3, 4, 5, seed=0), made(3, 3, 3, 3, seed=1)
    numbers = [made(3, seed=2), made(3, seed=3), torch.zeros(3).double(), torch.ones(3).double()]

    def run() -> tuple[Tensor, StorageWeakRef]:
        answer = remade_norm(x * 2, *numbers, momentum=MOMENTUM, eps=EPS, relu=relu)
        return F.conv2d(answer, weight), StorageWeakRef(answer.untyped_storage())

    out, kept = run()
    assert not kept.expired()
    with remaking():
        out, kept = run()
    assert kept.expired()
    out.sum().backward()
    assert x.grad is not None


def test_an_answer_that_is_written_to_is_kept() -> None:
    weight, numbers = made(3, 3, 3, 3, seed=1), [torch.ones(3), torch.zeros(3), torch.zeros(3), torch.ones(3)]

    def run(norm: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        x = made(2, 3, 4, 5, seed=0)
        answer = norm(x, *(t.double() for t in numbers), momentum=MOMENTUM, eps=EPS)
        answer = answer.mul_(3).add_(1).relu_()
        return torch.autograd.grad(F.conv2d(answer, weight).square().sum(), [x, weight])

    with remaking():
        ours = run(remade_norm)
    for one, other in zip(ours, run(plain_norm), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_weight_that_changes_before_the_backward_is_refused() -> None:
    x, weight = made(2, 3, 4, 5, seed=0), made(3, 3, 3, 3, seed=1)
    numbers = [made(3, seed=2), made(3, seed=3), torch.zeros(3).double(), torch.ones(3).double()]
    for changed in (weight, numbers[0]):
        with remaking():
            out = F.conv2d(remade_norm(x, *numbers, momentum=MOMENTUM, eps=EPS, relu=True), weight)
        with torch.no_grad():
            changed.mul_(2)
        with pytest.raises(RuntimeError, match=r"was written to after the forward; call backward before"):
            out.sum().backward()


def test_where_it_lasts() -> None:
    assert not is_remaking()
    assert not is_packing()
    with remaking():
        assert is_remaking()
        assert is_packing()
    assert not is_remaking()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        assert is_packing()
        assert not is_remaking()
    with pytest.raises(KeyError), remaking():
        raise KeyError
    assert not is_remaking()
    assert not is_packing()
