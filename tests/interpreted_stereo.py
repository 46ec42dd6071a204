"""Run as a program under TRITON_INTERPRET=1: errors of the stereo kernels against their twins and loops, as JSON.

Not a test by itself: Triton reads that variable when it is imported, and another test may have imported it before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from kernel_cases import different_strides, error, kernel_errors
from strict_interpreter import print_errors
from torch import Tensor, nn

from visionattn.ops.kernels.assembled_convolution import assembled_convolution_op, takes_assembly
from visionattn.ops.kernels.group_correlation import group_correlation_op, takes_correlation
from visionattn.ops.kernels.upsampled_soft_argmax import takes_regression, upsampled_soft_argmax_op


class Case(NamedTuple):
    """The op's name, the shapes of what goes in, and what the op takes behind it."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: tuple[int, ...] = ()
    order: str = "contiguous"  # or "channels last", or "part of a larger one"
    dtype: torch.dtype = torch.float32
    spread: float = 1.0


def correlation(batch: int, channels: int, groups: int, height: int, width: int, planes: int, **kind: object) -> Case:
    return Case("correlation", ((batch, channels, height, width),) * 2, (planes, groups), **kind)


def assembly(batch: int, outputs: int, height: int, width: int, planes: int, **kind: object) -> Case:
    def map_of(columns: int) -> tuple[int, ...]:
        return batch, outputs, height, columns

    left = batch, 5, outputs, height, width
    return Case("assembly", (left, map_of(width + 2), map_of(planes), map_of(width), map_of(width)), **kind)


def regression(
    coarse: tuple[int, ...], fine: tuple[int, int, int], align_corners: bool = False, **kind: object
) -> Case:
    return Case("regression", (coarse,), (*fine, align_corners), **kind)


class Network(NamedTuple):
    """A network whose layers call the ops, and how many kernels' forwards it takes."""

    name: str
    kernels: int
    dtype: torch.dtype = torch.float32


def in_dtype(dtype: torch.dtype) -> dict[str, Case]:
    return {
        f"correlation, {dtype}": correlation(1, 9, 3, 1, 5, 3, dtype=dtype),
        f"assembly, {dtype}": assembly(1, 3, 1, 6, 4, dtype=dtype),
        f"regression, {dtype}": regression((1, 3, 1, 3), (5, 2, 7), dtype=dtype),
    }


CASES = {
    "plain": {
        "correlation, tiles of columns": correlation(1, 2, 1, 1, 130, 3),
        "correlation, tiles of groups": correlation(1, 51, 17, 1, 5, 2),
        "correlation, more disparities than a tile has columns": correlation(1, 256, 16, 1, 3, 18),
        "correlation, two images, few columns": correlation(2, 4, 2, 1, 3, 4),
        "correlation, one number": correlation(1, 1, 1, 1, 1, 1),
        "correlation, one group, parts of its channels": correlation(1, 20, 1, 1, 9, 3, order="channels last"),
        "assembly, two tiles of outputs": assembly(1, 34, 1, 9, 5, order="channels last"),
        "assembly, tiles of columns": assembly(1, 2, 1, 67, 4),
        "assembly, two images, few columns": assembly(2, 3, 1, 3, 5, order="part of a larger one"),
        "assembly, parts of planes": assembly(1, 2, 1, 6, 19),
        "assembly, one column": assembly(1, 1, 1, 1, 3),
        "regression, tiles of columns": regression((1, 2, 1, 33), (5, 3, 132)),
        "regression, aligned, two images": regression((2, 2, 1, 3), (4, 3, 5), True, order="channels last"),
        "regression, by four": regression((1, 3, 2, 2), (12, 4, 8), order="part of a larger one"),
        "regression, one point": regression((1, 1, 1, 1), (4, 3, 2)),
        "regression, the same size": regression((1, 5, 2, 3), (5, 2, 3), True),
        "regression, aligned, the last plane missed by rounding": regression((1, 7, 1, 3), (38, 1, 5), True),
        "regression, large costs": regression((1, 4, 1, 3), (9, 2, 5), spread=1e4),
    }
    | in_dtype(torch.bfloat16),
    "slow": {"GwcNet": Network("GwcNet", 3), "PSMNet": Network("PSMNet", 2)}
    | in_dtype(torch.float16)
    | {
        f"correlation, {channels} in {groups}, {width} columns, {planes} planes, {order}": correlation(
            1, channels, groups, 1, width, planes, order=order
        )
        for channels, groups in ((40, 5), (64, 1), (85, 17), (16, 16))
        for width, planes in ((4, 9), (35, 6), (130, 2))
        for order in ("contiguous", "channels last")
    }
    | {
        f"assembly, {outputs} outputs, {width} columns, {planes} planes, {order}": assembly(
            1, outputs, 1, width, planes, order=order
        )
        for outputs in (1, 33)
        for width, planes in ((2, 7), (5, 3), (66, 4), (9, 20))
        for order in ("contiguous", "channels last", "part of a larger one")
    }
    | {
        f"regression, {coarse} to {fine}, aligned {aligned}": regression(coarse, fine, aligned)
        for coarse, fine in (
            ((1, 4, 3, 5), (16, 12, 20)),
            ((1, 2, 1, 5), (16, 8, 40)),
            ((1, 5, 3, 4), (11, 7, 10)),
            ((1, 2, 1, 40), (8, 4, 160)),
            ((1, 7, 1, 2), (9, 8, 3)),
        )
        for aligned in (False, True)
    },
}


