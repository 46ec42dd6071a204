"""Semantic segmentation on mmseg's models; importing this registers datasets, transforms, metric and hooks."""

import contextlib
import io
import warnings

with contextlib.redirect_stdout(io.StringIO()):  # mmseg prints that an optional package of its makers is missing
    import mmseg.datasets  # noqa: F401

from visionattn.segmentation import data_check, sample_view  # noqa: F401  # register how samples are checked, shown
from visionattn.segmentation.attention_head import AttentionHead
from visionattn.segmentation.boundary import BoundaryFMetric
from visionattn.segmentation.colour_baseline import ColourBaselineHook
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.longrange import MadeUpMajority, MadeUpPathfinder
from visionattn.segmentation.losses import CrossEntropyLoss, OhemCrossEntropyLoss
from visionattn.segmentation.losses_overlap import DiceLoss, LovaszLoss
from visionattn.segmentation.lraspp_head import LRASPPHead
from visionattn.segmentation.made_up import MadeUpADE20K
from visionattn.segmentation.metric import IoUMetric
from visionattn.segmentation.pictures import PictureHook
from visionattn.segmentation.pipeline import Albumentations, LoadImage, LoadLabels
from visionattn.segmentation.public_datasets import (
    ADE20K,
    CamVid,
    Cityscapes,
    CityscapesTrainIds,
    COCOStuff10k,
    COCOStuff164k,
    PascalContext59,
    PascalContext60,
    PascalVOC2012,
    PascalVOC2012Aug,
)
from visionattn.segmentation.segmentor import CascadeEncoderDecoder, EncoderDecoder
from visionattn.segmentation.tta import SegTTAModel

# Two classes are no mistake: mmseg suggests its other form, one channel and a threshold.
warnings.filterwarnings("ignore", "For binary segmentation, we suggest using", UserWarning)

__all__ = [
    "ADE20K",
    "Albumentations",
    "AttentionHead",
    "BoundaryFMetric",
    "COCOStuff10k",
    "COCOStuff164k",
    "CamVid",
    "CascadeEncoderDecoder",
    "Cityscapes",
    "CityscapesTrainIds",
    "ColourBaselineHook",
    "CrossEntropyLoss",
    "DiceLoss",
    "EncoderDecoder",
    "ImageMaskFolder",
    "IoUMetric",
    "LRASPPHead",
    "LoadImage",
    "LoadLabels",
    "LovaszLoss",
    "MadeUpADE20K",
    "MadeUpMajority",
    "MadeUpPathfinder",
    "OhemCrossEntropyLoss",
    "PascalContext59",
    "PascalContext60",
    "PascalVOC2012",
    "PascalVOC2012Aug",
    "PictureHook",
    "SegTTAModel",
]
