"""Counts the multiply-accumulates of one forward as it runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from visionattn.analysis.op_macs import formula_of, may_multiply


@dataclass
class Macs:
    """Multiply-accumulates of one forward.

    Attributes:
        total: of all operations.
        by_place: by what `place` said while each operation ran.
        uncounted: calls of operations that may multiply and have no formula, by name.
    """

    total: int = 0
    by_place: Counter[str] = field(default_factory=Counter)
    uncounted: Counter[str] = field(default_factory=Counter)


def count_macs(run: Callable[[], object], place: Callable[[], str] = str) -> Macs:
    """The multiply-accumulates of `run`, without gradients.

    Under inference mode scaled_dot_product_attention is seen whole, before a backend is chosen: the count is that of
    the math backend wherever it runs.

    Args:
        run: one forward.
        place: names where the next operation belongs.
    """
    counter = _Counter(place)
    fast_path = torch.backends.mha.get_fastpath_enabled()  # one opaque operation for nn.TransformerEncoderLayer
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.inference_mode(), counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.macs


@contextmanager
def published_form() -> Iterator[None]:
    """Mechanisms take no shortcut inside: what is counted is the published formula, the same on every device."""
    before = os.environ.get("VISIONATTN_KERNELS")
    os.environ["VISIONATTN_KERNELS"] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ["VISIONATTN_KERNELS"]
        else:
            os.environ["VISIONATTN_KERNELS"] = before


class _Counter(TorchDispatchMode):
    supports_higher_order_operators = True

    def __init__(self, place: Callable[[], str]) -> None:
        super().__init__()
        self.macs = Macs()
        self._place = place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket if isinstance(func, OpOverload) else func
        formula = formula_of(packet)
        if formula is None and isinstance(func, OpOverload):
            with self:  # inference mode shows what is made of other operations whole: take it apart
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if formula is not None:
            options = {name: value for name, value in kwargs.items() if name != "out"}
            macs = formula(out, *args, **options)
            self.macs.total += macs
            self.macs.by_place[self._place()] += macs
        elif isinstance(func, HigherOrderOperator) or may_multiply(packet):
            self.macs.uncounted[str(packet)] += 1
        return out
