"""Networks that turn an image into a list of feature maps, and attention put into any of them."""

from visionattn.backbones.inserted import InsertedBackbone
from visionattn.backbones.insertion import insert_attention
from visionattn.backbones.replaced import ReplacedBackbone
from visionattn.backbones.replacement import replace_attention, replacements
from visionattn.backbones.swin import SwinTransformer, SwinTransformerV2
from visionattn.backbones.timm_backbone import TimmBackbone
from visionattn.backbones.vit import VisionTransformer

__all__ = [
    "InsertedBackbone",
    "ReplacedBackbone",
    "SwinTransformer",
    "SwinTransformerV2",
    "TimmBackbone",
    "VisionTransformer",
    "insert_attention",
    "replace_attention",
    "replacements",
]
