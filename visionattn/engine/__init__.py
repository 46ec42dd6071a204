"""mmengine's Runner, reading and writing checkpoints safely; importing this registers what configs name."""

from visionattn.engine.amp import AmpOptimWrapper
from visionattn.engine.compile import CompileHook
from visionattn.engine.pictures import TestPicturesHook
from visionattn.engine.runner import Runner
from visionattn.engine.terminal import LogProcessor, RunSummaryHook

__all__ = ["AmpOptimWrapper", "CompileHook", "LogProcessor", "RunSummaryHook", "Runner", "TestPicturesHook"]
