"""Whether the forms of a case give one answer and one set of gradients: what is not shown to be equal is not timed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from visionattn.analysis.kernel_bench.case import Case, Form

TWICE = 2.0
"""Ours errs at most so many times as plain PyTorch in that dtype does."""

OF_A_PEER = 10.0
"""So much more is granted to others: they are compared for their equation, not for their digits."""


class Truth(NamedTuple):
    """Answer and gradients in float64, and how far plain PyTorch is from each in the dtype that is judged."""

    exact: dict[str, Tensor]
    of_plain: dict[str, float]


class Verdict(NamedTuple):
    """What a comparison says of a case's forms.

    Attributes:
        errors: the largest of each form of the case's equation.
        complaints: a line for each form that errs too much.
        failed: by name of those that could not be run, the reason.
    """

    errors: dict[str, float]
    complaints: list[str]
    failed: dict[str, str]


def compared(case: Case, forms: Sequence[Form], device: torch.device) -> Verdict:
    """Ours in the case's dtype, and others too: these again in float32 where they keep fewer digits in half precision.

    One image is answered and differentiated, and once in float64 by the plain form: the truth. An error is the largest
    difference in units of the truth's largest number.

    Args:
        forms: ours is the first.
    """
    inputs = case.inputs(1, torch.Generator(device).manual_seed(11))
    verdict = Verdict({}, [], {})
    truths: dict[tuple[int, torch.dtype], Truth] = {}

    def judged(form: Form, dtype: torch.dtype) -> tuple[float, list[str]]:
        reference = forms[0].module if form.truth is None else form.truth
        given = [t.to(dtype) for t in inputs]
        key = id(reference), dtype
        if key not in truths:
            truths[key] = _truth(_in(reference, dtype, case.dtype), given)
        return _judged(replace(form, module=_in(form.module, dtype, case.dtype)), given, truths[key])

    for form in forms:
        if not form.same:
            continue
        try:
            error, complaints = judged(form, case.dtype)
            if complaints and not form.own and torch.finfo(case.dtype).bits < 32:
                error, complaints = judged(form, torch.float32)
        except RuntimeError as failure:
            if form.own:
                raise
            verdict.failed[form.name] = (str(failure).strip().splitlines() or [type(failure).__name__])[0][:200]
            continue
        verdict.errors[form.name] = error
        verdict.complaints.extend(complaints)
    return verdict


def answers(form: Form, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The answer, and the gradients of a weighted sum of it: those of the inputs and of the form's weights by name."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = form(*leaves)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(12)).to(out)
    named = {f"the gradient of input {number}": leaf for number, leaf in enumerate(leaves)}
    named |= {f"the gradient of {name}": p for name, p in form.module.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(out, list(named.values()), weights)
    return {"the answer": out.detach(), **dict(zip(named, gradients, strict=True))}


def _in(module: nn.Module, dtype: torch.dtype, own: torch.dtype) -> nn.Module:
    return module if dtype == own else copy.deepcopy(module).to(dtype)


def _judged(form: Form, inputs: Sequence[Tensor], truth: Truth) -> tuple[float, list[str]]:
    """The largest error, and a line for each tensor that errs too much."""
    found = answers(form, inputs)
    floor = max(torch.finfo(inputs[0].dtype).eps, 2e-6)
    largest, complaints = 0.0, []
    for what, exact in truth.exact.items():
        if what not in found:  # a weight that others store in another form
            continue
        error = _error(found[what], exact)
        allowed = max(TWICE * truth.of_plain[what], floor) * (1 if form.own else OF_A_PEER)
        largest = max(largest, error)
        if not error <= allowed:
            complaints.append(f"{form.name} errs by {error:.1e} in {what}, where {allowed:.1e} is allowed")
    return largest, complaints


def _truth(module: nn.Module, inputs: Sequence[Tensor]) -> Truth:
    exact = answers(Form("truth", copy.deepcopy(module).double()), [t.double() for t in inputs])
    plain = answers(Form("plain", module), inputs)
    return Truth(exact, {what: _error(plain[what], exact[what]) for what in exact})


def _error(found: Tensor, truth: Tensor) -> float:
    if found.shape != truth.shape:
        return float("inf")
    largest = truth.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((found.double() - truth).abs().max() / largest)
