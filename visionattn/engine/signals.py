"""A run that is asked to stop saves first: SIGTERM (a scheduler's, a container's) and SIGUSR1 (SLURM's warning)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import EMAHook, Hook

from visionattn.engine.checkpoint import CheckpointHook
from visionattn.engine.launch import leave_processes
from visionattn.registry import HOOKS

STOPPED = 143
"""Exit code of a run that saved because it was asked to stop: 128 + SIGTERM."""

_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """Saves after the iteration in which SIGTERM or SIGUSR1 came, and ends the process with exit code 143.

    All processes of a run stop after the same iteration. During a validation a run of one process saves at once, and
    validates when it is resumed; one of several goes on to the next iteration. A second signal changes nothing.
    """

    priority = "LOWEST"  # behind all that an iteration is followed by

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # python sets handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def after_train(self, runner: Any) -> None:
        self.put_back()

    def put_back(self) -> None:
        """The signals mean again what they meant before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if self._agreed(runner):
            self._stop(runner, runner.iter + 1)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.received is None or not self._before or get_world_size() > 1:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook._swap_ema_parameters()  # a validation runs on the averaged weights
        self._stop(runner, runner.iter)

    def _note(self, number: int, frame: Any) -> None:
        self.received = number

    def _agreed(self, runner: Any) -> bool:
        if get_world_size() == 1:
            return self.received is not None
        flag = torch.tensor(int(self.received is not None))
        all_reduce(flag, "max")
        return bool(flag)

    def _stop(self, runner: Any, iterations: int) -> None:
        name = "another process's signal" if self.received is None else signal.Signals(self.received).name
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if hook is None:
            runner.logger.warning(f"stopped by {name} after iteration {iterations}; no CheckpointHook: nothing saved")
        else:
            path = hook.save_now(runner, iterations)
            runner.logger.info(f"stopped by {name} after iteration {iterations}: saved {path}; --resume auto goes on")
        leave_processes()  # together: torchrun ends the others when the first is gone, and one of them may be saving
        raise SystemExit(STOPPED)


def outlive_signals(initialise: Callable[[int], None] | None, worker: int) -> None:
    """Begins a loader's worker that only its own process ends.

    Schedulers send SIGTERM and SIGUSR1 to every process of a job, and this one's needs its workers until it has saved.
    """
    if initialise is not None:
        initialise(worker)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if sys.platform == "linux":  # dies with its process: it holds that one's connections, and other ranks would wait
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
