"""mmengine's Runner, reading and writing checkpoints safely; importing this registers what configs name."""

from visionattn.engine.amp import AmpOptimWrapper
from visionattn.engine.checkpoint import CheckpointHook
from visionattn.engine.compile import CompileHook
from visionattn.engine.fsdp import FullyShardedModel
from visionattn.engine.layer_decay import LayerDecayOptimWrapperConstructor
from visionattn.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from visionattn.engine.non_finite import NonFiniteHook
from visionattn.engine.pictures import TestPicturesHook
from visionattn.engine.prediction_pictures import PredictionPicturesHook
from visionattn.engine.report import ReportHook
from visionattn.engine.runner import Runner
from visionattn.engine.sam import SAMAmpOptimWrapper, SAMOptimWrapper
from visionattn.engine.signals import StopOnSignalHook
from visionattn.engine.terminal import LogProcessor, RunSummaryHook

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "CompileHook",
    "EpochBasedTrainLoop",
    "FullyShardedModel",
    "IterBasedTrainLoop",
    "LayerDecayOptimWrapperConstructor",
    "LogProcessor",
    "NonFiniteHook",
    "PredictionPicturesHook",
    "ReportHook",
    "RunSummaryHook",
    "Runner",
    "SAMAmpOptimWrapper",
    "SAMOptimWrapper",
    "StopOnSignalHook",
    "TestPicturesHook",
]
