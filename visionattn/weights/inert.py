"""What a weights file may hold beside tensors and plain data, rebuilt by code that can do nothing else.

numpy's own pickling functions are not on the list: a pickled dtype sets its own flags, so that raw bytes of the file
become object pointers. Arrays and scalars of numbers are rebuilt here from their bytes instead.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

_NUMBERS = "biufc"


class _Dtype:
    """Stands for numpy.dtype in a pickle: the code of a number type and its byte order, nothing else."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self._code = str(code)
        self._order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype = np.dtype(self._code)
        if dtype.kind not in _NUMBERS:
            raise ValueError(f"a numpy array of {dtype} (only numbers are read)")
        ordered: np.dtype[Any] = dtype.newbyteorder(">" if self._order == ">" else "<")
        return ordered


class _Array(np.ndarray):
    """An array whose state is set from bytes only; pickles as a plain array."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise ValueError("a numpy array that is not made of numbers")
        # numpy itself checks that data has as many bytes as the shape asks for.
        super().__setstate__((1, shape, dtype.dtype, fortran, data))

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


def _reconstruct(subtype: type, shape: tuple[int, ...], code: bytes) -> _Array:
    empty: _Array = _Array((0,), np.uint8)
    return empty


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype, count=1)[0]


INERT_TYPES: dict[str, Callable[..., Any]] = {
    "argparse.Namespace": Namespace,  # timm's training checkpoints keep their arguments in one
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
}
"""The name in the file -> what is called for it."""
