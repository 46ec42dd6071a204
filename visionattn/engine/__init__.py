"""mmengine's Runner, reading and writing checkpoints safely; importing this registers what configs name."""

from visionattn.engine.runner import Runner

__all__ = ["Runner"]
