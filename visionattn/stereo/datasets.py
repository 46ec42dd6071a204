"""Stereo pairs as a data set: what those of every layout share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from logging import WARNING
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from visionattn.stereo.inspection import inspect_pairs
from visionattn.stereo.layouts import Listing
from visionattn.stereo.samples import PairFiles, RawSample, read_pair
from visionattn.stereo.truth import TruthFormat

Transforms = Sequence[dict[str, Any] | Callable[..., Any]]


class StereoPairs(BaseDataset):
    """Pairs from files; a subclass says where they lie (`find_pairs`) and how their truth is written (TRUTH).

    Args:
        data_root: the folder that the layout begins in.
        split: which part, by a name in SPLITS.
        right_disparity: reads the right images' disparity too, which a flip that swaps the views needs.
        transforms: of the raw sample (`samples.RawSample`), as config dicts or callables.
        test_mode: evaluation; never replaces a sample.
        indices: the first n pairs, or those of these positions.
        skip_bad: reads every file once before the first access, and leaves out and counts the pairs that cannot be
            used; otherwise the first of them ends the run where it is met.
        lazy_init: leaves the files alone until the first access.
    Raises:
        FileNotFoundError: a folder, or a file of a pair, is missing.
        ValueError: another split; no disparity of right images; there is no pair.
    """

    SPLITS: tuple[str, ...]
    TRUTH: TruthFormat
    KNOWS_RIGHT = True
    """Whether there are disparity maps of the right images."""

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        right_disparity: bool = False,
        transforms: Transforms = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.skip_bad = skip_bad
        self.skipped: list[str] = []  # a line about each pair that was left out
        self.split = one_of("split", split, self.SPLITS)
        if right_disparity and not self.KNOWS_RIGHT:
            name = type(self).__name__
            raise ValueError(f"{name} knows the disparity of left images only; leave right_disparity=True out")
        self.right_disparity = right_disparity
        super().__init__(
            data_root=str(data_root),
            data_prefix={},
            pipeline=list(transforms),
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )

    @property
    def truth(self) -> TruthFormat:
        """How the truth is written: TRUTH, unless that depends on the data set's options."""
        return self.TRUTH

    @abstractmethod
    def find_pairs(self) -> Listing:
        """All pairs, and what is missing.

        Raises:
            FileNotFoundError: a folder or a list is missing.
        """

    def load_data_list(self) -> list[dict[str, Any]]:
        """mmengine's data list: the fields of `PairFiles`."""
        found = self.find_pairs()
        if found.missing and not self.skip_bad:
            more = len(found.missing) - 1
            also = f" and {more:,} more (`visionattn data check` lists them)" if more else ""
            raise FileNotFoundError(
                f"{type(self).__name__} lacks {found.missing[0]}{also}; fetch what is missing, or leave such pairs out "
                "by skip_bad=True"
            )
        pairs = self._usable(found) if self.skip_bad else found.pairs
        if not pairs:
            bad = f", and cannot use: {self.skipped[0]}" if self.skipped else ""
            name = type(self).__name__
            raise ValueError(f"{name} found no pair in {self.data_root!r}; look at data_root and split{bad}")
        return [files._asdict() for files in pairs]

    def _usable(self, found: Listing) -> list[PairFiles]:
        """Those of the pairs that can be read; what is wrong with the others is noted in `skipped` and logged."""
        looked_at = list(zip(found.pairs, inspect_pairs(found.pairs, self.truth, decode=True), strict=True))
        self.skipped = [f"no {file}" for file in found.missing]
        self.skipped += [inspected.problem for _, inspected in looked_at if inspected.problem]
        if self.skipped:
            left_out = found.total - sum(not inspected.problem for _, inspected in looked_at)
            print_log(
                f"{type(self).__name__} leaves out {left_out:,} of {found.total:,} pairs that cannot be used: "
                f"{self.skipped[0]}" + (f", and {len(self.skipped) - 1:,} more" if len(self.skipped) > 1 else ""),
                logger="current",
                level=WARNING,
            )
        return [files for files, inspected in looked_at if not inspected.problem]

    def chosen(self, pairs: Sequence[PairFiles]) -> list[PairFiles]:
        """Those of all pairs that `indices` names."""
        if self._indices is None:
            return list(pairs)
        if isinstance(self._indices, int):
            return list(pairs[: self._indices] if self._indices >= 0 else pairs[self._indices :])
        return [pairs[index] for index in self._indices]

    def files(self, index: int) -> PairFiles:
        """Where a pair lies."""
        info = self.get_data_info(index)
        return PairFiles(**{field: info[field] for field in PairFiles._fields})

    def raw(self, index: int) -> RawSample:
        """A pair as it is read, before any transform."""
        return read_pair(self.files(index), self.truth)

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
