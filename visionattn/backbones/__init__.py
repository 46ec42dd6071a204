"""Networks that turn an image into a list of feature maps, and attention inserted into any of them."""

from visionattn.backbones.inserted import InsertedBackbone
from visionattn.backbones.insertion import insert_attention
from visionattn.backbones.swin import SwinTransformer
from visionattn.backbones.timm_backbone import TimmBackbone

__all__ = ["InsertedBackbone", "SwinTransformer", "TimmBackbone", "insert_attention"]
