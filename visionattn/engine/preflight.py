"""What can be wrong with a run and be known before it begins: data, labels, class counts, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import OPTIMIZERS, DefaultScope

from visionattn.engine.config import import_scope
from visionattn.engine.terminal import make_terminal_quiet
from visionattn.registry import DATASETS
from visionattn.weights.loading import find_state_dict, read_checkpoint


def check_config(config: Config, parts: Sequence[str]) -> None:
    """Builds the datasets of a run, has them check themselves, and compares the heads' classes with theirs.

    Args:
        parts: of "train", "val", "test", those that will run; one that the config leaves out is passed over.
    Raises:
        FileNotFoundError, ValueError: what a dataset, a head or the checkpoint has wrong.
    """
    make_terminal_quiet(MMLogger.get_current_instance())
    import_scope(config)
    if config.get("load_from"):
        check_checkpoint(config.load_from)
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmengine")):
        _check_optimizer(config)
        for part in parts:
            loader = config.get(f"{part}_dataloader")
            if not loader:
                continue
            dataset = DATASETS.build(loader["dataset"])
            check_head_classes(config.get("model", {}), dataset)
            if hasattr(dataset, "check"):
                result = dataset.check()
                if is_main_process():
                    print(f"{part}: {result}")


def _check_optimizer(config: Config) -> None:
    """Raises KeyError for a name that mmengine would take for None, and then fail on."""
    name = ((config.get("optim_wrapper") or {}).get("optimizer") or {}).get("type")
    with OPTIMIZERS.switch_scope_and_registry(None) as registry:
        if isinstance(name, str) and registry.get(name) is None:
            raise KeyError(f"{name} is not in the {registry.scope}::{registry.name} registry; check the name")


def check_checkpoint(path: str) -> None:
    """Raises FileNotFoundError or ValueError if a local file holds no weights that may be read."""
    if "://" in str(path):
        return
    checkpoint = read_checkpoint(path)
    try:
        find_state_dict(checkpoint)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_head_classes(model: Mapping[str, Any], dataset: Any) -> None:
    """Raises ValueError if a head of the model's config has not as many classes as the dataset."""
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if classes is None:
        return
    for key, number in _head_classes(model, "model"):
        if number != len(classes):
            names = ", ".join(map(str, classes[:3])) + (", ..." if len(classes) > 3 else "")
            raise ValueError(
                f"{key}={number}, but {type(dataset).__name__} has {len(classes)} classes ({names}); "
                f"set --cfg-options {key}={len(classes)}"
            )


def _head_classes(config: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(config, Mapping):
        if "head" in key and isinstance(config.get("num_classes"), int):
            yield f"{key}.num_classes", config["num_classes"]
        for name, value in config.items():
            yield from _head_classes(value, f"{key}.{name}")
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from _head_classes(value, f"{key}.{index}")
