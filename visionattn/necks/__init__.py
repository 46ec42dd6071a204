"""What stands between a backbone and a head: a list of maps in, a list of maps out."""

from visionattn.necks.extra_levels import LastLevelMaxPool, LastLevelP6P7
from visionattn.necks.fpn import FPN
from visionattn.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ["FPN", "LastLevelMaxPool", "LastLevelP6P7", "SimpleFeaturePyramid"]
