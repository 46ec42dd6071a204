"""What a run logs, and to whom: the loader's share and images/s in the terminal, trackers, and packages they lack."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DATASETS
from tiny_run import TinyData, tiny_config

from visionattn.engine.config import load_config
from visionattn.engine.config_mistakes import ConfigMistake, named_in
from visionattn.engine.runner import Runner

ROOT = Path(__file__).parents[2]


@DATASETS.register_module()
class SlowData(TinyData):
    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(0.05)
        return super().__getitem__(index)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _trackers(*names: str) -> dict[str, Any]:
    return {"type": "Visualizer", "vis_backends": [{"type": name} for name in ("LocalVisBackend", *names)]}


def _scalars(runner: Runner) -> list[dict[str, Any]]:
    text = (Path(runner.log_dir) / "vis_data" / "scalars.json").read_text()
    return [row for row in map(json.loads, text.splitlines()) if "loss" in row]


def test_the_log_shows_images_a_second_and_a_loader_that_starves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path)
    config.train_dataloader.dataset.type = "SlowData"
    runner = Runner.from_cfg(config)
    runner.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train ")]
    assert len(lines) == 4
    for line, row in zip(lines, _scalars(runner), strict=True):
        shown = re.search(r"  (\d+\.\d+) s/it  (\d+\.\d) img/s  data (\d+)%  ", line)
        assert shown is not None, line
        seconds, images, share = (float(number) for number in shown.groups())
        assert images == pytest.approx(4 / row["time"], abs=0.06)
        assert seconds == pytest.approx(row["time"], abs=1e-3)
        assert share == pytest.approx(100 * row["data_time"] / row["time"], abs=0.6)
        assert row["data_time"] >= 0.2, "four samples of 50 ms each"
        assert images <= 20


def test_a_package_that_a_tracker_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    for tracker, package in (
        ("TensorboardVisBackend", "tensorboard"),
        ("WandbVisBackend", "wandb"),
        ("MLflowVisBackend", "mlflow"),
    ):
        config = tiny_config(tmp_path, visualizer=_trackers(tracker))
        message = (
            rf"visualizer\.vis_backends\.1: {tracker} needs the package {package}, which is not installed: "
            f"pip install {package}$"
        )
        with pytest.raises(ConfigMistake, match=message), named_in(config):
            Runner.from_cfg(config)


def test_the_tensorboard_config_adds_a_tracker(tmp_path: Path) -> None:
    added = ROOT / "configs" / "_base_" / "runtime" / "tensorboard.py"
    child = tmp_path / "child.py"
    child.write_text(f"_base_ = [{str(ROOT / 'configs' / 'quickstart' / 'segmentation.py')!r}, {str(added)!r}]\n")
    config = load_config(child)
    assert [backend.type for backend in config.visualizer.vis_backends] == ["LocalVisBackend", "TensorboardVisBackend"]


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runner = Runner.from_cfg(tiny_config(tmp_path, visualizer=_trackers("TensorboardVisBackend")))
    runner.train()
    runner.visualizer.close()
    events = EventAccumulator(str(Path(runner.log_dir) / "vis_data")).Reload()
    losses = events.Scalars("loss")
    assert [event.step for event in losses] == [2, 4, 6, 8]
    torch.testing.assert_close(
        torch.tensor([event.value for event in losses]), torch.tensor([row["loss"] for row in _scalars(runner)])
    )
    assert len(events.Scalars("tiny/accuracy")) == 2
