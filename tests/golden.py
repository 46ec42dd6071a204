"""Golden vectors: inputs, parameters, outputs and gradients recorded from the official implementations.

They lie outside this repository, under $VISIONATTN_GOLDEN or ../shared/golden. A test adapts a whole family from
index.json, so that more or fewer files of a family pass without new code. A file whose row says what the reference does
unasked is met a second time with a row that leaves it unsaid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_defaults import without_defaults
from torch import Tensor

ROOT = Path(os.environ.get("VISIONATTN_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden")


@dataclass(frozen=True)
class Golden:
    """One file of golden vectors and its row in index.json."""

    path: Path
    row: dict[str, Any]

    @property
    def args(self) -> list[Any]:
        return self.row["args"]

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.row["kwargs"]

    @cached_property
    def _arrays(self) -> dict[str, Tensor]:
        with np.load(self.path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors named `prefix.*` ("in", "param", "buffer", "grad", "pgrad"), without the prefix."""
        return {key[len(prefix) + 1 :]: t for key, t in self._arrays.items() if key.startswith(prefix + ".")}

    def leaves(self, prefix: str) -> dict[str, Tensor]:
        """`group(prefix)` as tensors that collect a gradient."""
        return {key: t.clone().requires_grad_() for key, t in self.group(prefix).items()}

    @property
    def out(self) -> Tensor:
        return self._arrays["out"]

    @property
    def w(self) -> Tensor:
        """The fixed weights of the scalar sum(out * w) whose gradients were recorded."""
        return self._arrays["w"]


def golden(folder: str, family: str, keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> list[Any]:
    """Parameters for `@pytest.mark.parametrize("case", golden("attention", family))`: every file of the family.

    Those that say a default come twice, as `name` and as `name-unsaid`.

    Args:
        folder: "attention" or "stereo".
        family: as in index.json.
        keep: which rows of the family the test is about.
    """
    index = ROOT / folder / "index.json"
    if not index.is_file():
        return _skipped(f"no golden vectors at {ROOT}: set VISIONATTN_GOLDEN")
    rows = {name: row for name, row in json.loads(index.read_text()).items() if row["family"] == family}
    unsaid = {name: without_defaults(row) for name, row in rows.items()}
    cases = [
        pytest.param(Golden(path, row), id=case)
        for name in rows
        if (path := index.parent / f"{name}.npz").is_file()
        for case, row in ((name, rows[name]), (f"{name}-unsaid", unsaid[name]))
        if keep(row) and (case == name or row != rows[name])
    ]
    return cases or _skipped(f"no golden file of family {family} in {index.parent}")


def _skipped(reason: str) -> list[Any]:
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


def assert_golden(case: Golden, out: Tensor, inputs: dict[str, Tensor], params: dict[str, Tensor], tol: float) -> None:
    """The output and every recorded gradient agree within tol, relative to the largest recorded number.

    Args:
        out: our output, shaped as the golden one.
        inputs: our leaf tensors by the golden input's name.
        params: our leaf tensors by the golden parameter's name (values already set from the file).
        tol: largest |ours - golden| / max(1, largest |golden|).
    """
    wanted = {f"grad.{k}": (g, inputs.get(k)) for k, g in case.group("grad").items()}
    wanted |= {f"pgrad.{k}": (g, params.get(k)) for k, g in case.group("pgrad").items()}
    assert wanted, f"{case.path.name} records no gradient"
    missing = [name for name, (_, leaf) in wanted.items() if leaf is None]
    assert not missing, f"the adapter has no tensor for {missing}"
    assert out.shape == case.out.shape
    errors = {"out": _error(out, case.out)}
    grads = torch.autograd.grad((out * case.w).sum(), [leaf for _, leaf in wanted.values()])
    for (name, (golden_grad, _)), grad in zip(wanted.items(), grads, strict=True):
        errors[name] = _error(grad.reshape(golden_grad.shape), golden_grad)
    worst = {name: error for name, error in errors.items() if not error <= tol}
    assert not worst, f"{case.path.stem}: {worst} exceed {tol}"


def _error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.detach() - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()
