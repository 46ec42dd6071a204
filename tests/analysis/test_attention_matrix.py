"""The matrix that attending to the identity gives: it stands for the mechanism, or the mechanism is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.naive import random_mask, randomised, tensor
from visionattn.analysis.attention_matrix import (
    added_rows,
    attending,
    attention_matrix,
    attention_rows,
    output_values,
)
from visionattn.attention.base import ContextMixer, ContextQKVAttention, QKVAttention, TokenMixer
from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.attention.lambda_layer import LambdaMixer
from visionattn.attention.mega import GatedAveraging
from visionattn.attention.softmax import SoftmaxAttention

DIM = 16
SMALL = {"LinformerPool": {"pool": 2}, "NeighborhoodAttention": {"kernel": 3}}
NOT_LINEAR = {"LinformerFree"}  # its values are weighted by what they are themselves
ABLE = [n for n in list_attention() if hasattr(attention_class(n), "attend") and n not in NOT_LINEAR]
PLAIN = (QKVAttention.forward, ContextQKVAttention.forward)  # nothing beside the projections and the attention
FAMILY = [name for name in ABLE if attention_class(name).forward in PLAIN]


def made(name: str) -> tuple[TokenMixer, Tensor]:
    grid = (5, 7) if 2 in attention_class(name).grid_dims else (11,)
    torch.manual_seed(0)
    mixer = build_attention({"type": name, **SMALL.get(name, {})}, DIM, grid)
    return randomised(mixer).eval(), tensor(2, *grid, DIM)  # type: ignore[return-value]


def test_mechanisms_were_found() -> None:
    assert len(FAMILY) >= 10
    assert {"NonLocal", "SuperAttention", "WindowAttentionV2", "AFTConv", "LambdaLayerGlobal"} <= set(ABLE)


def matrix_of(name: str) -> tuple[TokenMixer, Tensor, Tensor]:
    """Mechanism, map, matrix."""
    mixer, x = made(name)
    return mixer, x, attention_matrix(mixer, x, chunk=8)


@pytest.mark.parametrize("name", FAMILY)
def test_matrix_times_values_is_the_mechanism(name: str) -> None:
    mixer, x, weights = matrix_of(name)
    assert isinstance(mixer, QKVAttention)
    with attending(mixer, x) as now:
        values = output_values(mixer, now.values)  # behind the output projection
    out = (weights @ values).sum(dim=1) + mixer.proj.bias
    torch.testing.assert_close(out.reshape(x.shape), mixer(x), rtol=1e-9, atol=1e-9)


class Seen(Exception):
    """Carries what a layer was given."""


def before_output(mixer: TokenMixer, *maps: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the mechanism's output layer is given, heads side by side; its answer where it has none."""
    masks = {"mask" if len(maps) == 1 else "context_mask": mask}
    if isinstance(mixer, LambdaMixer):
        return mixer(*maps, **masks)
    layer = next(getattr(mixer, name) for name in ("proj", "out", "attended") if hasattr(mixer, name))

    def stop(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        raise Seen(given[0])

    handle = layer.register_forward_pre_hook(stop)
    try:
        mixer(*maps, **masks)
    except Seen as seen:
        return seen.args[0]
    finally:
        handle.remove()
    raise AssertionError("the output layer was not run")


def gate(mixer: TokenMixer, x: Tensor, mask: Tensor | None) -> Tensor | float:
    """What Mega multiplies attended values by before its output layer."""
    if not isinstance(mixer, GatedAveraging):
        return 1.0
    gates = torch.split(mixer.gates(mixer.average(mixer.norm(x), mask)), mixer.widths, dim=-1)
    return nn.functional.silu(gates[2])


def assert_stands_for_the_mechanism(mixer: TokenMixer, *maps: Tensor, mask: Tensor | None = None) -> None:
    weights = attention_matrix(mixer, *maps, mask=mask, chunk=8)
    with attending(mixer, *maps, mask=mask) as now:
        values = now.values if now.values.dim() == 4 else now.values[:, None]
    out, wanted = (weights @ values).transpose(1, 2).flatten(2), before_output(mixer, *maps, mask=mask)
    out = out.reshape(wanted.shape) * gate(mixer, maps[0], mask)
    torch.testing.assert_close(out, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ABLE)
def test_matrix_times_values_is_what_the_output_layer_is_given(name: str) -> None:
    mixer, x = made(name)
    grid = tuple(x.shape[1:-1])
    mask = random_mask(2, *grid, seed=4)
    assert_stands_for_the_mechanism(mixer, x)
    if name != "SMYRF":  # of padded queries it answers none
        assert_stands_for_the_mechanism(mixer, x, mask=mask)
    if isinstance(mixer, ContextMixer):
        context = tensor(2, *grid, DIM, seed=5)
        assert_stands_for_the_mechanism(mixer, x, context)
        assert_stands_for_the_mechanism(mixer, x, context, mask=mask)


@pytest.mark.parametrize("name", ABLE)
def test_rows_are_the_matrix_s(name: str) -> None:
    mixer, x, weights = matrix_of(name)
    count = math.prod(x.shape[1:-1])
    queries = [0, count // 2, count - 1]
    torch.testing.assert_close(attention_rows(mixer, x, queries), weights[:, :, queries], rtol=1e-9, atol=1e-9)
    both = added_rows(mixer, x, [queries])
    torch.testing.assert_close(both[:, :, 0], weights[:, :, queries].sum(2), rtol=1e-9, atol=1e-9)
    if mixer.claims.convex:
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("AFTConv", {"key_per_head": False, "reparametrize": False, "kernel_size": 3, "hidden_dim": 8}),
        ("AFTLocal", {"window": 2, "bias_dim": 3}),
        ("AFTSimple", {"hidden_dim": 4}),
        ("LambdaLayer", {"depth": 3, "kernel_size": 3}),
        ("LambdaLayerGlobal", {"depth": 2, "num_heads": 2}),
    ],
)
def test_channels_and_lambdas_by_other_options(name: str, options: dict[str, object]) -> None:
    mixer = randomised(build_attention({"type": name, **options}, DIM, (3, 4))).eval()
    assert isinstance(mixer, ContextMixer)
    x, context, mask = tensor(2, 3, 4, DIM), tensor(2, 3, 4, DIM, seed=1), random_mask(2, 3, 4)
    assert_stands_for_the_mechanism(mixer, x, context, mask=mask)
    tokens = 12 * options.get("depth", 1)  # type: ignore[operator]
    heads = mixer.num_heads if isinstance(mixer, LambdaMixer) else mixer.hidden_dim
    assert attention_matrix(mixer, x).shape == (2, heads, 12, tokens)
    rows = attention_rows(mixer, x, [0, 7], context, mask)
    torch.testing.assert_close(rows, attention_matrix(mixer, x, context, mask)[:, :, [0, 7]], rtol=1e-9, atol=1e-9)


