"""Batches of images of like proportions: wide ones with wide ones, so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from visionattn.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class AspectRatioBatches(Sampler[list[int]]):
    """A batch as soon as there are `batch_size` images that are wider than high, or as many that are not.

    In a dataloader, `batch_sampler=dict(type="visionattn.AspectRatioBatches")`; sampler and batch size are the
    dataloader's. What is left at the end of an epoch, too few of either, becomes mixed batches. So every process has as
    many batches as without this.

    Args:
        sampler: of a data set whose `get_data_info` gives `height` and `width`, with wrappers or not.
        batch_size: images.
        drop_last: leaves out a last batch that is smaller.
    Raises:
        ValueError: the data set does not say how large its images are.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r} must be 1 or more")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self._dataset = sampler.dataset
        self._wide: dict[int, bool] = {}

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for index in self.sampler:
            some = waiting[self._is_wide(int(index))]
            some.append(index)
            if len(some) == self.batch_size:
                yield list(some)
                some.clear()
        rest = waiting[True] + waiting[False]
        for begin in range(0, len(rest), self.batch_size):
            batch = rest[begin : begin + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        images = len(self.sampler)
        return images // self.batch_size if self.drop_last else -(-images // self.batch_size)

    def _is_wide(self, index: int) -> bool:
        if index not in self._wide:
            info = self._dataset.get_data_info(index)
            if "height" not in info or "width" not in info:
                raise ValueError(
                    f"{type(self._dataset).__name__} does not say how large its images are: its data list lacks height "
                    "and width, by which AspectRatioBatches sorts; leave the batch_sampler out"
                )
            self._wide[index] = info["width"] >= info["height"]
        return self._wide[index]
