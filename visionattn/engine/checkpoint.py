"""A run's checkpoints: which is the newest good one, and none is deleted before its successor is on the disk."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import print_log

from visionattn.registry import HOOKS
from visionattn.weights.durable import read_manifest, remove, remove_leftovers, verify, write_text_durably
from visionattn.weights.reading import read_checkpoint
from visionattn.weights.sharded import INDEX, SUFFIX, is_sharded, open_sharded, verify_sharded
from visionattn.weights.sharded_writing import remove_sharded, remove_unfinished

RESUMABLE = ("meta", "message_hub", "optimizer")
"""What a checkpoint must hold beside weights so that a run can be taken up."""

_RECORD = "last_checkpoint"


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The newest undamaged checkpoint in `work_dir` that a run can be resumed from; None if there is none at all.

    Damaged ones are passed over and named in the log. The one recorded as the last is looked for where it was written
    and in `work_dir`. A copy of a work dir is resumed from its own checkpoints, though its record names the other's.

    Raises:
        ValueError: there are checkpoints, and none of them is good.
    """
    good, reasons = _newest_good(Path(work_dir))
    for reason in reasons:
        print_log(f"passed over: {reason}", logger="current", level=logging.WARNING)
    if good is None and reasons:
        raise ValueError(
            f"no checkpoint in {work_dir} can be resumed from; to begin anew, move them away: {reasons[0]}"
        )
    return good


def good_checkpoint(work_dir: str | Path) -> str | None:
    """What `latest_checkpoint` finds, for messages about something else: None also where no checkpoint is good."""
    return _newest_good(Path(work_dir))[0]


def _newest_good(work_dir: Path) -> tuple[str | None, list[str]]:
    """The path, and what is wrong with newer ones."""
    reasons: list[str] = []
    for path in _candidates(work_dir):
        try:
            if _is_listed(path) or all(key in _content(path) for key in RESUMABLE):
                return str(path), reasons
            reasons.append(f"{path} holds weights only")
        except (ValueError, OSError) as error:
            reasons.append(str(error))
    return None, reasons


def saved_checkpoints(work_dir: str | Path) -> list[Path]:
    """The checkpoints in a work dir, files and folders, by name."""
    folders = (path for path in Path(work_dir).glob(f"*{SUFFIX}") if is_sharded(path))
    return sorted([*Path(work_dir).glob("*.pth"), *folders])


def _is_listed(path: Path) -> bool:
    return verify_sharded(path) if is_sharded(path) else verify(path)


def _content(path: Path) -> dict[str, Any]:
    return open_sharded(path) if is_sharded(path) else read_checkpoint(path)


def _candidates(work_dir: Path) -> list[Path]:
    """The checkpoints that runs have written, the newest first; not by the files' times, which a copy loses."""
    record = work_dir / _RECORD
    text = record.read_text().strip() if record.is_file() else ""
    recorded = [Path(text), work_dir / Path(text).name] if text else []
    if (Path(text).parent / _RECORD).is_file() and any(_is_there(path) for path in [*recorded[1:], *_listed(work_dir)]):
        recorded = recorded[1:]  # a work dir of its own, of which this one is a copy
    found = [path for path in recorded if path not in _listed(path.parent)]
    for folder in dict.fromkeys([*(path.parent for path in recorded), work_dir]):
        found += reversed(_listed(folder))
    return list({path.resolve(): path for path in found if _is_there(path)}.values())


def _listed(folder: Path) -> list[Path]:
    """Those of a folder's manifest, in the order of their writing; the best by a metric lack the optimiser."""
    names = [name.removesuffix(f"/{INDEX}") for name in read_manifest(folder)]  # a sharded one is listed by its index
    return [folder / name for name in names if not name.startswith("best_")]


