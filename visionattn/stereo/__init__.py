"""Stereo depth estimation; importing this registers its networks and transforms."""

from visionattn.stereo.gwcnet import GwcNet
from visionattn.stereo.packing import PackStereo, StereoSample
from visionattn.stereo.psmnet import PSMNet

__all__ = ["GwcNet", "PSMNet", "PackStereo", "StereoSample"]
