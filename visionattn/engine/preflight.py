"""What can be wrong with a run and be known before it begins: data, labels, class counts, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import OPTIMIZERS, DefaultScope

from visionattn.data.findings import check_files
from visionattn.engine.config import import_scope
from visionattn.engine.data_check import build_to_look_at, head_class_findings, leaf_datasets
from visionattn.engine.plugin_check import check_plugins
from visionattn.engine.terminal import make_terminal_quiet
from visionattn.weights.reading import find_state_dict, read_checkpoint

_QUICK = 2000
_MOST_NAMES = 8


def check_config(config: Config, parts: Sequence[str]) -> None:
    """Looks at the data of a run, up to 2,000 samples of each data set, and compares the heads' classes with theirs.

    Args:
        parts: of "train", "val", "test", those that will run; one that the config leaves out is passed over.
    Raises:
        FileNotFoundError, ValueError: what is wrong with the checkpoint, or first of all with the data; how much more.
        KeyError, TypeError: a name or an option in the config that nothing knows.
    """
    make_terminal_quiet(MMLogger.get_current_instance())
    import_scope(config)
    if config.get("load_from"):
        check_checkpoint(config.load_from)
    check_plugins(config.get("model"))
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmengine")):
        _check_optimizer(config)
        for part in parts:
            loader = config.get(f"{part}_dataloader") or {}
            for leaf in leaf_datasets(loader.get("dataset")):
                _check_dataset(config, part, leaf)


def _check_dataset(config: Config, part: str, leaf: Mapping[str, Any]) -> None:
    dataset = build_to_look_at(leaf)
    _check_heads(config, dataset)
    report = check_files(dataset, limit=_QUICK)
    errors = [finding for finding in report.findings if finding.level == "error"]
    if errors:
        more = sum(max(1, len(finding.cases)) for finding in errors) - 1
        listed = f" (and {more} more; `visionattn data check` lists all)" if more else ""
        raise ValueError(f"{part}: {errors[0]}{listed}")
    _check_heads(config, dataset)  # some data sets know their classes once their files are read
    if is_main_process():
        print(f"{part}: {report.summary}")
        for finding in report.findings:
            named, more = finding.cases[:_MOST_NAMES], len(finding.cases) - _MOST_NAMES
            listed = ", ".join(named) + (f" ... and {more} more" if more > 0 else "")
            print(f"{part}: warning: {finding.message}" + (f" ({listed})" if listed else ""))


def _check_heads(config: Config, dataset: Any) -> None:
    """Raises ValueError where a head has another number of classes than the data set, if that knows its own yet."""
    heads = head_class_findings(config.get("model") or {}, dataset)
    if heads:
        raise ValueError(str(heads[0]))


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
