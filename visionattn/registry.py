"""Where names in a config are looked up: ATTENTION is ours alone, the others are children of mmengine's roots.

A registry imports its locations one after another, only until the name is found: a detection config does not import
the segmentation package.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from mmengine import registry as roots
from mmengine.registry import Registry

SCOPE = "visionattn"


class LazyRegistry(Registry):
    """A registry that imports its locations one at a time, in order, until a name is found."""

    def __init__(self, name: str, parent: Registry | None, locations: Sequence[str]) -> None:
        super().__init__(name, parent=parent, scope=SCOPE, locations=list(locations))
        self._pending = list(locations)

    def import_from_location(self) -> None:
        """Nothing: `get` imports what it needs."""

    def import_all(self) -> None:
        """Import every location, for listings."""
        while self._pending:
            import_module(self._pending.pop(0))

    def get(self, key: str) -> type | None:
        scope, name = self.split_scope_key(key)
        if scope in (None, self.scope):
            while name not in self._module_dict and self._pending:
                import_module(self._pending.pop(0))
        found: type | None = super().get(key)
        return found


def _child(root: Registry, *locations: str) -> LazyRegistry:
    return LazyRegistry(root.name, root, locations)


ATTENTION = LazyRegistry("attention", None, ["visionattn.attention"])

MODELS = _child(
    roots.MODELS,
    "visionattn.blocks",
    "visionattn.backbones",
    "visionattn.necks",
    "visionattn.stereo",
    "visionattn.detection",
    "visionattn.segmentation",  # last: it imports mmseg
)
DATASETS = _child(roots.DATASETS, "visionattn.stereo", "visionattn.detection", "visionattn.segmentation")
TRANSFORMS = _child(
    roots.TRANSFORMS, "visionattn.data", "visionattn.stereo", "visionattn.detection", "visionattn.segmentation"
)
METRICS = _child(roots.METRICS, "visionattn.stereo", "visionattn.detection", "visionattn.segmentation")
HOOKS = _child(roots.HOOKS, "visionattn.engine", "visionattn.stereo", "visionattn.segmentation")
RUNNERS = _child(roots.RUNNERS, "visionattn.engine")
OPTIM_WRAPPERS = _child(roots.OPTIM_WRAPPERS, "visionattn.engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child(roots.OPTIM_WRAPPER_CONSTRUCTORS, "visionattn.engine")
LOOPS = _child(roots.LOOPS, "visionattn.engine")
MODEL_WRAPPERS = _child(roots.MODEL_WRAPPERS, "visionattn.engine")
DATA_SAMPLERS = _child(roots.DATA_SAMPLERS, "visionattn.detection")
LOG_PROCESSORS = _child(roots.LOG_PROCESSORS, "visionattn.engine")

# Nothing of ours yet, but a Runner in our scope asks these roots for a child, and warns where there is none.
for _root in (
    roots.EVALUATOR,
    roots.FUNCTIONS,
    roots.INFERENCERS,
    roots.OPTIMIZERS,
    roots.PARAM_SCHEDULERS,
    roots.TASK_UTILS,
    roots.VISBACKENDS,
    roots.VISUALIZERS,
    roots.WEIGHT_INITIALIZERS,
):
    _child(_root)
