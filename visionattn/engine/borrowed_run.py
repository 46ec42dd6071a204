"""A run whose loop does something else than train: everything is built as for a training, nothing is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from mmengine.config import Config

from visionattn.engine.runner import Runner

Result = TypeVar("Result")


def borrow_run(config: Config, body: Callable[[Runner], Result]) -> Result:
    """What `body` returns, called with a Runner where the training loop would begin: model, optimiser, schedulers and
    training data are built, weights loaded.

    The work dir is a temporary folder, and nothing is sent to a tracker. The optimiser's groups have their learning
    rates before any schedule as "configured_lr".
    """
    config = copy.deepcopy(config)
    for part in ("val", "test"):
        for key in ("dataloader", "cfg", "evaluator"):
            config[f"{part}_{key}"] = None
    config.visualizer = None
    results: list[Result] = []
    with TemporaryDirectory() as folder:
        config.work_dir = folder
        runner = Runner.from_cfg(config)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        for group in runner.optim_wrapper.param_groups:
            group["configured_lr"] = group["lr"]
        loop: Any = runner.build_train_loop(config.train_cfg)
        runner._train_loop = loop

        def run() -> None:
            # The schedule's last iteration ends an accumulation early; here there is no last one.
            counts = runner.optim_wrapper._accumulative_counts
            runner.optim_wrapper.initialize_count_status(runner.model, 0, 10**9 * counts)
            runner.model.train()
            results.append(body(runner))

        loop.run = run
        runner.train()
    return results[0]


def endless_batches(runner: Runner) -> Iterator[Any]:
    """Training batches; from the beginning again where the loader ends."""
    while True:
        yield from runner.train_dataloader
