"""Stereo depth estimation; importing this registers its networks, losses and transforms."""

from visionattn.stereo import data_check, sample_view  # noqa: F401  # register how pairs are checked, shown
from visionattn.stereo.compact import CompactStereo
from visionattn.stereo.constant_baseline import ConstantBaselineHook
from visionattn.stereo.gmstereo import GMStereo
from visionattn.stereo.gwcnet import GwcNet
from visionattn.stereo.kitti import KITTI2012, KITTI2015
from visionattn.stereo.losses import SequenceL1Loss, SequenceSmoothL1Loss, WeightedSmoothL1Loss
from visionattn.stereo.made_up import FreshMadeUpStereo, MadeUpStereo
from visionattn.stereo.matcher import StereoMatcher
from visionattn.stereo.metric import DisparityMetric
from visionattn.stereo.middlebury import Middlebury2003, Middlebury2006, Middlebury2014, MiddleburyV3
from visionattn.stereo.packing import PackStereo, StereoSample
from visionattn.stereo.pair_list import PairList
from visionattn.stereo.pictures import DisparityPictureHook
from visionattn.stereo.preprocessor import StereoPreprocessor
from visionattn.stereo.psmnet import PSMNet
from visionattn.stereo.public_pairs import ETH3D, CREStereo, InStereo2K, Sintel
from visionattn.stereo.raft_stereo import RAFTStereo
from visionattn.stereo.scene_flow import FlyingThings3DSubset, SceneFlow
from visionattn.stereo.submission import ETH3DSubmission, KITTI2012Submission, KITTI2015Submission, MiddleburySubmission
from visionattn.stereo.transforms_colour import StereoColour
from visionattn.stereo.transforms_flip import StereoHorizontalFlip, StereoVerticalFlip
from visionattn.stereo.transforms_right_view import RightEraser, RightRowShift, RightTilt
from visionattn.stereo.transforms_scale import StereoRandomScale, StereoResize
from visionattn.stereo.transforms_window import StereoBottomRightCrop, StereoCenterCrop, StereoPad, StereoRandomCrop

__all__ = [
    "ETH3D",
    "KITTI2012",
    "KITTI2015",
    "CREStereo",
    "CompactStereo",
    "ConstantBaselineHook",
    "DisparityMetric",
    "DisparityPictureHook",
    "ETH3DSubmission",
    "FlyingThings3DSubset",
    "FreshMadeUpStereo",
    "GMStereo",
    "GwcNet",
    "InStereo2K",
    "KITTI2012Submission",
    "KITTI2015Submission",
    "MadeUpStereo",
    "Middlebury2003",
    "Middlebury2006",
    "Middlebury2014",
    "MiddleburySubmission",
    "MiddleburyV3",
    "PSMNet",
    "PackStereo",
    "PairList",
    "RAFTStereo",
    "RightEraser",
    "RightRowShift",
    "RightTilt",
    "SceneFlow",
    "SequenceL1Loss",
    "SequenceSmoothL1Loss",
    "Sintel",
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
