"""Object detection and instance segmentation on torchvision's detectors; importing this registers models and data."""

from visionattn.detection import (  # noqa: F401  # register how samples are checked and shown
    data_check,
    pictures,
    sample_view,
)
from visionattn.detection.batches import AspectRatioBatches
from visionattn.detection.coco import CocoDetection
from visionattn.detection.dense_heads import FCOSHead, RetinaNetHead
from visionattn.detection.detector import Detector
from visionattn.detection.lvis_metric import LvisMetric
from visionattn.detection.made_up import MadeUpCoco
from visionattn.detection.metric import CocoMetric
from visionattn.detection.packing import DetectionSample, PackDetection
from visionattn.detection.preprocessor import DetectionPreprocessor
from visionattn.detection.rcnn_head import RCNNHead
from visionattn.detection.transforms import DetectionAugment
from visionattn.detection.voc import VOCDetection

__all__ = [
    "AspectRatioBatches",
    "CocoDetection",
    "CocoMetric",
    "DetectionAugment",
    "DetectionPreprocessor",
    "DetectionSample",
    "Detector",
    "FCOSHead",
    "LvisMetric",
    "MadeUpCoco",
    "PackDetection",
    "RCNNHead",
    "RetinaNetHead",
    "VOCDetection",
]
