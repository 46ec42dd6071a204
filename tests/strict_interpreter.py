"""Triton's interpreter, stricter: it raises where a kernel does what a GPU would not forgive.

The interpreter runs the programs of a launch one after the other, where a GPU mixes them, and reads any memory: inside,
a kernel may read and write the elements of the tensors that it was given, nothing beside them, and what one program
writes no other may touch. None of that need change a number of the interpreter's. A float that a kernel is given is a
float32 on a GPU, and here too; the interpreter's is Python's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

_NOBODY, _SEVERAL = -1, -2


class Memory:
    """The elements of some tensors, and who has touched them."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._addresses = np.unique(np.concatenate([_addresses(t) for t in tensors]))
        self._reader = np.full(len(self._addresses), _NOBODY)
        self._writer = np.full(len(self._addresses), _NOBODY)

    def read(self, program: int, addresses: np.ndarray) -> str | None:
        """Remembers it; what is wrong with it."""
        if (at := self._places(addresses)) is None:
            return "reads beside the tensors that it was given"
        if (_others(self._writer[at], program)).any():
            return "reads what another program wrote"
        self._reader[at] = np.where(_others(self._reader[at], program), _SEVERAL, program)
        return None

    def write(self, program: int, addresses: np.ndarray) -> str | None:
        """Remembers it; what is wrong with it."""
        if (at := self._places(addresses)) is None:
            return "writes beside the tensors that it was given"
        if len(np.unique(at)) < len(at):
            return "writes one number twice at once"
        if _others(self._writer[at], program).any() or _others(self._reader[at], program).any():
            return "writes what another program wrote or read"
        self._writer[at] = program
        return None

    def _places(self, addresses: np.ndarray) -> np.ndarray | None:
        at = np.searchsorted(self._addresses, addresses)
        inside = at < len(self._addresses)
        return at if inside.all() and (self._addresses[at] == addresses).all() else None


@contextmanager
def strict_interpreter() -> Iterator[None]:
    """Kernels that are launched inside raise RuntimeError where they touch what they may not."""
    from triton import language as tl
    from triton.runtime import interpreter
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

    launch, converted = GridExecutor.__call__, interpreter._implicit_cvt
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    launched: list[tuple[str, Memory]] = []

    def watched_launch(self: Any, *args: Any, **options: Any) -> None:
        tensors = [t for t in (*args, *options.values()) if isinstance(t, Tensor)]
        launched.append((self.fn.__name__, Memory(tensors)))
        try:
            launch(self, *args, **options)
        finally:
            launched.pop()

    def program_of(builder: Any) -> int:
        (x, y, z), (_, height, depth) = builder.grid_idx, builder.grid_dim
        return (x * height + y) * depth + z

    def watched_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        name, memory = launched[-1]
        complain(name, memory.read(program_of(self), pointers.data[mask.data]))
        return load(self, pointers, mask, *rest)

    def watched_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        name, memory = launched[-1]
        complain(name, memory.write(program_of(self), pointers.data[mask.data]))
        return store(self, pointers, value, mask, *rest)

    def complain(name: str, fault: str | None) -> None:
        if fault is not None:
            raise RuntimeError(f"{name} {fault}")

    def in_float32(given: Any) -> Any:
        if not isinstance(given, float):
            return converted(given)
        return tl.tensor(TensorHandle(np.array([given], dtype=np.float32), tl.float32), tl.float32)

    with (
        patch.object(interpreter, "_implicit_cvt", in_float32),
        patch.object(GridExecutor, "__call__", watched_launch),
        patch.object(InterpreterBuilder, "create_masked_load", watched_load),
        patch.object(InterpreterBuilder, "create_masked_store", watched_store),
    ):
        yield


def print_errors(cases: Mapping[str, Mapping[str, Any]], measure: Callable[[Any], object]) -> None:
    """What `measure` finds of the cases that the command line names, by case, as JSON."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns with NaN
    with strict_interpreter():
        found = {name: measure(case) for name, case in cases[sys.argv[1]].items()}
    print(json.dumps(found))


def _addresses(t: Tensor) -> np.ndarray:
    """Of every element."""
    offsets = torch.zeros((), dtype=torch.int64)
    for extent, stride in zip(t.shape, t.stride(), strict=True):
        offsets = offsets[..., None] + torch.arange(extent) * stride
    return (t.data_ptr() + offsets.flatten().numpy() * t.element_size()).astype(np.uint64)


def _others(who: np.ndarray, program: int) -> np.ndarray:
    """Where it is somebody else."""
    return (who != _NOBODY) & (who != program)
