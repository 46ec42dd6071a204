"""Pairs that a text file lists: one's own, or a public set in another tree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from visionattn.registry import DATASETS
from visionattn.stereo.datasets import StereoPairs, Transforms
from visionattn.stereo.layouts import Listing, listing
from visionattn.stereo.samples import PairFiles
from visionattn.stereo.truth import TruthFormat, read_disparity


@DATASETS.register_module()
class PairList(StereoPairs):
    """The pairs of a list: a line is `left right`, `left right disparity` or `left right disparity right_disparity`.

    White space parts the files, or tabs alone where a line has any; empty lines and those that begin with # are passed
    over. Maps are .pfm or .npy in pixels, or images of whole numbers. A map without any value above 0 is taken for the
    negative displacement and turned round.

    Args:
        ann_file: the list, relative to `data_root` unless it lies beside the working directory.
        data_root: the folder that the files' paths are relative to.
        png_scale, png_bits: steps per pixel of disparity in images, and their depth; KITTI's if left out.
        zero_is_unknown: of .pfm and .npy; in images 0 always is. Infinity always is.
        The others: as of `StereoPairs`.
    """

    SPLITS = ("list",)

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        *,
        png_scale: float = 256.0,
        png_bits: int = 16,
        zero_is_unknown: bool = True,
        right_disparity: bool = False,
        transforms: Transforms = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.list_file = Path(ann_file) if Path(ann_file).is_file() else Path(data_root, ann_file)
        self._truth = TruthFormat(
            partial(read_disparity, scale=png_scale, bits=png_bits, zero_is_unknown=zero_is_unknown)
        )
        super().__init__(
            data_root,
            "list",
            right_disparity=right_disparity,
            transforms=transforms,
            test_mode=test_mode,
            indices=indices,
            skip_bad=skip_bad,
            lazy_init=lazy_init,
        )

    @property
    def truth(self) -> TruthFormat:
        return self._truth

    def find_pairs(self) -> Listing:
        if not self.list_file.is_file():
            raise FileNotFoundError(f"no list {self.list_file}; it holds `left right disparity` on each line")
        return listing(self._pairs())

    def _pairs(self) -> list[PairFiles]:
        pairs = []
        for number, line in enumerate(self.list_file.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            files = [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]
            wanted = (4,) if self.right_disparity else (2, 3, 4)
            if len(files) not in wanted:
                raise ValueError(
                    f"{self.list_file}, line {number} names {len(files)} files; expected "
                    + ("left right disparity right_disparity" if self.right_disparity else "left right disparity")
                    + ", parted by blanks, or by tabs where names hold blanks"
                )
            left, right, *maps = (str(Path(self.data_root, file)) for file in files)
            pairs.append(
                PairFiles(
                    name=Path(files[0]).with_suffix("").as_posix().lstrip("./"),
                    left=left,
                    right=right,
                    disparity=maps[0] if maps else None,
                    right_disparity=maps[1] if self.right_disparity else None,
                )
            )
        return pairs
