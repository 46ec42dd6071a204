"""Semantic segmentation on mmseg's models; importing this registers datasets, transforms, metric and hooks."""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional package of its makers is missing
    import mmseg.datasets  # noqa: F401

from visionattn.segmentation.colour_baseline import ColourBaselineHook
from visionattn.segmentation.datasets import ADE20K, CamVid, ImageMaskFolder, MadeUpADE20K
from visionattn.segmentation.metric import IoUMetric
from visionattn.segmentation.pictures import PictureHook
from visionattn.segmentation.pipeline import Albumentations, LoadImage, LoadLabels

__all__ = [
    "ADE20K",
    "Albumentations",
    "CamVid",
    "ColourBaselineHook",
    "ImageMaskFolder",
    "IoUMetric",
    "LoadImage",
    "LoadLabels",
    "MadeUpADE20K",
    "PictureHook",
]
