"""Where the random numbers of a sample come from.

A sampler hands out `Draw`s: an index and the seed of what is drawn there. Whoever makes the sample, this process or any
worker, puts python's, numpy's and torch's generators at that seed for as long as it takes: a sample is a function of
(seed, draw number), whatever the number of workers and whatever was drawn before.

albumentations keeps generators of its own: they ignore `np.random.seed`, every forked loader worker inherits the same
copy, and `set_random_seed` gives each transform of a pipeline the same numbers. So each sample gets fresh ones here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.utils.data import get_worker_info

_worker_streams: dict[int, np.random.Generator] = {}
_within_a_draw = False


class Draw(int):
    """A sample's index with the seed of the random numbers that it is made with."""

    seed: tuple[int, ...]

    def __new__(cls, index: int, seed: tuple[int, ...]) -> Draw:
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:  # type: ignore[override]
        return int(self), self.seed


def make_samples(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """The dataset's samples at `indices`, each `Draw` among them with its own random numbers."""
    samples = []
    for index in indices:
        if isinstance(index, Draw):
            with seeded(index.seed):
                samples.append(dataset[int(index)])
        else:
            samples.append(dataset[index])
    return samples


@contextmanager
def seeded(seed: Sequence[int]) -> Iterator[None]:
    """python's, numpy's and torch's CPU generators begin at `seed` here, and afterwards go on as if undisturbed."""
    global _within_a_draw
    before = random.getstate(), np.random.get_state(), torch.get_rng_state(), _within_a_draw
    words = np.random.SeedSequence(list(seed)).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)
    # torch.manual_seed would reach for every GPU too.
    torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
    _within_a_draw = True
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        _within_a_draw = before[3]


def sample_seed() -> int:
    """A seed for one use within a sample: the draw's, or else the run's, then other in every worker, epoch and rank."""
    if _within_a_draw:
        return int(np.random.randint(2**63 - 1, dtype=np.int64))
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
