"""An augmented picture beside its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from visionattn.detection.packing import DetectionSample
from visionattn.visualization.objects import object_tile
from visionattn.visualization.sample_view import Pixels, SampleView, sample_view


@sample_view.register
def _detection_view(data_sample: DetectionSample, image: Pixels, metainfo: Mapping[str, Any]) -> SampleView:
    if "boxes" not in data_sample:
        return SampleView((("input", image),), "objects not known", unit="boxes")
    known = [key for key in ("boxes", "labels", "crowd", "masks") if key in data_sample]
    arrays = {key: data_sample.get(key).cpu().numpy() for key in known}
    classes = list(map(str, metainfo["classes"]))
    crowd = arrays["crowd"]
    tile = object_tile(
        image,
        arrays["boxes"],
        arrays["labels"],
        classes,
        palette=metainfo.get("palette"),
        masks=arrays.get("masks"),
        crowd=crowd,
    )
    counts = np.bincount(arrays["labels"][~crowd], minlength=len(classes))
    number, crowds = int(counts.sum()), int(crowd.sum())
    note = f"{number} object{'' if number == 1 else 's'}"
    if crowds:
        note += f", {crowds} crowd{'' if crowds == 1 else 's'}"
    return SampleView(
        (("input", image), ("objects", tile)),
        note,
        dict(zip(classes, counts.tolist(), strict=True)),
        crowds,
        "boxes",
        written=True,
    )
