"""Stereo pairs as a data set: what those of every layout share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset

from visionattn.stereo.layouts import Listing
from visionattn.stereo.samples import PairFiles, RawSample, read_pair
from visionattn.stereo.truth import TruthFormat

Transforms = Sequence[dict[str, Any] | Callable[..., Any]]


class StereoPairs(BaseDataset):
    """Pairs from files; a subclass says where they lie (`find_pairs`) and how their truth is written (TRUTH).

    Args:
        root: the folder that the layout begins in.
        split: which part, by a name in SPLITS.
        right_disparity: reads the right images' disparity too, which a flip that swaps the views needs.
        transforms: of the raw sample (`samples.RawSample`), as config dicts or callables.
        test_mode: evaluation; never replaces a sample.
        indices: the first n pairs, or those of these positions.
        lazy_init: leaves the files alone until the first access.
    Raises:
        FileNotFoundError: a folder, or a file of a pair, is missing.
        ValueError: another split; there is no pair.
    """

    SPLITS: tuple[str, ...]
    TRUTH: TruthFormat

    def __init__(
        self,
        root: str,
        split: str,
        *,
        right_disparity: bool = False,
        transforms: Transforms = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self.split = one_of("split", split, self.SPLITS)
        self.right_disparity = right_disparity
        super().__init__(
            data_root=str(root),
            data_prefix={},
            pipeline=list(transforms),
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )

    @abstractmethod
    def find_pairs(self) -> Listing:
        """All pairs, and what is missing.

        Raises:
            FileNotFoundError: a folder or a list is missing.
        """

    def load_data_list(self) -> list[dict[str, Any]]:
        """mmengine's data list: the fields of `PairFiles`."""
        found = self.find_pairs()
        if found.missing:
            more = len(found.missing) - 1
            also = f" and {more:,} more (`visionattn data check` lists them)" if more else ""
            raise FileNotFoundError(f"{type(self).__name__} lacks {found.missing[0]}{also}; fetch what is missing")
        if not found.pairs:
            raise ValueError(f"{type(self).__name__} found no pair in {self.data_root}; look at root and split")
        return [files._asdict() for files in found.pairs]

    def files(self, index: int) -> PairFiles:
        """Where a pair lies."""
        info = self.get_data_info(index)
        return PairFiles(**{field: info[field] for field in PairFiles._fields})

    def raw(self, index: int) -> RawSample:
        """A pair as it is read, before any transform."""
        return read_pair(self.files(index), self.TRUTH)

    def prepare_data(self, idx: int) -> Any:
        """A pair after the transforms."""
        return self.pipeline(self.raw(idx))


def one_of(option: str, given: str, allowed: Sequence[str] | Mapping[str, Any]) -> str:
    """The option's value.

    Raises:
        ValueError: it is none of those allowed.
    """
    if given not in allowed:
        raise ValueError(f"{option}={given!r} is none of {', '.join(map(repr, allowed))}")
    return given
