"""Causal forms: the equation token by token, golden vectors, and no word from the future."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import tensor
from torch import Tensor

from visionattn.ops.causal_attention import (
    causal_efficient_attention,
    causal_linear_attention,
    causal_performer,
)
from visionattn.ops.feature_attention import favor_exponents, linear_attention, orthogonal_projection

PROJECTION = orthogonal_projection(6, 4, torch.Generator().manual_seed(0)).double()
FORMS = {
    "efficient": causal_efficient_attention,
    "linear": causal_linear_attention,
    "performer": partial(causal_performer, projection=PROJECTION),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
LENGTH = 150  # more than two chunks of 64, and no multiple of 64 or of 16


def inputs(length: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    return tensor(2, 2, length, 4), tensor(2, 2, length, 4, seed=1), tensor(2, 2, length, 3, seed=2)


def token_by_token(weights: Callable[[Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each token's answer from a cut-off sequence, of [B, heads, 1, D] and [B, heads, i, D]."""
    return torch.cat(
        [weights(q[:, :, i : i + 1], k[:, :, : i + 1]) @ v[:, :, : i + 1] for i in range(q.shape[2])], dim=2
    )


def efficient_weights(q: Tensor, k: Tensor) -> Tensor:
    return q.softmax(-1) @ k.softmax(-2).mT


def performer_weights(q: Tensor, k: Tensor) -> Tensor:
    phi_q, phi_k = (favor_exponents(t, PROJECTION).exp() for t in (q, k))
    weights = phi_q @ phi_k.mT
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize(("name", "weights"), [("efficient", efficient_weights), ("performer", performer_weights)])
def test_equals_answers_from_cut_off_sequences(name: str, weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    leaves = [t.requires_grad_() for t in inputs()]
    out, wanted = FORMS[name](*leaves), token_by_token(weights, *leaves)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    w = tensor(*out.shape, seed=5)
    grads, expected = (torch.autograd.grad((t * w).sum(), leaves) for t in (out, wanted))
    torch.testing.assert_close(grads, expected, rtol=1e-9, atol=1e-10)


def test_linear_equals_its_answers_from_cut_off_sequences() -> None:
    q, k, v = inputs()
    wanted = [linear_attention(q[:, :, i : i + 1], k[:, :, : i + 1], v[:, :, : i + 1]) for i in range(LENGTH)]
    torch.testing.assert_close(causal_linear_attention(q, k, v), torch.cat(wanted, dim=2), rtol=1e-10, atol=1e-10)


@every_form
@pytest.mark.parametrize("place", [1, 63, 64, 149])
def test_a_later_token_changes_nothing_before_it(form: Callable[..., Tensor], place: int) -> None:
    q, k, v = inputs()
    before = form(q, k, v)
    for changed in (q, k, v):
        changed[:, :, place:] *= -3
    after = form(q, k, v)
    torch.testing.assert_close(after[:, :, :place], before[:, :, :place], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[:, :, place:], before[:, :, place:])


@every_form
def test_finite_where_keys_grow_by_hundreds(form: Callable[..., Tensor]) -> None:
    q, k, v = (t.float() for t in inputs())
    k = (k * torch.linspace(1, 300, LENGTH)[:, None]).requires_grad_()
    out = form(q, k, v)
    (gradient,) = torch.autograd.grad(out.sum(), k)
    assert out.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "case", golden("attention", "derived_efficient_attention", lambda row: row["kwargs"].get("causal", False))
)
def test_golden_causal_efficient_attention(case: Golden) -> None:
    heads, leaves = case.kwargs["heads"], case.leaves("in")
    q, k, v = (leaves[name].unflatten(-1, (heads, -1)).transpose(1, 2) for name in "qkv")
    out = causal_efficient_attention(q, k, v).transpose(1, 2).flatten(2)
    assert_golden(case, out, leaves, {}, tol=1e-10)