class Op(NamedTuple):
    call: Callable[..., tuple[Tensor, ...]]
    takes: Callable[..., bool]
    loops: Callable[..., Tensor]


def correlation_loops(left: Tensor, right: Tensor, planes: int, groups: int) -> Tensor:
    batch, channels, height, width = left.shape
    size = channels // groups
    out = []
    for g in range(groups):
        for d in range(planes):
            for x in range(width):
                group = slice(g * size, (g + 1) * size)
                out.append(
                    (left[:, group, :, x] * right[:, group, :, x - d]).sum(1) / size
                    if x >= d
                    else left.new_zeros(batch, height)
                )
    return torch.stack(out, -1).view(batch, height, groups, planes, width).permute(0, 2, 3, 1, 4)


def assembly_loops(of_left: Tensor, of_right: Tensor, beyond: Tensor, first: Tensor, last: Tensor) -> Tensor:
    batch, _, outputs, height, width = of_left.shape
    planes = beyond.shape[3]
    inner = []
    for d in range(1, planes - 1):
        for x in range(width):
            column = of_left.new_zeros(batch, outputs, height)
            if x >= d - 2:
                column = of_left[:, min(x - d, 2) + 2, :, :, x] + of_right[..., x - d + 2]
            inner.append(column - beyond[..., d] if x == width - 1 else column)
    volume = torch.stack(inner, -1).view(batch, outputs, height, planes - 2, width).transpose(2, 3)
    return torch.cat([first[:, :, None], volume, last[:, :, None]], 2)


def regression_loops(logits: Tensor, planes: int, height: int, width: int, align_corners: bool) -> Tensor:
    def hats(coarse: int, fine: int) -> Tensor:
        """Row by row the weights of the coarse points in a fine one."""
        weights = logits.new_zeros(fine, coarse)
        for n in range(fine):
            at = n * (coarse - 1) / max(fine - 1, 1) if align_corners else max((n + 0.5) * coarse / fine - 0.5, 0.0)
            before = min(int(at), coarse - 1)
            weights[n, before] += 1 - (at - before)
            weights[n, min(before + 1, coarse - 1)] += at - before
        return weights

    matrices = [hats(c, f) for c, f in zip(logits.shape[1:], (planes, height, width), strict=True)]
    shares = torch.einsum("bkij,pk,yi,xj->bpyx", logits, *matrices).softmax(1)
    return sum((p * shares[:, p] for p in range(planes)), torch.zeros_like(shares[:, 0]))


OPS = {
    "correlation": Op(lambda *a: (group_correlation_op(*a),), takes_correlation, correlation_loops),
    "assembly": Op(
        lambda *a: (assembled_convolution_op(*a),),
        lambda *a: takes_assembly(a, a[0].shape[2], a[2].shape[3]),
        assembly_loops,
    ),
    "regression": Op(
        lambda x, *size: upsampled_soft_argmax_op(x, *size[:3], bool(size[3])),
        lambda x, *size: takes_regression(x, *size[:3]),
        regression_loops,
    ),
}
NAMES = {
    "correlation": ("left", "right"),
    "assembly": ("what L adds", "what R adds", "what lies beyond", "first", "last"),
    "regression": ("costs",),
}


