"""Run as a program under TRITON_INTERPRET=1: what the strict interpreter says of kernels with a fault each, as JSON.

Not a test by itself, as the other programs of this name.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from strict_interpreter import print_errors


@triton.jit
def sound(t_ptr, out_ptr, number):
    at = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(out_ptr + at, tl.load(t_ptr + at, mask=at < 7, other=0.0), mask=at < 7)


@triton.jit
def reads_beside(t_ptr, out_ptr, number):
    at = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(out_ptr + at, 0.0 * tl.load(t_ptr + at), mask=at < 7)


@triton.jit
def writes_beside(t_ptr, out_ptr, number):
    at = tl.program_id(0) * 4 + tl.arange(0, 4)
    tl.store(out_ptr + at, 1.0, mask=at < 8)


@triton.jit
def writes_the_same(t_ptr, out_ptr, number):
    tl.store(out_ptr + tl.arange(0, 4), 1.0)


@triton.jit
def writes_what_the_next_reads(t_ptr, out_ptr, number):
    n = tl.program_id(0)
    tl.store(out_ptr + n + 1, tl.load(out_ptr + n))


@triton.jit
def writes_what_the_last_read(t_ptr, out_ptr, number):
    n = tl.program_id(0)
    tl.store(out_ptr + n, tl.load(out_ptr + n + 1))


@triton.jit
def writes_twice(t_ptr, out_ptr, number):
    tl.store(out_ptr + tl.program_id(0) * 2 + tl.arange(0, 4) // 2, 1.0)


@triton.jit
def a_float(t_ptr, out_ptr, number):
    """37 times 6/37 is less than 6 in float32."""
    tl.store(out_ptr + tl.program_id(0), 37 * number)


KERNELS = (
    sound,
    reads_beside,
    writes_beside,
    writes_the_same,
    writes_what_the_next_reads,
    writes_what_the_last_read,
    writes_twice,
    a_float,
)
CASES = {"all": {kernel.fn.__name__: kernel for kernel in KERNELS}}


def said(kernel: Any) -> Any:
    """The error's last words, or what the kernel wrote."""
    whole = torch.zeros(2, 8)
    try:
        kernel[(2,)](whole[0, :7], whole[1, :7], 6 / 37)
    except Exception as error:
        return str(error)
    return whole[1].tolist()


if __name__ == "__main__":
    print_errors(CASES, said)