def test_aft_s_rows_sum_to_the_gate() -> None:
    mixer = randomised(build_attention("AFTFull", DIM, (3, 4))).eval()
    x = tensor(2, 3, 4, DIM)
    sums = attention_matrix(mixer, x).sum(-1)  # [B, D, N]
    gates = (x @ mixer.qkv.weight[:DIM].mT + mixer.qkv.bias[:DIM]).sigmoid().flatten(1, 2).mT
    torch.testing.assert_close(sums, gates, rtol=1e-9, atol=1e-9)


def test_a_lambda_layer_with_a_bias_is_affine_and_refused() -> None:
    mixer = randomised(build_attention({"type": "LambdaLayer", "kernel_size": 3, "kernel_bias": True}, DIM, (3, 4)))
    with pytest.raises(ValueError, match="LambdaLayer is not linear in its values"):
        attention_matrix(mixer, tensor(2, 3, 4, DIM))


def test_softmax_attention_s_matrix_in_loops() -> None:
    mixer, x = randomised(SoftmaxAttention(DIM, num_heads=2)).double(), tensor(1, 3, 4, DIM)
    context, mask = tensor(1, 2, 5, DIM, seed=1), random_mask(1, 2, 5)
    assert isinstance(mixer, SoftmaxAttention)
    weights = attention_matrix(mixer, x, context, mask, chunk=3)
    assert weights.shape == (1, 2, 12, 10)
    qkv = mixer.qkv.weight, mixer.qkv.bias
    for head in range(2):
        for query in range(12):
            q = (qkv[0] @ x.flatten(1, 2)[0, query] + qkv[1])[:DIM][8 * head : 8 * head + 8]
            scores = []
            for key in range(10):
                k = (qkv[0] @ context.flatten(1, 2)[0, key] + qkv[1])[DIM : 2 * DIM][8 * head : 8 * head + 8]
                scores.append(q @ k / math.sqrt(8) if mask.flatten()[key] else torch.tensor(-math.inf).double())
            expected = torch.stack(scores).softmax(0)
            torch.testing.assert_close(weights[0, head, query], expected, rtol=1e-10, atol=1e-10)


