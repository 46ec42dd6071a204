"""The long-range tasks as data sets: what decides a pixel's class lies far from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from visionattn.data.longrange_folder import write_majority, write_pathfinder
from visionattn.data.majority_pictures import MAJORITY_CLASSES, MAJORITY_PALETTE
from visionattn.data.pathfinder_pictures import PATHFINDER_CLASSES, PATHFINDER_PALETTE
from visionattn.registry import DATASETS
from visionattn.segmentation.public_datasets import Layout, PublicDataset

_LAYOUT = Layout("images/{split}", "masks/{split}", image_suffix=".png")


@DATASETS.register_module()
class MadeUpPathfinder(PublicDataset):
    """Which pixels are on the curve that joins the two dots? A folder that is missing is written first.

    Args:
        split: "training" or "validation".
        train, val, seed, size, curves, hues: of the folder, as of `write_pathfinder`.
        pipeline, test_mode, indices, lazy_init: as of `ImageMaskFolder`.
    Raises:
        FileExistsError: the folder holds something else, or pictures of other arguments.
    """

    METAINFO = {"classes": PATHFINDER_CLASSES, "palette": [list(colour) for colour in PATHFINDER_PALETTE]}
    LAYOUT = _LAYOUT

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        train: int = 3000,
        val: int = 200,
        seed: int = 0,
        size: Sequence[int] = (96, 96),
        curves: int = 3,
        hues: int = 3,
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self._folder: dict[str, Any] = {"train": train, "val": val, "seed": seed, "size": tuple(size)}
        self._folder |= {"curves": curves, "hues": hues}
        super().__init__(data_root, split, pipeline=pipeline, test_mode=test_mode, indices=indices, lazy_init=lazy_init)

    def load_data_list(self) -> list[dict[str, Any]]:
        _announce(self.data_root)
        write_pathfinder(self.data_root, **self._folder)
        return super().load_data_list()


@DATASETS.register_module()
class MadeUpMajority(PublicDataset):
    """Of which colour are most of the marks? Every disc is of that class. A folder that is missing is written first.

    Args:
        split: "training" or "validation".
        train, val, seed, size, discs, marks: of the folder, as of `write_majority`.
        pipeline, test_mode, indices, lazy_init: as of `ImageMaskFolder`.
    Raises:
        FileExistsError: the folder holds something else, or pictures of other arguments.
    """

    METAINFO = {"classes": MAJORITY_CLASSES, "palette": [list(colour) for colour in MAJORITY_PALETTE]}
    LAYOUT = _LAYOUT

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        train: int = 3000,
        val: int = 200,
        seed: int = 0,
        size: Sequence[int] = (96, 96),
        discs: int = 6,
        marks: int = 9,
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self._folder: dict[str, Any] = {"train": train, "val": val, "seed": seed, "size": tuple(size)}
        self._folder |= {"discs": discs, "marks": marks}
        super().__init__(data_root, split, pipeline=pipeline, test_mode=test_mode, indices=indices, lazy_init=lazy_init)

    def load_data_list(self) -> list[dict[str, Any]]:
        _announce(self.data_root)
        write_majority(self.data_root, **self._folder)
        return super().load_data_list()


def _announce(data_root: str) -> None:
    if not Path(data_root).exists():
        print_log(f"writing made-up pictures to {data_root}", logger="current")
