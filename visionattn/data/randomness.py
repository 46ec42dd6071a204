"""Where the random numbers of a sample come from.

albumentations keeps generators of its own: they ignore `np.random.seed`, every forked loader worker inherits the same
copy, and `set_random_seed` gives each transform of a pipeline the same numbers. So each sample gets fresh ones here.
"""

from __future__ import annotations

import random

import numpy as np
from torch import distributed
from torch.utils.data import get_worker_info

_worker_streams: dict[int, np.random.Generator] = {}


def sample_seed() -> int:
    """A seed for one sample: repeated by the run's seed, other in every worker, in every epoch and on every rank."""
    worker = get_worker_info()
    if worker is None:
        rank = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
        return int(np.random.SeedSequence([np.random.randint(2**31), rank]).generate_state(1, np.uint64)[0])
    if worker.seed not in _worker_streams:
        # worker.seed is new in every epoch but the same on every rank; numpy's global state is the other way round.
        _worker_streams.clear()
        _worker_streams[worker.seed] = np.random.default_rng([worker.seed, np.random.randint(2**31)])
    return int(_worker_streams[worker.seed].integers(2**63))


def generators(seed: int) -> tuple[np.random.Generator, random.Random]:
    """The two generators that albumentations takes, of one seed."""
    return np.random.default_rng(seed), random.Random(seed)
