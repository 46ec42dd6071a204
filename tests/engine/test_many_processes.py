"""Two processes do what one does: gradients, samples, metrics, checkpoints; synchronised norms; resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from random_run import ITERATIONS, differences, log_lines, random_config, without_times
from ranks import in_ranks
from tiny_segmentation import write_segmentation
from torch import Tensor

from visionattn.engine.launch import leave_processes
from visionattn.engine.runner import Runner
from visionattn.weights.reading import read_checkpoint


@HOOKS.register_module()
class GradientHook(Hook):
    """Keeps the gradients and the weights of each step, and the images it was made of."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.images: list[str] = []

    def before_train(self, runner: Any) -> None:
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self._keep(runner))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.images += [Path(sample.img_path).stem for sample in data_batch["data_samples"]]

    def _keep(self, runner: Any) -> None:
        model = getattr(runner.model, "module", runner.model)
        self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Laying out a config's text is most of so short a run.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _segmentation(folder: Path, work_dir: str, batch_size: int, norm: str) -> Config:
    config = Config.fromfile(str(folder / "bands.py"))
    config.work_dir = str(folder / work_dir)
    config.runner_type = "visionattn.Runner"
    config.train_dataloader.batch_size = batch_size
    config.val_dataloader.batch_size = 1
    config.train_cfg.update(max_iters=2, val_interval=2)
    config.default_hooks.checkpoint.interval = 2
    config.optim_wrapper.optimizer = {"type": "SGD", "lr": 0.5}
    config.custom_hooks = [{"type": "GradientHook"}]
    config.model.decode_head.dropout_ratio = 0.0  # drawn for a process's batch, not for each image
    norm_cfg = {"GN": {"type": "GN", "num_groups": 2}, "SyncBN": {"type": "SyncBN"}}[norm]
    config.model.backbone.norm_cfg = config.model.decode_head.norm_cfg = norm_cfg
    return config


def _assert_close(found: Tensor, expected: Tensor, name: str) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=lambda text: f"{name}: {text}")


def _trained(config: Config) -> dict[str, Any]:
    runner = Runner.from_cfg(config)
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, GradientHook))
    metrics = {name: value for name, value in runner.message_hub.log_scalars.items() if "mIoU" in name}
    return {
        "gradients": hook.gradients,
        "images": hook.images,
        "mIoU": float(next(iter(metrics.values())).current()),
        "state": runner._plain_model().state_dict(),
    }


@pytest.mark.parametrize("norm", ["GN", "SyncBN"])
def test_two_processes_do_what_one_does(norm: str, tmp_path: Path) -> None:
    """With SyncBN the joint batch has one mean, and the gradient goes through it; five images are validated."""
    write_segmentation(tmp_path)
    config = _segmentation(tmp_path, "two", 2, norm)
    config.launcher = "pytorch"

    def rank(number: int) -> dict[str, Any]:
        found = _trained(config)
        leave_processes()
        return found

    ranks = in_ranks(rank, tmp_path / "ranks")
    one = _trained(_segmentation(tmp_path, "one", 4, norm))
    two = [rank.result for rank in ranks]
    for step in range(2):
        assert two[0]["gradients"][step].keys() == one["gradients"][step].keys()
        for name, expected in one["gradients"][step].items():
            for found in two:
                _assert_close(found["gradients"][step][name], expected, name)
        assert any(gradient.abs().max() > 1e-3 for gradient in one["gradients"][step].values())
    for name, expected in one["state"].items():
        _assert_close(two[1]["state"][name], expected, name)
    # One's fourth batch-mate is the second process's second image.
    images = [[*zip(*(found["images"][start : start + 2] for found in two), strict=True)] for start in (0, 2)]
    assert [name for batch in images for pair in batch for name in pair] == one["images"]
    assert two[0]["mIoU"] == two[1]["mIoU"]
    again = _segmentation(tmp_path, "again", 4, norm)
    again.load_from = str(tmp_path / "two" / "iter_2.pth")
    assert Runner.from_cfg(again).val()["mIoU"] == two[0]["mIoU"]
    matrices = [np.load(tmp_path / run / "evaluation" / "confusion_matrix.npy") for run in ("two", "again")]
    assert np.array_equal(*matrices)
    assert matrices[0].sum() == 5 * 37 * 53
    assert sorted(path.name for path in (tmp_path / "two").glob("*.pth")) == ["iter_2.pth"]
    assert "val  mAcc" in ranks[0].output
    assert ranks[1].output == ""


