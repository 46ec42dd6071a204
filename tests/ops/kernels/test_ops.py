"""The ops as PyTorch sees them: registration, compilation, export; and the mechanisms that call them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_cases import ORDERS, assert_differentiable_once, key_mask, laid_out
from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.feature_attention import favor_attention, linear_attention
from visionattn.ops.kernels import dispatch
from visionattn.ops.kernels.efficient_attention import efficient_attention_op
from visionattn.ops.kernels.feature_attention import feature_attention_op

Op = Callable[..., tuple[Tensor, ...]]
PROJECTION = torch.randn(5, 4, generator=torch.Generator().manual_seed(7))

# The op, its arguments between v and the mask, those behind it, and the plain form.
OPS: dict[str, tuple[Any, tuple[Any, ...], tuple[Any, ...], Callable[..., Tensor]]] = {
    "efficient": (
        efficient_attention_op,
        (),
        (1.7, True),
        lambda q, k, v, m: efficient_attention(q, k, v, m, temperature=1.7),
    ),
    "unnormalised": (
        efficient_attention_op,
        (),
        (1.0, False),
        lambda q, k, v, m: efficient_attention(q, k, v, m, normalize_queries=False),
    ),
    "elu": (feature_attention_op, (None,), (), linear_attention),
    "favor": (feature_attention_op, (PROJECTION,), (), lambda q, k, v, m: favor_attention(q, k, v, PROJECTION, m)),
}
each_op = pytest.mark.parametrize("name", OPS)


def leaves(order: str = ORDERS[0], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = ((9, 4), (6, 4), (6, 3))
    return [
        laid_out(order, 2, 2, tokens, width, dtype=dtype, spread=1.0, seed=seed).detach().requires_grad_()
        for seed, (tokens, width) in enumerate(shapes)
    ]


@each_op
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("masked", ["none", "one image without"])
def test_the_twin_equals_the_plain_form(name: str, order: str, masked: str) -> None:
    op, before, after, plain = OPS[name]
    inputs, mask = leaves(order, torch.float64), key_mask(masked, 2, 6)
    before = tuple(t.double() if isinstance(t, Tensor) else t for t in before)
    ours, theirs = op(*inputs, *before, mask, *after)[0], plain(*inputs, mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mine, expected = (torch.autograd.grad(out, inputs, weights) for out in (ours, theirs))
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@each_op
@pytest.mark.parametrize(
    ("order", "dtype", "masked"),
    zip(ORDERS, [torch.float32, torch.float32, torch.bfloat16], ["none", "random", "none"], strict=True),
)
def test_opcheck(name: str, order: str, dtype: torch.dtype, masked: str) -> None:
    op, before, after, _ = OPS[name]
    torch.library.opcheck(op, (*leaves(order, dtype), *before, key_mask(masked, 2, 6), *after))


@each_op
def test_compiles_in_one_graph(name: str) -> None:
    op, before, after, _ = OPS[name]

    def function(*inputs: Tensor) -> Tensor:
        return op(*inputs, *before, None, *after)[0].square().sum()

    inputs = leaves()
    expected = torch.autograd.grad(function(*inputs), inputs)
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for ours, theirs in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@each_op
def test_a_second_derivative_is_refused(name: str) -> None:
    op, before, after, _ = OPS[name]
    inputs = leaves()
    assert_differentiable_once(op(*inputs, *before, None, *after)[0], inputs[0])


@each_op
def test_exports_with_any_number_of_tokens(name: str) -> None:
    op, before, after, _ = OPS[name]

    class Attends(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return op(q, k, v, *before, None, *after)[0]

    queries, keys = torch.export.Dim("queries", min=2), torch.export.Dim("keys", min=2)
    inputs = [t.detach().contiguous() for t in leaves()]
    program = torch.export.export(Attends(), tuple(inputs), dynamic_shapes=({2: queries}, {2: keys}, {2: keys}))
    assert [n for n in program.graph.nodes if "visionattn" in str(n.target)]
    longer = [torch.cat([t, t.flip(2)], dim=2) for t in inputs]
    torch.testing.assert_close(program.module()(*longer), Attends()(*longer))


MECHANISMS = {
    "EfficientAttention": "visionattn::efficient_attention",
    "DoubleAttention": "visionattn::efficient_attention",
    "LinearAttention": "visionattn::feature_attention",
    "Performer": "visionattn::feature_attention",
}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mechanisms take the ops, whose eager twins answer on the CPU; the ops that were called."""
    called: list[str] = []
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    for module in ("efficient_attention", "feature_attention"):
        plain, op_module = f"visionattn.ops.{module}", f"visionattn.ops.kernels.{module}"
        monkeypatch.setattr(f"{plain}.asked_for", lambda t: True)
        monkeypatch.setattr(f"{op_module}.asked_for", lambda t, name=f"visionattn::{module}": called.append(name))
    return called


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("form", ["itself", "masked", "context", "channels first"])
def test_mechanisms_take_their_op(
    name: str, form: str, as_on_a_gpu: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    mixer = build_attention(name, 8)
    x = torch.randn(2, 3, 5, 8)
    kwargs: dict[str, Tensor] = {}
    if form == "masked":
        kwargs["mask"] = key_mask("random", 2, 15).reshape(2, 3, 5)
    elif form == "context":
        kwargs["context"] = torch.randn(2, 4, 4, 8)
    elif form == "channels first":
        x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)

    def run(mixer: nn.Module) -> tuple[Tensor, list[Tensor]]:
        out = mixer(x, **kwargs)
        return out, list(torch.autograd.grad(out.square().sum(), list(mixer.parameters())))

    ours, gradients = run(mixer)
    assert as_on_a_gpu == [MECHANISMS[name]] * 2  # forward and backward
    monkeypatch.undo()
    plain, expected = run(copy.deepcopy(mixer))
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_compiled_mechanism_is_one_graph(name: str, as_on_a_gpu: list[str]) -> None:
    torch.manual_seed(0)
    mixer, x = build_attention(name, 8), torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(torch.compile(mixer, fullgraph=True, backend="aot_eager")(x), mixer(x))
    assert set(as_on_a_gpu) == {MECHANISMS[name]}


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,))[1],
    "vmap": lambda f, x: torch.vmap(lambda image: f(image[None]))(x),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["EfficientAttention", "LinearAttention"])
def test_a_compiled_transform_takes_the_plain_form(name: str, transform: str, as_on_a_gpu: list[str]) -> None:
    """An op's derivative in forward mode would be 0 there, and its gradient an error."""
    torch.manual_seed(0)
    mixer, x = build_attention(name, 8), torch.randn(2, 3, 5, 8)
    run = TRANSFORMS[transform]
    compiled = torch.compile(lambda x: run(mixer, x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), run(mixer, x))
    assert not as_on_a_gpu


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 8), (torch.float32, 200)])
def test_what_no_kernel_serves_compiles_too(dtype: torch.dtype, width: int, as_on_a_gpu: list[str]) -> None:
    torch.manual_seed(0)
    mixer, x = build_attention("EfficientAttention", width).to(dtype), torch.randn(2, 3, 5, width, dtype=dtype)
    torch.testing.assert_close(torch.compile(mixer, fullgraph=True, backend="aot_eager")(x), mixer(x))
    assert not as_on_a_gpu


def test_a_device_without_kernels_compiles_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionattn.ops.efficient_attention.asked_for", lambda t: True)
    mixer, x = build_attention("EfficientAttention", 8), torch.randn(2, 3, 5, 8)
    torch.testing.assert_close(torch.compile(mixer, fullgraph=True, backend="aot_eager")(x), mixer(x))
