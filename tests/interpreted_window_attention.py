"""Run as a program under TRITON_INTERPRET=1: errors of the kernels against the eager twin and plain loops, as JSON.

Not a test by itself: Triton reads that variable when it is imported, and another test may have imported it before.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from kernel_cases import different_strides, error, kernel_errors, key_mask
from strict_interpreter import print_errors
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.kernels import window_attention_eager as eager
from visionattn.ops.kernels.window_attention import window_attention_op
from visionattn.ops.kernels.window_case import WindowCase

NAMES = ("answer", "log of the sums")
LEAVES = ("qkv", "table", "padding", "scale")


class Case(NamedTuple):
    grid: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int] = (0, 0)
    width: int = 3
    heads: int = 2
    batch: int = 2
    cosine: bool = False
    table: bool = True
    padding: bool = True
    mask: str = "none"
    mask_padding: bool = True
    shift_first: bool = False
    dtype: torch.dtype = torch.float32
    spread: float = 1.0


CASES = {
    "plain": {
        "whole windows": Case((4, 6), (4, 3)),
        "shifted, padding masked": Case((5, 4), (4, 3), (2, 1), heads=1, batch=1),
        "shifted, padding seen": Case((5, 4), (4, 3), (2, 1), batch=1, mask_padding=False),
        "padding of zeros, without a bias": Case(
            (4, 5), (3, 4), (1, 0), padding=False, table=False, mask_padding=False, heads=1, batch=1
        ),
        "map smaller than the window": Case((3, 2), (4, 5), heads=1, batch=1, mask_padding=False),
        "smaller, and shifted": Case((3, 2), (4, 5), (1, 3), heads=1, batch=1, mask_padding=False),
        "one token": Case((1, 1), (2, 2), heads=1, batch=1),
        "shifted before padding": Case((5, 8), (4, 5), (2, 3), heads=1, batch=1, shift_first=True, mask_padding=False),
        # Six wide: of rows of three numbers some are all but 0 long, and their gradients are divided by that.
        "cosines, padding seen": Case((5, 4), (4, 3), (2, 1), 6, batch=1, cosine=True, mask_padding=False),
        "cosines, padding masked": Case((3, 4), (3, 3), (1, 1), cosine=True, width=18, batch=1),
        "masked": Case((4, 6), (4, 3), (2, 1), mask="one image without", heads=1),
        "masked, padding seen": Case((5, 4), (4, 3), (2, 1), mask="random", heads=1, batch=1, mask_padding=False),
        "tiles of queries": Case((5, 8), (5, 7), (2, 3), batch=1, mask_padding=False),
        "tiles of queries, cosines": Case((4, 9), (3, 12), (1, 6), 6, cosine=True, batch=1, mask_padding=False),
        "float16": Case((5, 4), (4, 3), (2, 1), 16, heads=1, batch=1, dtype=torch.float16),
        "bfloat16": Case(
            (5, 4), (4, 3), (2, 1), 16, heads=1, batch=1, cosine=True, mask_padding=False, dtype=torch.bfloat16
        ),
        "large logits": Case((4, 6), (4, 3), heads=1, batch=1, spread=20.0),
    },
    "slow": {
        f"{grid}, {window}, {shift}, {width}, {', '.join(flags) or 'plain'}": Case(
            grid,
            window,
            shift,
            width,
            batch=1,
            cosine="cosine" in flags,
            mask="random" if "masked" in flags else "none",
            mask_padding="seen" not in flags,
            shift_first="first" in flags,
        )
        for row, (grid, window, shift) in enumerate(
            (
                ((9, 15), (7, 7), (3, 3)),
                ((17, 9), (8, 8), (0, 4)),
                ((12, 14), (12, 12), (6, 6)),
                ((13, 18), (16, 16), (8, 8)),
                ((5, 20), (7, 14), (0, 7)),
            )
        )
        for column, flags in enumerate(((), ("cosine", "seen"), ("seen", "masked"), ("seen", "first")))
        for width in ((16, 32, 64)[(row + column) % 3],)  # every two of window, width and flags meet
    },
}


class Inputs(NamedTuple):
    qkv: Tensor
    table: Tensor | None
    padding: Tensor | None
    scale: Tensor | None

    def mapped(self, change: Any) -> Inputs:
        return Inputs(*(None if t is None else change(t) for t in self))

    def present(self) -> dict[str, Tensor]:
        return {name: t for name, t in zip(LEAVES, self, strict=True) if t is not None}


def inputs_of(case: Case, device: str) -> Inputs:
    """qkv inside a larger tensor, and what belongs to it; the parameters in float32, as under autocast."""
    generator = torch.Generator().manual_seed(0)
    h, w = case.window
    qkv = torch.randn(case.batch, *case.grid, 3, case.heads + 1, case.width, generator=generator)[..., 1:, :]
    return Inputs(
        (case.spread * qkv).to(device, case.dtype),
        torch.randn((2 * h - 1) * (2 * w - 1), case.heads, generator=generator).to(device) if case.table else None,
        torch.randn(2, case.heads, case.width, generator=generator).to(device) if case.padding else None,
        1 + 9 * torch.rand(case.heads, generator=generator).to(device) if case.cosine else None,
    )


def loops(inputs: Inputs, case: Case, mask: Tensor | None) -> Tensor:
    """Pad, roll (or roll, pad), and query by query in each window; the sides of a seam as Swin's code labels them."""
    qkv, table, padding, scale = inputs
    (height, width), (h, w), shift = case.grid, case.window, case.shift
    missing = (0, -width % w, 0, -height % h)
    back = tuple(-s for s in shift)
    index = torch.arange(height * width).view(height, width)
    if case.shift_first:
        index = F.pad(index.roll(back, (0, 1)), missing, value=-1)
    else:
        index = F.pad(index, missing, value=-1).roll(back, (0, 1))
    label = torch.zeros_like(index)
    for rows, by_row in zip((label, label.T), (10, 1), strict=True):
        if shift[by_row == 1]:
            rows[-case.window[by_row == 1] :] += by_row
            rows[-shift[by_row == 1] :] += by_row
    cells = list(itertools.product(range(h), range(w)))
    tokens = qkv.flatten(1, 2)
    out = [[[torch.zeros_like(qkv[0, 0, 0, 0, 0])] * qkv.shape[4] for _ in range(height * width)] for _ in qkv]
    for top, left in itertools.product(range(0, index.shape[0], h), range(0, index.shape[1], w)):
        held = [(int(index[top + y, left + x]), int(label[top + y, left + x]), (y, x)) for y, x in cells]
        for b, head in itertools.product(range(len(qkv)), range(qkv.shape[4])):
            beside = torch.zeros_like(tokens[b, 0, 1:, head]) if padding is None else padding[:, head]
            for token, side, (y, x) in held:
                keys, bias = [], []
                for other, other_side, (other_y, other_x) in held:
                    real = mask is None or bool(mask[b, other]) if other >= 0 else not case.mask_padding
                    if token >= 0 and real and side == other_side:
                        keys.append(tokens[b, other, 1:, head] if other >= 0 else beside)
                        bias.append((y - other_y + h - 1) * (2 * w - 1) + x - other_x + w - 1)
                if not keys:
                    continue
                k, v = torch.stack(keys).unbind(1)
                q = tokens[b, token, 0, head]
                logits = k @ q / case.width**0.5
                if scale is not None:
                    logits = scale[head] * (k @ q) / (k.norm(dim=1) * q.norm())
                if table is not None:
                    logits = logits + table[bias, head]
                out[b][token][head] = logits.softmax(0) @ v
    stacked = torch.stack([torch.stack([torch.stack(by_head) for by_head in image]) for image in out])
    return stacked.unflatten(1, case.grid)


