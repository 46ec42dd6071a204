"""Made-up scenes with boxes and masks as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from visionattn.data.coco_scenes import write_coco
from visionattn.data.made_up_folder import RECORD
from visionattn.detection.coco import CocoDetection, Pipeline
from visionattn.detection.coco_json import CocoJson
from visionattn.registry import DATASETS

_SPLITS = ("train", "val")


@DATASETS.register_module()
class MadeUpCoco(CocoDetection):
    """Made-up scenes in COCO's layout; a tree that is missing is written first, at its usual size.

    A tree of another size: `visionattn data synth coco OUT`.

    Args:
        data_root: the tree's folder.
        split: "train" or "val".
        The others: as of `CocoDetection`.
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        *,
        classes: Sequence[str] | None = None,
        with_masks: bool = False,
        keep_empty: bool = True,
        pipeline: Pipeline = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        skip_bad: bool = False,
        lazy_init: bool = False,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split={split!r} is none of {', '.join(map(repr, _SPLITS))}")
        super().__init__(
            data_root,
            f"annotations/instances_{split}.json",
            split,
            classes=classes,
            with_masks=with_masks,
            keep_empty=keep_empty,
            pipeline=pipeline,
            test_mode=test_mode,
            indices=indices,
            skip_bad=skip_bad,
            lazy_init=lazy_init,
        )

    def annotations(self) -> CocoJson:
        if not (Path(self.data_root) / RECORD).is_file():
            print_log(f"writing made-up scenes to {self.data_root}", logger="current")
            write_coco(self.data_root)
        return super().annotations()