def test_batches_without_labels_hang_nobody(tmp_path: Path) -> None:
    """One process draws ignored pixels alone, all the time: its loss is 0, its gradients are zeros."""
    write_segmentation(tmp_path)
    config = _segmentation(tmp_path, "two", 2, "GN")
    config.launcher = "pytorch"
    config.train_cfg.max_iters = 6
    config.model.decode_head.loss_decode = {"type": "visionattn.CrossEntropyLoss"}

    def rank(number: int) -> dict[str, Any]:
        if number == 1:
            config.custom_hooks.append({"type": "IgnoreAllHook"})
        found = _trained(config)
        leave_processes()
        return found

    one, other = (rank.result for rank in in_ranks(rank, tmp_path / "ranks"))
    assert len(one["gradients"]) == 6
    assert all(torch.equal(other["state"][name], value) for name, value in one["state"].items())


@HOOKS.register_module()
class IgnoreAllHook(Hook):
    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        for sample in data_batch["data_samples"]:
            sample.gt_sem_seg.data.fill_(255)


@HOOKS.register_module()
class SpoilHook(Hook):
    """Makes one process's batch of one iteration infinite."""

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.rank == 1 and runner.iter == 3:
            data_batch["x"].fill_(torch.inf)


def _many(folder: Path, **options: Any) -> Config:
    config = random_config(folder, **options)
    config.launcher = "pytorch"
    return config


def _run(config: Config) -> None:
    Runner.from_cfg(config).train()
    leave_processes()


def test_a_step_that_one_process_cannot_take_is_taken_by_none(tmp_path: Path) -> None:
    config = _many(tmp_path / "run")
    config.custom_hooks.append({"type": "SpoilHook"})
    config.train_cfg.max_iters = 5
    in_ranks(lambda rank: _run(config), tmp_path / "ranks")
    before, after, last = (
        read_checkpoint(tmp_path / "run" / f"iter_{number}.pth")["state_dict"] for number in (3, 4, 5)
    )
    assert differences(dict(before), dict(after)) == []
    assert differences(dict(after), dict(last)) != []
    assert [path.name for path in sorted((tmp_path / "run" / "non_finite").iterdir())] == [
        "iter_4.json",
        "iter_4_rank_1.json",
    ]


@pytest.mark.parametrize(
    ("feature", "cuts"),
    [("accumulation", [8]), ("ema", [13]), pytest.param("bf16", [3, 10, 17, 23], marks=pytest.mark.slow)],
)
def test_a_cut_does_nothing_to_two_processes(feature: str, cuts: list[int], tmp_path: Path) -> None:
    uncut = tmp_path / "uncut"
    in_ranks(lambda rank: _run(_many(uncut, feature=feature, workers=2)), tmp_path / "ranks")
    last = read_checkpoint(uncut / f"iter_{ITERATIONS}.pth")
    for cut in cuts:
        resumed = tmp_path / f"cut_{cut}"
        config = _many(resumed, feature=feature, workers=2)
        config.resume, config.load_from = True, str(uncut / f"iter_{cut}.pth")
        in_ranks(lambda rank, config=config: _run(config), tmp_path / "ranks")
        found = read_checkpoint(resumed / f"iter_{ITERATIONS}.pth")
        assert differences(without_times(found), without_times(last)) == []
        assert log_lines(resumed, after=cut) == log_lines(uncut, after=cut)