def measure(case: Case, *, with_loops: bool, device: str = "cpu") -> dict[str, float]:
    """Errors by name: of the kernels, and of the eager twin in the same dtype, against the twin in float64."""
    inputs = inputs_of(case, device)
    qkv = inputs.qkv
    grad = torch.randn(*qkv.shape[:3], *qkv.shape[4:], generator=torch.Generator().manual_seed(1)).to(qkv)
    mask = key_mask(case.mask, case.batch, case.grid[0] * case.grid[1], device)
    options = case.window, case.shift, case.mask_padding, case.shift_first
    found: dict[str, float] = {}

    exact = inputs.mapped(Tensor.double)
    truth = eager.forward(WindowCase(*exact, mask, *options))
    gradients = eager.backward(grad.double(), WindowCase(*exact, mask, *options), truth[1])
    by_name = {name: g for name, g, t in zip(LEAVES, gradients, exact, strict=True) if t is not None}
    if with_loops:
        leaves = exact.mapped(lambda t: t.clone().requires_grad_())
        looped = loops(leaves, case, mask)
        found["twin against loops"] = error(truth[0], looped)
        wanted = torch.autograd.grad(looped, list(leaves.present().values()), grad.double(), materialize_grads=True)
        for (name, closed), expected in zip(by_name.items(), wanted, strict=True):
            found[f"closed gradient of {name} against loops"] = error(closed, expected)

    leaves = inputs.mapped(lambda t: t.detach().requires_grad_())
    ours = window_attention_op(*leaves, mask, *options)
    plain = eager.forward(WindowCase(*inputs, mask, *options))
    plain_gradients = eager.backward(grad, WindowCase(*inputs, mask, *options), plain[1])
    found |= kernel_errors(NAMES, ours, plain, truth)
    theirs = [g for g, t in zip(plain_gradients, inputs, strict=True) if t is not None]
    mine = torch.autograd.grad(ours[0], list(leaves.present().values()), grad)
    found |= kernel_errors((f"gradient of {name}" for name in by_name), mine, theirs, by_name.values())
    found["strides differ by"] = different_strides(mine, theirs)
    return found


if __name__ == "__main__":
    few = 40  # tokens: plain loops are slow
    print_errors(CASES, lambda case: measure(case, with_loops=case.grid[0] * case.grid[1] <= few))
