"""Stereo depth estimation; importing this registers its networks."""

from visionattn.stereo.psmnet import PSMNet

__all__ = ["PSMNet"]
