"""The ops of stereo matching as PyTorch sees them: registration, compilation, export; and the layers that call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from kernel_cases import assert_differentiable_once
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.ops.concatenation_convolution import concatenation_parts
from visionattn.ops.cost_volume import concatenation_volume, group_correlation_volume
from visionattn.ops.disparity_regression import upsampled_soft_argmax
from visionattn.ops.kernels import assembled_convolution, dispatch, group_correlation
from visionattn.ops.kernels import upsampled_soft_argmax as regression
from visionattn.ops.kernels.assembled_convolution import assembled_convolution_op
from visionattn.ops.kernels.group_correlation import group_correlation_op
from visionattn.ops.kernels.upsampled_soft_argmax import upsampled_soft_argmax_op
from visionattn.stereo import shortcuts
from visionattn.stereo.gwcnet import GwcNet
from visionattn.stereo.shortcuts import VolumeConvolution, correlation_volume, full_disparity

SIZE = (8, 6, 10)


class Op(NamedTuple):
    op: Any
    shapes: tuple[tuple[int, ...], ...]
    options: tuple[Any, ...]
    grown: tuple[int | None, ...]
    """Of each input the axis that is the map's height, if the op takes any."""


OPS = {
    "correlation": Op(group_correlation_op, ((2, 6, 3, 5),) * 2, (7, 3), (2, 2)),
    "assembly": Op(
        assembled_convolution_op,
        ((2, 5, 3, 2, 4), (2, 3, 2, 6), (2, 3, 2, 5), (2, 3, 2, 4), (2, 3, 2, 4)),
        (),
        (3, 2, 2, 2, 2),
    ),
    "regression": Op(upsampled_soft_argmax_op, ((2, 3, 2, 4),), (*SIZE, False), (2,)),
}
each_op = pytest.mark.parametrize("name", OPS)


def made(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()


def leaves(name: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [made(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(OPS[name].shapes)]


def answer(name: str, *inputs: Tensor) -> Tensor:
    found = OPS[name].op(*inputs, *OPS[name].options)
    return found[0] if isinstance(found, tuple) else found


def assert_equal_with_gradients(ours: Tensor, plain: Tensor, inputs: list[Tensor], tolerance: float) -> None:
    torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    weights = made(*plain.shape, seed=9, dtype=plain.dtype).detach()
    mine, expected = (torch.autograd.grad(out, inputs, weights, retain_graph=True) for out in (ours, plain))
    torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("planes", [3, 9])
def test_the_twin_of_correlation_is_the_plain_form(planes: int) -> None:
    inputs = [made(2, 6, 3, 5, seed=seed, dtype=torch.float64) for seed in range(2)]
    ours = group_correlation_op(*inputs, planes, 3)
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)
    assert_equal_with_gradients(ours, group_correlation_volume(*inputs, planes, 3), inputs, 1e-12)


@pytest.mark.parametrize("planes", [3, 9])
def test_the_twin_of_assembly_is_the_convolution_of_the_volume(planes: int) -> None:
    maps = [made(2, 2, 3, 5, seed=seed, dtype=torch.float64) for seed in range(2)]
    inputs = [*maps, made(3, 4, 3, 3, 3, seed=2, dtype=torch.float64)]
    ours = assembled_convolution_op(*concatenation_parts(*inputs, planes))
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)
    plain = F.conv3d(concatenation_volume(*maps, planes), inputs[2], padding=1)
    assert_equal_with_gradients(ours, plain, inputs, 1e-12)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_twin_of_regression_is_the_plain_form(align_corners: bool) -> None:
    inputs = [made(2, 3, 2, 4, dtype=torch.float64)]
    ours = upsampled_soft_argmax_op(*inputs, *SIZE, align_corners)[0]
    assert_equal_with_gradients(ours, upsampled_soft_argmax(*inputs, *SIZE, align_corners=align_corners), inputs, 1e-12)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("correlation", torch.float32), ("assembly", torch.bfloat16), ("regression", torch.bfloat16)],
)
def test_opcheck(name: str, dtype: torch.dtype) -> None:
    torch.library.opcheck(OPS[name].op, (*leaves(name, dtype), *OPS[name].options))


@each_op
def test_a_second_derivative_is_refused(name: str) -> None:
    inputs = leaves(name)
    assert_differentiable_once(answer(name, *inputs).square(), inputs[0])


