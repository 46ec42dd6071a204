"""Made-up scenes as a data set."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log

from visionattn.data.ade20k_scenes import is_written, write_ade20k
from visionattn.data.scenes import SCENE_CLASSES, SCENE_PALETTE
from visionattn.registry import DATASETS
from visionattn.segmentation.public_datasets import ADE20K


@DATASETS.register_module()
class MadeUpADE20K(ADE20K):
    """Made-up scenes in ADE20K's layout; a tree that is missing is written first, at its usual size.

    A tree of another size: `visionattn data synth ade20k OUT`.
    """

    METAINFO = {"classes": SCENE_CLASSES, "palette": [list(color) for color in SCENE_PALETTE]}

    def load_data_list(self) -> list[dict[str, Any]]:
        if not is_written(self.data_root):
            print_log(f"writing made-up scenes to {self.data_root}", logger="current")
            write_ade20k(self.data_root)
        return super().load_data_list()
