"""mmengine's training loops, begun anywhere: in the middle of an epoch, before a validation that is due."""

from __future__ import annotations

import bisect
from typing import Any

from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop

from visionattn.engine.first_buffers import buffers_of_the_first_process
from visionattn.engine.sampler import batches_from, begin_at
from visionattn.registry import LOOPS


@LOOPS.register_module()
class IterBasedTrainLoop(MMEngineIterBasedTrainLoop):
    """mmengine's, with its options.

    Differs: no data is read for iterations that have been done, whatever the sampler; a validation that the checkpoint
    came before is made up for.

    Attributes:
        validation_due: a validation follows the iterations that are done, and is not done itself.
    """

    validation_due = False

    def run(self) -> Any:
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")  # the whole run counts as one
        self.runner.restore_generators()
        if self.validation_due:
            self._validate()
        _say_if_nothing_is_left(self.runner, "iter", self._iter, self._max_iters)
        if self._iter < self._max_iters and not self.stop_training:
            for batch in batches_from(self.dataloader, self._iter):
                self.runner.model.train()
                self.validation_due = self._validates_after(self._iter + 1)
                self.run_iter(batch)
                self._decide_current_val_interval()
                if self.validation_due:
                    self._validate()
                if self._iter >= self._max_iters or self.stop_training:
                    break
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _validates_after(self, iterations: int) -> bool:
        interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, iterations + 1) - 1]
        on_time = iterations % interval == 0 or iterations == self._max_iters
        return self.runner.val_loop is not None and iterations >= self.val_begin and on_time

    def _validate(self) -> None:
        with buffers_of_the_first_process(self.runner):
            self.runner.val_loop.run()
        self.validation_due = False


@LOOPS.register_module()
class EpochBasedTrainLoop(MMEngineEpochBasedTrainLoop):
    """mmengine's, with its options.

    Differs: begins in the middle of an epoch without reading its data; a validation that the checkpoint came before is
    made up for.

    Attributes:
        validation_due: as of `IterBasedTrainLoop`.
    """

    validation_due = False

    def run(self) -> Any:
        self.runner.call_hook("before_train")
        if self._begun_batches() == 0:
            self.runner.restore_generators()
        if self.validation_due:
            self._validate()
        _say_if_nothing_is_left(self.runner, "epoch", self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self.validation_due:
                self._validate()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        self.runner.call_hook("before_train_epoch")
        self.runner.restore_generators()
        self.runner.model.train()
        done = self._begun_batches()
        begin_at(self.dataloader, self._epoch, done)
        for index, batch in enumerate(self.dataloader, done):
            self.run_iter(index, batch)
        self.validation_due = self._validates_after(self._epoch + 1)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _begun_batches(self) -> int:
        """How much of this epoch is done."""
        return self._iter - self._epoch * len(self.dataloader)

    def _validates_after(self, epochs: int) -> bool:
        interval = self.dynamic_intervals[bisect.bisect(self.dynamic_milestones, epochs + 1) - 1]
        on_time = epochs % interval == 0 or epochs == self._max_epochs
        return self.runner.val_loop is not None and epochs >= self.val_begin and on_time

    def _validate(self) -> None:
        with buffers_of_the_first_process(self.runner):
            self.runner.val_loop.run()
        self.validation_due = False


def _say_if_nothing_is_left(runner: Any, unit: str, done: int, most: int) -> None:
    """Where a resumed run's checkpoint is at its end or past it."""
    name = {"iter": "iteration"}.get(unit, unit)
    if done == most > 0:
        runner.logger.info(f"the run is finished: {done} of {most} {name}s; to go on, raise train_cfg.max_{unit}s")
    elif done > most:
        runner.logger.warning(
            f"the checkpoint is at {name} {done} of {most}: nothing is left to train; raise train_cfg.max_{unit}s"
        )
