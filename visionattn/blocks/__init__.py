"""Where a mechanism is plugged in: residual, norm, drop path and layer scale live here and only here."""

from visionattn.blocks.plugin import AttentionPlugin

__all__ = ["AttentionPlugin"]