@each_op
def test_compiles_in_one_graph(name: str) -> None:
    def function(*inputs: Tensor) -> Tensor:
        return answer(name, *inputs).square().sum()

    inputs = leaves(name)
    expected = torch.autograd.grad(function(*inputs), inputs)
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for ours, theirs in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@each_op
def test_exports_with_any_height(name: str) -> None:
    class Called(nn.Module):
        def forward(self, inputs: list[Tensor]) -> Tensor:
            return answer(name, *inputs)

    inputs, rows = [t.detach() for t in leaves(name)], torch.export.Dim("rows", min=2)
    program = torch.export.export(Called(), (inputs,), dynamic_shapes=([{axis: rows} for axis in OPS[name].grown],))
    assert [n for n in program.graph.nodes if "visionattn" in str(n.target)]
    higher = [torch.cat([t, t.flip(axis)], axis) for t, axis in zip(inputs, OPS[name].grown, strict=True)]
    torch.testing.assert_close(program.module()(higher), Called()(higher))


CHOICES = ("takes_assembly", "takes_correlation", "takes_regression")


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers take the ops, whose eager twins answer on the CPU; what was decided on."""
    called: list[str] = []
    for name in CHOICES:
        monkeypatch.setattr(shortcuts, name, lambda *case, name=name: called.append(name) or True)
    return called


def layers(left: Tensor, right: Tensor) -> Callable[..., list[Tensor]]:
    """All three on maps [B, 6, H, W], and a convolution's weight for the first."""
    torch.manual_seed(0)
    first = VolumeConvolution(3, 6, 4, 5)

    def run() -> list[Tensor]:
        costs = correlation_volume(left, right, 5, 3)
        volume = first((costs, left, right))
        return [costs, volume, full_disparity(volume[:, :1], 20, 8, 28, align_corners=False)]

    return run


def test_layers_take_their_op(as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [made(2, 6, 2, 7, seed=seed) for seed in range(2)]
    run = layers(*inputs)
    ours = run()
    assert sorted(set(as_on_a_gpu)) == sorted(CHOICES)
    assert all(t.is_contiguous(memory_format=torch.channels_last_3d) for t in ours[:2])
    monkeypatch.undo()
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    for mine, plain in zip(ours, run(), strict=True):
        assert_equal_with_gradients(mine, plain, inputs, 1e-4)


def test_the_layers_are_one_compiled_graph(as_on_a_gpu: list[str]) -> None:
    run = layers(*(made(2, 6, 2, 7, seed=seed).detach() for seed in range(2)))
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(), run())


def test_autocast_hands_on_its_precision(as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [made(1, 6, 2, 7, seed=seed) for seed in range(2)]
    run = layers(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, volume, disparity = run()
        torch.autograd.grad(disparity.sum(), inputs)
    assert (volume.dtype, disparity.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(volume.float(), run()[1], rtol=0.05, atol=0.1)


def test_gwcnet_is_unchanged(as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = GwcNet(16, groups=8, concat_channels=4).train()
    pair = tuple(torch.randn(2, 2, 3, 16, 32))
    with torch.no_grad():
        ours = network(*pair)
        assert set(as_on_a_gpu) == set(CHOICES)
        monkeypatch.undo()
        monkeypatch.setenv("VISIONATTN_KERNELS", "off")
        plain = network(*pair)
    assert len(ours) == 4
    torch.testing.assert_close(
        ours, plain, rtol=0, atol=1e-2
    )  # of 16 pixels, behind 60 layers and norms of few numbers


def test_what_is_asked_for_and_not_served_takes_the_plain_form(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a device without kernels, and where they are switched off; the log says why."""
    inputs = [made(2, 6, 2, 7, seed=seed) for seed in range(2)]
    run = layers(*inputs)
    for module in (assembled_convolution, group_correlation, regression):
        monkeypatch.setattr(module, "asked_for", lambda t: True)
    with caplog.at_level("DEBUG", logger="visionattn.kernels"):
        run()
    assert [r.getMessage().partition(", because")[0] for r in caplog.records if r.name == dispatch.log.name] == [
        f"{name}: the plain form" for name in ("group_correlation", "assembled_convolution", "upsampled_soft_argmax")
    ]
    monkeypatch.setattr(dispatch, "_unready", lambda device: None if dispatch.kernels_allowed() else "switched off")
    left, right = inputs
    cases = (
        lambda: group_correlation.takes_correlation(left, right, 5, 3),
        lambda: assembled_convolution.takes_assembly((left, right), 4, 5),
        lambda: regression.takes_regression(left, 24, 8, 28),
    )
    assert all(taken() for taken in cases)
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert not any(taken() for taken in cases)


def test_an_export_takes_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that holds one of our ops could not be loaded without this package."""

    class Layers(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
            return layers(left, right)()

    monkeypatch.setattr(dispatch, "INTERPRETED", True)  # as if on a GPU: the CPU is asked for as well
    with torch.no_grad():
        program = torch.export.export(Layers(), tuple(made(1, 6, 2, 7, seed=seed).detach() for seed in range(2)))
    assert not [n for n in program.graph.nodes if "visionattn" in str(n.target)]
