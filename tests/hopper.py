"""Kernels compiled for sm_90 (H100, H200) or another on a machine without a GPU: registers, spills, shared memory.

A launcher is called with tensors of the CPU while launches are recorded instead of made; each is then compiled as
Triton would on its first launch, and the assembled kernel is asked for its resources.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LARGEST_SHARED = {80: 163 * 1024, 86: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
"""Bytes per block, by compute capability: A100, other Ampere and Ada, H100, Blackwell as in GeForce."""


class Resources(NamedTuple):
    registers: int
    spilled: int  # bytes of a thread's own memory
    shared: int  # bytes


def compiled(
    launcher: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capability: int = 90
) -> dict[str, Resources]:
    """What each kernel that the launcher launches takes, by the kernel's name; skips without Triton or its tools."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend
    from triton.runtime.jit import JITFunction, create_function_from_signature

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not (tool.with_name("ptxas").exists() and tool.exists()):
        pytest.skip("this Triton comes without ptxas and cuobjdump")
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(
        JITFunction, "run", lambda kernel, *args, grid, warmup, **kwargs: launches.append((kernel, args, kwargs))
    )
    launcher()
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    found = {}
    for kernel, args, kwargs in launches:
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        bound, specialization, rest = bind(*args, **kwargs)
        options, signature, constants, attributes = kernel._pack_args(backend, kwargs, bound, specialization, rest)
        source = ASTSource(kernel, signature, constants, attributes)
        made = triton.compile(source, target=target, options=options.__dict__)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(made.asm["cubin"])
            file.flush()
            usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        numbers = {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", usage)}
        found[kernel.__name__] = Resources(
            numbers["REG"], numbers["STACK"] + numbers["LOCAL"], max(numbers["SHARED"], made.metadata.shared)
        )
    return found
