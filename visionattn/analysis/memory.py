"""Memory of a run: what autograd keeps for the backward, and the most that was held at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def saved_bytes(run: Callable[[], object], known: Iterable[Tensor], place: Callable[[], str] = str) -> Counter[str]:
    """Bytes that autograd keeps for a backward while `run` runs, by what `place` says at the time.

    A storage counts once and whole, however many views of it are kept: that is what stays allocated.

    Args:
        run: one forward with gradients.
        known: tensors that are there anyway (parameters, buffers, inputs) and do not count.
        place: names where the next operation belongs.
    """
    seen = {_storage(tensor) for tensor in known}
    kept: Counter[str] = Counter()
    alive = []  # or a storage that was freed could hand its address to the next

    def pack(tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in seen:
            seen.add(storage)
            alive.append(tensor.detach())
            kept[place()] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return kept


def peak_extra_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes that torch's allocator held during `run` beyond those it held before; what run returns included.

    On the CPU from the profiler's allocation events: scratch that BLAS and oneDNN keep to themselves is not in it.
    On CUDA from the allocator's own statistics (not run on a GPU).
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler reports each start and stop
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    held = peak = 0
    recorded = trace.profiler.kineto_results.events()  # type: ignore[union-attr]  # set once the profile has ended
    for event in sorted((e for e in recorded if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def process_peak_bytes() -> int | None:
    """Most memory that this process ever had resident, libraries included; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _storage(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()
