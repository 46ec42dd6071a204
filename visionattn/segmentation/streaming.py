"""A metric as a sum over images: its memory is one tensor, its value the same for any batch size and process count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather, all_reduce, get_rank
from mmengine.evaluator import BaseMetric
from torch import Tensor

from visionattn.data.dealing import all_lists, dealt, repeated


class StreamingMetric(BaseMetric):
    """Adds up one tensor of integers an image; integers, because their sum does not depend on the order.

    A sampler gives every process as many images, so the last ones of some processes are repetitions. They are known
    only at the end, when the size of the dataset is told: each process holds its last image back until then.

    What grows with the number of images is one small dict each, `results`; `scores` says what is in it.

    Args:
        prefix: goes before the names, as "prefix/mIoU".
    """

    def __init__(self, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self._sum: Tensor | None = None
        self._last: Tensor | None = None

    @abstractmethod
    def zero(self) -> Tensor:
        """The sum over no image: int64, of the shape that `count` gives."""

    @abstractmethod
    def count(self, sample: dict[str, Any]) -> Tensor:
        """One image's share of the sum, int64, on the CPU.

        Args:
            sample: gt_sem_seg and pred_sem_seg, {"data": [1, H, W]}, and the files' names.
        """

    @abstractmethod
    def scores(self, sample: dict[str, Any], counted: Tensor) -> dict[str, Any]:
        """What is kept of one image: its file and its own scores, as JSON can say it."""

    @abstractmethod
    def means(self, total: Tensor, images: list[dict[str, Any]]) -> dict[str, float]:
        """The metric of the whole dataset; called in every process with the same arguments.

        Args:
            total: the sum over all images.
            images: the `scores` of each, in the order of the dataset.
        """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        for sample in data_samples:
            counted = self.count(sample)
            self._add_last()
            self._last = counted
            self.results.append(self.scores(sample, counted))

    def evaluate(self, size: int) -> dict[str, float]:
        """The metric over all processes, and a fresh start.

        Args:
            size: images in the dataset.
        Raises:
            ValueError: a process has seen more than one image too many, which no sampler of mmengine makes.
        """
        numbers = [int(number) for number in all_gather(torch.tensor(len(self.results)))]
        repetitions = repeated(numbers, size)
        if max(repetitions) > 1:
            raise ValueError(
                f"{sum(numbers)} images were evaluated of a dataset of {size}; evaluate each once: "
                'sampler=dict(type="DefaultSampler", shuffle=False)'
            )
        if repetitions[get_rank()]:
            self._last = None
            self.results.pop()
        self._add_last()
        total = self.zero() if self._sum is None else self._sum
        all_reduce(total)
        means = self.compute_metrics([total, dealt(all_lists(self.results, all_gather))])
        self._sum = self._last = None
        self.results.clear()
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in means.items()}

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """mmengine's name for `means`."""
        return self.means(*results)

    def _add_last(self) -> None:
        if self._last is not None:
            self._sum = self._last if self._sum is None else self._sum.add_(self._last)
            self._last = None
