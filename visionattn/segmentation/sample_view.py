"""An augmented picture beside its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmseg.structures import SegDataSample

from visionattn.segmentation.labels import IGNORE
from visionattn.visualization.panels import label_tile
from visionattn.visualization.sample_view import Pixels, SampleView, sample_view


@sample_view.register
def _segmentation_view(data_sample: SegDataSample, image: Pixels, metainfo: Mapping[str, Any]) -> SampleView:
    if "gt_sem_seg" not in data_sample:
        return SampleView((("input", image),), "no labels")
    labels = data_sample.gt_sem_seg.data[0].cpu().numpy()
    classes = list(map(str, metainfo["classes"]))
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)
    present = int((counts[: len(classes)] > 0).sum())
    note = f"{present} class{'' if present == 1 else 'es'}"
    if counts[IGNORE]:
        share = counts[IGNORE] / labels.size
        note += f", {share:.0%} ignored" if share >= 0.01 else ", < 1% ignored"
    tile = label_tile(image, labels, len(classes), metainfo.get("palette"), IGNORE)
    return SampleView(
        (("input", image), ("labels", tile)),
        note,
        dict(zip(classes, counts[: len(classes)].tolist(), strict=True)),
        int(counts[IGNORE]),
    )
