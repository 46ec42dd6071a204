"""Whether the forms of a case give one answer and one set of gradients: what is not shown to be equal is not timed."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionattn.analysis.kernel_bench.case import Case, Form

TWICE = 2.0
"""Ours errs at most so many times as plain PyTorch in that dtype does."""

OF_A_PEER = 10.0
"""So much more is granted to others: they are compared for their equation, not for their digits."""


def mistakes(case: Case, forms: Sequence[Form], device: torch.device) -> tuple[dict[str, float], list[str]]:
    """The largest error of each form of the case's equation, and a line for each form that errs too much.

    One image is answered and differentiated in the case's dtype, and once in float64 by the plain form: the truth. An
    error is the largest difference in units of the truth's largest number.

    Args:
        forms: ours is the first.
    """
    inputs = case.inputs(1, torch.Generator(device).manual_seed(11))
    errors: dict[str, float] = {}
    complaints = []
    truths: dict[int, tuple[dict[str, Tensor], dict[str, float]]] = {}
    for form in forms:
        if not form.same:
            continue
        reference = forms[0].module if form.truth is None else form.truth
        if id(reference) not in truths:
            truths[id(reference)] = _truth(reference, inputs)
        truth, plain = truths[id(reference)]
        found = answers(form, inputs)
        floor = max(torch.finfo(case.dtype).eps, 2e-6)
        errors[form.name] = 0.0
        for what in truth.keys() & found.keys():
            error = _error(found[what], truth[what])
            allowed = max(TWICE * plain[what], floor) * (1 if form.own else OF_A_PEER)
            errors[form.name] = max(errors[form.name], error)
            if not error <= allowed:
                complaints.append(f"{form.name} errs by {error:.1e} in {what}, where {allowed:.1e} is allowed")
    return errors, complaints


def answers(form: Form, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The answer, and the gradients of a weighted sum of it: those of the inputs and of the form's weights by name."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = form(*leaves)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(12)).to(out)
    named = {f"the gradient of input {number}": leaf for number, leaf in enumerate(leaves)}
    named |= {f"the gradient of {name}": p for name, p in form.module.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(out, list(named.values()), weights)
    return {"the answer": out.detach(), **dict(zip(named, gradients, strict=True))}


def _truth(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """In float64, and how far plain PyTorch is from it in the inputs' dtype."""
    exact = answers(Form("truth", copy.deepcopy(module).double()), [t.double() for t in inputs])
    plain = answers(Form("plain", module), inputs)
    return exact, {what: _error(plain[what], exact[what]) for what in exact}


def _error(found: Tensor, truth: Tensor) -> float:
    if found.shape != truth.shape:
        return float("inf")
    largest = truth.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((found.double() - truth).abs().max() / largest)
