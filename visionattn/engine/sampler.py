"""A loader whose batches are a function of the seed and of their number, however many workers make them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from visionattn.data.randomness import Draw, make_samples
from visionattn.engine.signals import outlive_signals


class Draws:
    """A sampler's indices as numbered draws; the sampler itself decides what is drawn.

    Args:
        sampler: one that is shuffled must do so by its own `seed` and epoch, as mmengine's do. With `skip(number)`, as
            mmengine's InfiniteSampler has it, it counts as endless.
        seed: of the samples' random numbers.
    """

    def __init__(self, sampler: Any, seed: int) -> None:
        self.sampler = sampler
        self.seed = seed
        self.endless = hasattr(sampler, "skip")
        self._epoch = 0
        self._begin = 0
        self._rank, self._world_size = get_dist_info()

    def begin_at(self, epoch: int, index: int) -> None:
        """The next iteration is that of `epoch`, without its first `index` draws."""
        self._epoch, self._begin = epoch, index
        if self.endless:
            self.sampler.skip(index)
        elif hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        begin, self._begin = self._begin, 0
        indices = iter(self.sampler) if self.endless else islice(self.sampler, begin, None)
        # Numbers count on through epochs, and differ between ranks.
        for number, index in enumerate(indices, self._epoch * len(self) + begin):
            seed = (self.seed, number * self._world_size + self._rank)
            yield Draw(index, seed) if isinstance(index, int) else index

    def __len__(self) -> int:
        return len(self.sampler)


class _Batches:
    """A batch sampler that can begin later: it leaves out indices, and nothing is loaded for them."""

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler
        self.sampler: Draws = batch_sampler.sampler
        self.batch_size: int | None = getattr(batch_sampler, "batch_size", None)
        self.drop_last = bool(getattr(batch_sampler, "drop_last", False))
        self._begin = 0

    def begin_at(self, epoch: int, batch: int) -> None:
        plain = type(self.batch_sampler) is BatchSampler
        self.sampler.begin_at(epoch, batch * self.batch_sampler.batch_size if plain else 0)
        self._begin = 0 if plain else batch

    def __iter__(self) -> Iterator[list[Any]]:
        begin, self._begin = self._begin, 0
        return islice(iter(self.batch_sampler), begin, None)

    def __len__(self) -> int:
        return len(self.batch_sampler)


def make_repeatable(loader: DataLoader[Any], seed: int) -> None:
    """From here on, the loader's batches are a function of `seed` and of their number.

    A loader that does not make batches of a map-style dataset's samples stays as it is.
    """
    batch_sampler: Any = loader.batch_sampler
    if isinstance(batch_sampler, _Batches | None) or isinstance(loader.dataset, IterableDataset):
        return
    batch_sampler.sampler = Draws(batch_sampler.sampler, seed)
    # DataLoader refuses a new batch_sampler; this one draws what the old one does.
    object.__setattr__(loader, "batch_sampler", _Batches(batch_sampler))
    # torch asks a dataset for whole batches where it has this.
    loader.dataset.__getitems__ = partial(make_samples, loader.dataset)  # type: ignore[attr-defined]
    # Workers' own seeds come from here, not from the stream that dropout draws from.
    loader.generator = torch.Generator().manual_seed(seed)
    loader.worker_init_fn = partial(outlive_signals, loader.worker_init_fn)


def batches_from(loader: DataLoader[Any], number: int) -> Iterator[Any]:
    """The loader's batches without end, beginning with the `number`-th of a run; none before it is loaded.

    Raises:
        ValueError: the loader is empty.
    """
    endless = isinstance(loader.batch_sampler, _Batches) and loader.batch_sampler.sampler.endless
    epoch, first = (0, number) if endless else divmod(number, len(loader) or 1)
    while True:
        begin_at(loader, epoch, first)
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise ValueError(f"the training loader has no batch: {len(loader.dataset)} samples")  # type: ignore[arg-type]
        epoch, first = epoch + 1, 0


def begin_at(loader: DataLoader[Any], epoch: int, batch: int) -> None:
    """The loader's next iteration is that of `epoch`, without its first `batch` batches; none of them is loaded."""
    if isinstance(loader.batch_sampler, _Batches):
        loader.batch_sampler.begin_at(epoch, batch)


def seeds(loader: DataLoader[Any]) -> dict[str, int]:
    """The seeds that the loader's draws come from, for a checkpoint."""
    if not isinstance(loader.batch_sampler, _Batches):
        return {}
    draws = loader.batch_sampler.sampler
    order = getattr(draws.sampler, "seed", None)
    return {"samples": draws.seed, **({} if order is None else {"order": order})}


def set_seeds(loader: DataLoader[Any], found: dict[str, int]) -> None:
    """Draws as the loader did that `seeds` was asked of; to be called before the first batch."""
    if isinstance(loader.batch_sampler, _Batches) and found:
        draws = loader.batch_sampler.sampler
        draws.seed = found["samples"]
        if "order" in found:
            draws.sampler.seed = found["order"]
