"""What a person sees of a run: a summary, progress, results. The log file has everything."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Set
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import LogProcessor as MMEngineLogProcessor

from visionattn.registry import HOOKS, LOG_PROCESSORS

# Beginnings of mmengine's messages that go to the log file alone.
_FILE_ONLY = (
    "\n---",  # environment
    "Config:",
    "Distributed training is not used",
    "Hooks will be executed",
    "Exp name:",
    "Checkpoints will be saved to",
    "Loads checkpoint by",
    "Saving checkpoint at",
    "Advance dataloader",
    "paramwise_options --",
    "Auto resumed from",
    "The previous best checkpoint",
    # mmengine's CheckpointHook warns of its own calls.
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    "The prefix is not set in metric class",
)

# An evaluation that ends in less than ten seconds needs no progress.
_SHORT_EVALUATION = re.compile(r"(val|test) .*ETA 0:00:0\d$")


def make_terminal_quiet(logger: MMLogger) -> None:
    """Leaves what only a file needs to the logger's file, and prints the rest without time and origin."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(_TerminalFormatter())
            handler.addFilter(_for_people)


class _TerminalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def _for_people(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not (text.startswith(_FILE_ONLY) or _SHORT_EVALUATION.match(text))


@LOG_PROCESSORS.register_module()
class LogProcessor(MMEngineLogProcessor):
    """One short line per report: position, loss, learning rate, time, images a second, the share of the time that the
    loader kept the model waiting, time left. Every scalar goes to scalars.json.
    """

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict[str, Any], str]:
        tag, _ = super().get_log_after_iter(runner, batch_idx, mode)
        values = {name.removeprefix(f"{mode}/"): value for name, value in tag.items()}
        parts = [self._position(runner, batch_idx, mode)]
        if "loss" in values:
            parts.append(f"loss {values['loss']:.4f}")
        if mode == "train" and "lr" in values:
            parts.append(f"lr {values['lr']:.2e}")
        if values.get("time"):
            parts.append(f"{values['time']:.3f} s/it")
            images = _batch_size(runner, mode) * runner.world_size
            if images:
                parts.append(f"{images / values['time']:.1f} img/s")
            # Waiting for the loader: a large share says that it starves the model.
            parts.append(f"data {values.get('data_time', 0) / values['time']:.0%}")
        if "memory" in values:
            parts.append(f"{values['memory'] / 1024:.1f} GiB")
        if "eta" in runner.message_hub.runtime_info:
            parts.append(f"ETA {timedelta(seconds=int(runner.message_hub.get_info('eta')))}")
        return tag, "  ".join(parts)

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict[str, Any], str]:
        tag, _ = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        return tag, f"{mode}  {metric_line(tag, mode, _printed(runner, mode))}"

    def _position(self, runner: Any, batch_idx: int, mode: str) -> str:
        if mode == "train" and not self.by_epoch:
            done, total = runner.iter + 1, runner.max_iters
        else:
            done, total = batch_idx + 1, self._get_dataloader_size(runner, mode)
        position = f"{done:>{len(str(total))}}/{total}"
        if mode == "train" and self.by_epoch:
            return f"train epoch {runner.epoch + 1}/{runner.max_epochs}  {position}"
        return f"{mode:<5} {position}"


def _batch_size(runner: Any, mode: str) -> int:
    """Images a process takes at once; 0 where the loader does not say."""
    loader = getattr(runner, f"{mode}_dataloader")
    given = getattr(loader, "batch_size", None)
    return given or getattr(getattr(loader, "batch_sampler", None), "batch_size", None) or 0


def _printed(runner: Any, mode: str) -> set[str]:
    """What the metrics print by themselves."""
    metrics = getattr(runner, f"{mode}_evaluator").metrics
    return {
        f"{metric.prefix}/{name}" if metric.prefix else name
        for metric in metrics
        for name in getattr(metric, "printed", ())
    }


def metric_line(metrics: Mapping[str, Any], mode: str, printed: Set[str] = frozenset()) -> str:
    """The numbers of a finished evaluation, but for those that were printed already: "mAcc 88.00  aAcc 92.10"."""
    shown = []
    for name, value in metrics.items():
        name = name.removeprefix(f"{mode}/")
        if name in printed:
            continue
        if isinstance(value, int | float) and name not in ("time", "data_time", "iter", "epoch"):
            shown.append(f"{name} {value:.4g}" if abs(value) < 1 else f"{name} {value:.2f}")
    return "  ".join(shown) or "no metrics"


@HOOKS.register_module()
class RunSummaryHook(Hook):
    """Says once, before the first iteration, what runs where on what."""

    def before_train(self, runner: Any) -> None:
        train, val = runner.train_dataloader, runner.val_loop and runner.val_dataloader
        data = f"train {len(train.dataset)}" + (f", val {len(val.dataset)}" if val else "")
        batch = _batch_size(runner, "train") or None
        by_epoch = getattr(runner._train_loop, "_max_epochs", 1) > 1
        runner.logger.info(
            _table(
                config=_config_name(runner),
                model=_parameters(runner),
                device=_device(runner),
                data=f"{data}; batch {batch}, {train.num_workers} workers",
                schedule=f"{runner.max_epochs} epochs" if by_epoch else f"{runner.max_iters} iterations",
                **{"work dir": _shown_path(runner.work_dir)},
            )
        )

    def before_test(self, runner: Any) -> None:
        runner.logger.info(
            _table(
                config=_config_name(runner),
                model=_parameters(runner),
                device=_device(runner),
                data=f"test {len(runner.test_dataloader.dataset)}",
                **{"work dir": _shown_path(runner.work_dir)},
            )
        )


def _table(**rows: str) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def _config_name(runner: Any) -> str:
    return _shown_path(runner.cfg.filename) if runner.cfg.filename else runner.experiment_name


def _shown_path(path: str | Path) -> str:
    """Relative to the current folder where it lies below it."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _parameters(runner: Any) -> str:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = "" if trained == total else f", {trained:,} trained"
    return f"{type(model).__name__}, {total:,} parameters{frozen}"


def _device(runner: Any) -> str:
    device = next((p.device for p in runner.model.parameters()), torch.device("cpu"))
    many = f", {runner.world_size} processes" if runner.world_size > 1 else ""
    if device.type != "cuda":
        return f"{device.type}, {torch.get_num_threads()} threads{many}"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    return f"{torch.cuda.get_device_name(device)} ({memory:.0f} GiB){many}"