def _is_there(path: Path) -> bool:
    return path.is_file() or is_sharded(path)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's CheckpointHook, in an order in which no kill loses anything; its options.

    Differs: mmengine deletes the oldest checkpoint and the previous best one first and saves then. A checkpoint from
    before a validation is written again after it, so that resuming does not repeat the validation. A model whose
    wrapper says `sharded_checkpoints` is saved as `iter_N.sharded`, a folder.
    """

    file_backend: Any
    filename_tmpl: str
    last_ckpt: Any
    _saved_step: int | None = None
    _choosing_best = False
    _best_changed = False

    def before_train(self, runner: Any) -> None:
        if getattr(runner.model, "sharded_checkpoints", False):
            if self.out_dir is not None and not _is_local(self.out_dir):
                raise ValueError(
                    f"out_dir={str(self.out_dir)!r}: sharded checkpoints are written to a local folder only"
                )
            self.filename_tmpl = self.filename_tmpl.removesuffix(".pth").removesuffix(SUFFIX) + SUFFIX
        super().before_train(runner)
        if self.max_keep_ckpts > 0:  # after a kill, one more was listed than is to be kept
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        if is_main_process() and _is_local(self.out_dir) and Path(self.out_dir).is_dir():
            remove_leftovers(self.out_dir)
            remove_unfinished(self.out_dir)
        step = runner.epoch if self.by_epoch else runner.iter
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if runner._resume and _same(path, runner._load_from):
            self._saved_step, self.last_ckpt = step, path  # a validation that is made up for belongs into it

    def after_val_epoch(self, runner: Any, metrics: dict[str, Any]) -> None:
        kept = self.file_backend if self.save_best else None
        removed = _RemoveLater(kept)
        if kept is not None:
            self.file_backend = removed
        self._choosing_best = True
        try:
            super().after_val_epoch(runner, metrics)
        finally:
            self._choosing_best = False
            if kept is not None:
                self.file_backend = kept
        best = (getattr(self, "best_ckpt_path", None), *getattr(self, "best_ckpt_path_dict", {}).values())
        for path in removed.paths:
            if path not in best:
                self._remove(path)

    def after_val(self, runner: Any) -> None:
        """Saves again what was saved before the validation, or else what has become the best."""
        if isinstance(runner._train_loop, dict) or runner._train_loop is None:
            return  # a validation without training
        runner.train_loop.validation_due = False
        step = runner.epoch if self.by_epoch else runner.iter
        if self._saved_step == step or (self._best_changed and self.last_ckpt is not None):
            self._save_checkpoint_with_step(runner, step, meta={"epoch": runner.epoch, "iter": runner.iter})
        self._best_changed = False

    def save_now(self, runner: Any, iteration: int) -> str:
        """Saves a run that is about to end after `iteration` iterations, unless it has just been saved; the file."""
        if not self.by_epoch:
            if self._saved_step != iteration:
                self._save_checkpoint_with_step(runner, iteration, meta={"epoch": runner.epoch, "iter": iteration})
            return str(self.last_ckpt)
        name = f"iter_{iteration}{Path(self.filename_tmpl).suffix}"
        meta = {"epoch": runner.epoch, "iter": iteration}
        path = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("interrupted_ckpt", path)
        runner.save_checkpoint(self.out_dir, name, meta=meta, by_epoch=False, backend_args=self.backend_args)
        self._record(runner, path)
        return str(path)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        if self._choosing_best:  # before the hooks that come later have seen the metrics: saved in after_val
            self._best_changed = True
            return
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        too_old = self._outlived(runner, step)
        interrupted = runner.message_hub.runtime_info.pop("interrupted_ckpt", None)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._saved_step = step
        self._record(runner, self.last_ckpt)
        for path in too_old + ([interrupted] if interrupted else []):
            self._remove(path)
        if too_old:
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))

    def _outlived(self, runner: Any, step: int) -> list[str]:
        """Files that go once this step's is on the disk; until then the message hub lists them with those kept."""
        if self.max_keep_ckpts <= 0 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        steps = [*self.keep_ckpt_ids, step]
        runner.message_hub.update_info("keep_ckpt_ids", steps)
        self.keep_ckpt_ids.append(step)  # a deque that drops the first
        old = steps[: -self.max_keep_ckpts]
        return [self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(one)) for one in old]

    def _record(self, runner: Any, path: Any) -> None:
        if is_main_process():
            write_text_durably(str(path), Path(runner.work_dir) / _RECORD)

    def _remove(self, path: Any) -> None:
        if not is_main_process():
            return
        if Path(path).suffix == SUFFIX:
            remove_sharded(path)
        elif _is_local(path):
            remove(path)
        elif self.file_backend.isfile(path):
            self.file_backend.remove(path)


class _RemoveLater:
    """A file backend that only notes what it is to remove."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.paths: list[str] = []

    def remove(self, path: str) -> None:
        self.paths.append(path)

    rmtree = remove

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _same(path: Any, other: Any) -> bool:
    return _is_local(path) and other is not None and Path(path).resolve() == Path(other).resolve()


def _is_local(path: Any) -> bool:
    return "://" not in str(path)
