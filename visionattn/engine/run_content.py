"""What is in a run's checkpoint, and putting it back into a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import mmengine

from visionattn.engine.fsdp import like_optimizer
from visionattn.engine.plain import plain_items, plain_message_hub, plain_scheduler, restore_message_hub
from visionattn.engine.run_state import restore_run_state, run_state


def run_content(
    runner: Any, meta: dict[str, Any], by_epoch: bool, *, with_optimizer: bool, with_schedulers: bool
) -> dict[str, Any]:
    """Weights, counters and the log's scalars, and what else a run needs to go on; sharded tensors are left so.

    Every process must call it.

    Args:
        meta: what a hook knows better: "epoch" and "iter" that will be done when the loop has counted them.
        by_epoch: whether it is the epoch that ends, if meta does not say.
        with_optimizer: and with it all that `run_state` finds.
    """
    content: dict[str, Any] = {
        "meta": _meta(runner, meta, by_epoch),
        "state_dict": runner._plain_model().state_dict(),
        "message_hub": plain_message_hub(runner.message_hub),
    }
    if with_optimizer:
        content["optimizer"] = runner.optim_wrapper.state_dict()
        content["run_state"] = run_state(runner)
    if with_schedulers:
        content["param_schedulers"] = _scheduler_states(runner.param_schedulers)
    return content


def restore_content(
    runner: Any, checkpoint: Mapping[str, Any], filename: str, *, with_optimizer: bool, with_schedulers: bool
) -> None:
    """Puts back all of `run_content` but the weights, and the generators, which come last of all."""
    meta = checkpoint["meta"]
    runner.train_loop._epoch = meta["epoch"]
    runner.train_loop._iter = meta["iter"]
    _restore_seed(runner, meta.get("seed"))
    dataset_meta = getattr(runner.train_dataloader.dataset, "metainfo", None)
    if dataset_meta is not None and plain_items(dataset_meta, "metainfo") != meta.get("dataset_meta"):
        runner.logger.warning(f"{filename} was trained on a dataset with other classes or metainfo")
    restore_message_hub(runner.message_hub, checkpoint["message_hub"])
    if with_optimizer:
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.optim_wrapper.load_state_dict(like_optimizer(checkpoint["optimizer"], runner.optim_wrapper))
    if with_schedulers and "param_schedulers" in checkpoint:
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        _restore_schedulers(runner.param_schedulers, checkpoint["param_schedulers"])
    if "run_state" in checkpoint:
        restore_run_state(runner, checkpoint["run_state"])
    else:
        runner.logger.warning(f"{filename} was not written by visionattn: its random numbers do not go on exactly")


def _restore_seed(runner: Any, seed: int | None) -> None:
    configured = runner._randomness_cfg.get("seed")
    if seed is None or seed == configured:
        return
    if configured is not None:
        runner.logger.warning(f"the run was begun with seed {seed}: used instead of the config's {configured}")
    runner._randomness_cfg.update(seed=seed)
    runner.set_randomness(**runner._randomness_cfg)


def _restore_schedulers(schedulers: Any, states: Any) -> None:
    if isinstance(schedulers, dict):
        for name, some in schedulers.items():
            _restore_schedulers(some, states[name])
        return
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)


def _meta(runner: Any, meta: dict[str, Any], by_epoch: bool) -> dict[str, Any]:
    # Hooks save before the loop counts the finished epoch or iteration.
    meta.setdefault("epoch", runner.epoch + 1 if by_epoch else runner.epoch)
    meta.setdefault("iter", runner.iter if by_epoch else runner.iter + 1)
    meta.update(
        cfg=runner.config_text,
        seed=runner.seed,
        experiment_name=runner.experiment_name,
        time=time.strftime("%Y%m%d_%H%M%S"),
        mmengine_version=mmengine.__version__,
    )
    if hasattr(runner.train_dataloader.dataset, "metainfo"):
        meta["dataset_meta"] = plain_items(runner.train_dataloader.dataset.metainfo, "metainfo")
    return plain_items(meta, "meta")


def _scheduler_states(schedulers: Any) -> Any:
    if isinstance(schedulers, dict):
        return {name: _scheduler_states(some) for name, some in schedulers.items()}
    return [plain_scheduler(scheduler.state_dict()) for scheduler in schedulers]