def laid_out(shape: tuple[int, ...], case: Case, seed: int, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if case.order == "channels last":
        shape, order = (shape[0], *shape[-2:], *shape[1:-2]), (0, *range(3, len(shape)), 1, 2)
    elif case.order == "part of a larger one":
        shape, order = (*shape[:-1], shape[-1] + 3), tuple(range(len(shape)))
    else:
        order = tuple(range(len(shape)))
    t = (case.spread * torch.randn(shape, generator=generator)).to(device, case.dtype).permute(order)
    return t[..., 2:-1] if case.order == "part of a larger one" else t


def run(case: Case, inputs: list[Tensor], call: Callable[..., tuple[Tensor, ...]]) -> list[Tensor]:
    """What the op answers, and the gradient of everything that goes in."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    out = call(*leaves, *case.options)
    grad = torch.randn(out[0].shape, generator=torch.Generator().manual_seed(9)).to(inputs[0].device)
    gradients = torch.autograd.grad(out[0], leaves, grad.to(case.dtype).to(out[0].dtype))
    return [*(t.detach() for t in out), *gradients]


def measure(case: Case, *, with_loops: bool, device: str = "cpu") -> dict[str, float]:
    """Errors by name: of the kernels, and of the eager twin in the same dtype, against the twin in float64."""
    op = OPS[case.op]
    inputs = [laid_out(shape, case, seed, device) for seed, shape in enumerate(case.shapes)]
    exact = [t.double() for t in inputs]
    truth = run(case, exact, op.call)  # for float64 there is no kernel
    names = [*("answer", "log total")[: len(truth) - len(inputs)], *(f"gradient of {n}" for n in NAMES[case.op])]
    found: dict[str, float] = {}
    if with_loops:
        by_loops = run(case, exact, lambda *a: (op.loops(*a),))
        compared = [truth[0], *truth[-len(inputs) :]], ["answer", *names[-len(inputs) :]]
        for ours, name, expected in zip(*compared, by_loops, strict=True):
            found[f"{name} against loops"] = error(ours, expected)

    found["not served, which differs by"] = float(not op.takes(*inputs, *case.options))
    ours, again = (
        (run(case, inputs, op.call) for _ in range(2)) if case.shapes[0][0] > 1 else [run(case, inputs, op.call)] * 2
    )
    os.environ["VISIONATTN_KERNELS"] = "off"
    plain = run(case, inputs, op.call)
    del os.environ["VISIONATTN_KERNELS"]
    found |= kernel_errors(names, ours, plain, truth)
    found["repeats differ by"] = max(float((a != b).sum()) for a, b in zip(ours, again, strict=True))
    found["strides differ by"] = different_strides(ours, plain)
    return found


def network(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """In eval mode with norms that fit the pair, or one disparity would have it all."""
    from visionattn.stereo.gwcnet import GwcNet
    from visionattn.stereo.psmnet import PSMNet

    torch.manual_seed(0)
    if name == "GwcNet":
        net, side = GwcNet(16, groups=5, concat_channels=4), 16
    else:
        options = {"channels": (8, 8, 8, 8)}
        net, side = PSMNet(16, backbone={"type": "TimmBackbone", "model_name": "resnet18", "timm_options": options}), 32
    pairs = torch.randn(2, 8, 3, side, 2 * side)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    os.environ["VISIONATTN_KERNELS"] = "off"
    with torch.no_grad():
        net.train()(*pairs)
    del os.environ["VISIONATTN_KERNELS"]
    return net.eval(), tuple(pairs[:, :1])


def measure_network(case: Network) -> dict[str, float]:
    """Errors of the disparities and of all parameters' gradients, with kernels and without, against float64."""
    from visionattn.ops.kernels import assembled_convolution_triton, group_correlation_triton
    from visionattn.ops.kernels import upsampled_soft_argmax_triton as regression_triton

    net, pair = network(case.name)
    launched: set[str] = set()

    def counted(module: ModuleType) -> Callable[..., object]:
        forward = module.forward
        return lambda *a: (launched.add(module.__name__), forward(*a))[1]

    for module in (assembled_convolution_triton, group_correlation_triton, regression_triton):
        module.forward = counted(module)  # type: ignore[attr-defined]

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        (out,) = net.to(dtype)(*(t.to(dtype) for t in pair))
        parameters = list(net.parameters())  # of which eval does not use all
        return [out.detach(), *torch.autograd.grad(out.square().mean(), parameters, materialize_grads=True)]

    ours = gradients(torch.float32)
    found = {"kernels not launched, by which it differs": float(case.kernels - len(launched))}
    os.environ["VISIONATTN_KERNELS"] = "off"
    plain, truth = gradients(torch.float32), gradients(torch.float64)
    del os.environ["VISIONATTN_KERNELS"]
    for kind, tensors in (("kernel", ours), ("twin", plain)):
        errors = [error(t, expected) for t, expected in zip(tensors, truth, strict=True)]
        found |= {f"{kind}: disparity": errors[0], f"{kind}: gradients": max(errors[1:])}
    return found


def measured(case: Case | Network) -> dict[str, float]:
    return measure_network(case) if isinstance(case, Network) else measure(case, with_loops=True)


if __name__ == "__main__":
    print_errors(CASES, measured)
