"""A run that was cut anywhere ends as the uncut one, to the last bit of every tensor and log line."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from random_run import ITERATIONS, differences, log_lines, random_config, without_times

from visionattn.engine.runner import Runner
from visionattn.weights.reading import read_checkpoint

FEATURES = ["ema", "accumulation", "bf16"]

EPOCH = [4, 4, 4, 2]  # the batches' sizes: 14 samples in batches of four


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Laying out a config's text is most of so short a run.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _train(config: Config) -> Runner:
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def _resume(config: Config, checkpoint: Path) -> Runner:
    """Takes up the run with the generators somewhere else, as in a new process."""
    random.seed(99)
    config.resume, config.load_from = True, str(checkpoint)
    return _train(config)


def _assert_cuts_do_nothing(tmp_path: Path, cuts: list[int], **options: Any) -> None:
    uncut = tmp_path / "uncut"
    _train(random_config(uncut, **options))
    last = read_checkpoint(uncut / f"iter_{ITERATIONS}.pth")
    for cut in cuts:
        resumed = tmp_path / f"cut_{cut}"
        _resume(random_config(resumed, **options), uncut / f"iter_{cut}.pth")
        found = read_checkpoint(resumed / f"iter_{ITERATIONS}.pth")
        assert differences(without_times(found), without_times(last)) == [], f"cut after {cut}"
        lines = log_lines(resumed, after=cut)
        assert lines == log_lines(uncut, after=cut), f"cut after {cut}"
        assert len(lines) >= (ITERATIONS - cut) // 2


@pytest.mark.slow
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_twenty_cuts_do_nothing(optimizer: str, workers: int, feature: str, tmp_path: Path) -> None:
    cuts = random.Random(f"{optimizer}{workers}{feature}").sample(range(1, ITERATIONS), 20)
    _assert_cuts_do_nothing(tmp_path, cuts, optimizer=optimizer, workers=workers, feature=feature)


@pytest.mark.parametrize(
    ("optimizer", "workers", "feature", "cuts"),
    [
        ("AdamW", 0, "ema", [7, 10]),
        ("SGD", 2, "accumulation", [8, 19]),
        ("AdamW", 0, "accumulation", [13]),
        ("SGD", 0, "bf16", [20]),
    ],
)
def test_a_cut_does_nothing(optimizer: str, workers: int, feature: str, cuts: list[int], tmp_path: Path) -> None:
    _assert_cuts_do_nothing(tmp_path, cuts, optimizer=optimizer, workers=workers, feature=feature)


@pytest.mark.parametrize("sampler", ["InfiniteSampler", "DefaultSampler"])
def test_resuming_reads_nothing_that_was_skipped(sampler: str, tmp_path: Path) -> None:
    _train(random_config(tmp_path / "uncut", record=tmp_path / "all", sampler=sampler))
    resumed = random_config(tmp_path / "cut", record=tmp_path / "rest", sampler=sampler)
    _resume(resumed, tmp_path / "uncut" / "iter_17.pth")
    every, rest = ((tmp_path / name).read_text().split() for name in ("all", "rest"))
    sizes = [4] * ITERATIONS if sampler == "InfiniteSampler" else EPOCH * 6
    assert len(every) == sum(sizes)
    assert rest == every[sum(sizes[:17]) :]


def test_batches_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    runs = [_train(random_config(tmp_path / str(workers), workers=workers)) for workers in (0, 1, 3)]
    first, *others = (log_lines(Path(run.work_dir)) for run in runs)
    assert first == others[0] == others[1]
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], other[name]) for other in states[1:] for name in states[0])


def _by_epochs(config: Config) -> Config:
    config.train_cfg = {"by_epoch": True, "max_epochs": 6, "val_interval": 2}
    config.train_dataloader.sampler.type = "DefaultSampler"
    config.param_scheduler = [{"type": "StepLR", "step_size": 2, "gamma": 0.5}]
    config.log_processor = {"by_epoch": True}
    return config


@pytest.mark.parametrize(
    ("persistent", "cuts"),
    [(False, [6, 8]), pytest.param(True, [17], marks=pytest.mark.slow)],
    ids=["new", "persistent"],
)
def test_an_epoch_is_taken_up_in_its_middle(persistent: bool, cuts: list[int], tmp_path: Path) -> None:
    def config(name: str) -> Config:
        made = _by_epochs(random_config(tmp_path / name, workers=2, record=tmp_path / f"{name}.txt"))
        made.default_hooks.checkpoint.filename_tmpl = "iter_{}.pth"
        made.train_dataloader.persistent_workers = persistent
        return made

    _train(config("uncut"))
    for cut in cuts:
        _resume(config(f"cut_{cut}"), tmp_path / "uncut" / f"iter_{cut}.pth")
        one, other = (read_checkpoint(tmp_path / name / "iter_24.pth") for name in (f"cut_{cut}", "uncut"))
        assert differences(without_times(one), without_times(other)) == [], cut
        assert len((tmp_path / f"cut_{cut}.txt").read_text().split()) == sum((EPOCH * 6)[cut:])


def test_a_validation_that_was_due_is_made_up_for(tmp_path: Path) -> None:
    """A run killed during the validation after iteration 10 has the checkpoint from before it."""
    uncut = tmp_path / "uncut"
    config = random_config(uncut)
    config.default_hooks.checkpoint.max_keep_ckpts = 3
    _train(config)
    killed = random_config(tmp_path / "killed")
    runner = Runner.from_cfg(killed)
    runner.val_loop.run = _killed
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert runner.iter == 5
    _resume(random_config(tmp_path / "resumed"), tmp_path / "killed" / "iter_5.pth")
    one, other = (read_checkpoint(folder / "iter_24.pth") for folder in (tmp_path / "resumed", uncut))
    one, other = without_times(one), without_times(other)
    del other["message_hub"]["runtime_info"]["keep_ckpt_ids"]
    assert differences(one, other) == []
    assert log_lines(tmp_path / "resumed", after=5) == log_lines(uncut, after=5)
    assert next(line["step"] for line in log_lines(tmp_path / "resumed") if "tiny/accuracy" in line) == 5


def _killed() -> None:
    raise KeyboardInterrupt


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    def config(name: str) -> Config:
        made = random_config(tmp_path / name)
        made.custom_hooks[0].update(patience=2, min_delta=1000.0)  # nothing is ever better
        return made

    stopped = _train(config("uncut"))
    assert stopped.iter == 15
    assert _resume(config("cut"), tmp_path / "uncut" / "iter_12.pth").iter == 15
    assert _resume(config("again"), tmp_path / "uncut" / "iter_15.pth").iter == 15


def test_a_run_is_resumed_with_its_own_seed(tmp_path: Path) -> None:
    _train(random_config(tmp_path / "uncut"))
    config = random_config(tmp_path / "cut", randomness={"seed": 4})
    _resume(config, tmp_path / "uncut" / "iter_9.pth")
    assert log_lines(tmp_path / "cut", after=9) == log_lines(tmp_path / "uncut", after=9)
