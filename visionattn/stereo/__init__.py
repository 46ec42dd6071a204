"""Stereo depth estimation; importing this registers its networks, losses and transforms."""

from visionattn.stereo.gmstereo import GMStereo
from visionattn.stereo.gwcnet import GwcNet
from visionattn.stereo.losses import SequenceL1Loss, SequenceSmoothL1Loss, WeightedSmoothL1Loss
from visionattn.stereo.matcher import StereoMatcher
from visionattn.stereo.metric import DisparityMetric
from visionattn.stereo.packing import PackStereo, StereoSample
from visionattn.stereo.pictures import DisparityPictureHook
from visionattn.stereo.preprocessor import StereoPreprocessor
from visionattn.stereo.psmnet import PSMNet
from visionattn.stereo.raft_stereo import RAFTStereo
from visionattn.stereo.scene_flow import FlyingThings3DSubset, SceneFlow
from visionattn.stereo.transforms_colour import StereoColour
from visionattn.stereo.transforms_flip import StereoHorizontalFlip, StereoVerticalFlip
from visionattn.stereo.transforms_right_view import RightEraser, RightRowShift, RightTilt
from visionattn.stereo.transforms_scale import StereoRandomScale, StereoResize
from visionattn.stereo.transforms_window import StereoBottomRightCrop, StereoCenterCrop, StereoPad, StereoRandomCrop

__all__ = [
    "DisparityMetric",
    "DisparityPictureHook",
    "FlyingThings3DSubset",
    "GMStereo",
    "GwcNet",
    "PSMNet",
    "PackStereo",
    "RAFTStereo",
    "RightEraser",
    "RightRowShift",
    "RightTilt",
    "SceneFlow",
    "SequenceL1Loss",
    "SequenceSmoothL1Loss",
    "StereoBottomRightCrop",
    "StereoCenterCrop",
    "StereoColour",
    "StereoHorizontalFlip",
    "StereoMatcher",
    "StereoPad",
    "StereoPreprocessor",
    "StereoRandomCrop",
    "StereoRandomScale",
    "StereoResize",
    "StereoSample",
    "StereoVerticalFlip",
    "WeightedSmoothL1Loss",
]
