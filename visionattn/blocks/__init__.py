"""Where a mechanism is plugged in: residual, norm, drop path and layer scale live here and only here."""

from visionattn.blocks.cross_view import CrossViewBlock
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.blocks.query_aggregator import QueryAggregator
from visionattn.blocks.transformer import ResPostNormTransformerBlock, TransformerBlock

__all__ = ["AttentionPlugin", "CrossViewBlock", "QueryAggregator", "ResPostNormTransformerBlock", "TransformerBlock"]