def test_the_mechanism_is_as_it_was() -> None:
    mixer, x = made("EfficientAttention")
    mixer.train()
    before = mixer(x)
    attention_matrix(mixer, x)
    assert mixer.training
    assert "attend" not in vars(mixer)
    assert not any(parameter.grad is not None for parameter in mixer.parameters())
    assert torch.equal(mixer(x), before)


@pytest.mark.parametrize("name", ["WindowAttention", "WindowAttentionV2"])
def test_what_padding_takes_up_is_left_out(name: str) -> None:
    options = {"type": name, "window": (4, 4), "shift": (2, 2), "mask_padding": False, "num_heads": 2}
    mixer, x = randomised(build_attention(options, DIM)).eval(), tensor(2, 5, 8, DIM)
    assert isinstance(mixer, QKVAttention)
    bias = getattr(mixer, "v_bias", None)
    with torch.no_grad():  # padding then adds nothing to the output
        (mixer.qkv.bias[2 * DIM :] if bias is None else bias).zero_()
    weights = attention_matrix(mixer, x)
    with attending(mixer, x) as now:
        out = (weights @ output_values(mixer, now.values)).sum(dim=1) + mixer.proj.bias
    torch.testing.assert_close(out.reshape(x.shape), mixer(x), rtol=1e-9, atol=1e-9)
    sums = weights.sum(-1)
    assert sums.max() < 1 + 1e-9
    assert sums.min() < 0.9, "no window has padding, or it was masked"


class SquaredValues(SoftmaxAttention):
    def attend(self, q, k, v, q_grid, kv_grid, mask=None):  # type: ignore[no-untyped-def]
        return super().attend(q, k, v.square(), q_grid, kv_grid, mask)


class OffsetValues(SoftmaxAttention):
    def attend(self, q, k, v, q_grid, kv_grid, mask=None):  # type: ignore[no-untyped-def]
        return super().attend(q, k, v, q_grid, kv_grid, mask) + 1


class FixedWidth(SoftmaxAttention):
    def attend(self, q, k, v, q_grid, kv_grid, mask=None):  # type: ignore[no-untyped-def]
        return super().attend(q, k, v * torch.ones(DIM // 2, dtype=v.dtype), q_grid, kv_grid, mask)


@pytest.mark.parametrize(("kind", "why"), [
    (SquaredValues, "SquaredValues is not linear in its values"),
    (OffsetValues, "OffsetValues is not linear in its values"),
    (FixedWidth, "FixedWidth takes no values but its own"),
])  # fmt: skip
def test_what_is_not_linear_is_refused(kind: type[SoftmaxAttention], why: str) -> None:
    mixer = kind(DIM, num_heads=2).double()
    with pytest.raises(ValueError, match=why):
        attention_matrix(mixer, tensor(1, 3, 4, DIM))
    assert "attend" not in vars(mixer)


def test_mechanisms_that_are_not_linear_are_refused() -> None:
    for name in NOT_LINEAR & set(list_attention()):
        mixer, x = made(name)
        with pytest.raises(ValueError, match=f"{name} is not linear in its values"):
            attention_matrix(mixer, x)


def test_what_has_no_hook_is_refused() -> None:
    for name in set(list_attention()) - set(ABLE) - NOT_LINEAR:
        mixer, x = made(name)
        with pytest.raises(TypeError, match=f"{name} has no attention matrix"):
            attention_rows(mixer, x, [0])


def test_bad_arguments_are_named() -> None:
    mixer, x = made("SoftmaxAttention")
    assert isinstance(mixer, ContextMixer)
    with pytest.raises(ValueError, match="chunk=0 must be 1 or more"):
        attention_matrix(mixer, x, chunk=0)
    with pytest.raises(ValueError, match="query 35 is not on the map, which has the positions 0 to 34"):
        attention_rows(mixer, x, [0, 35])
    assert isinstance(mixer, nn.Module)
