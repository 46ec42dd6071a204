"""The range test raises every group's rate as it says, suggests where the loss falls fastest, and keeps nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tiny_run import tiny_config
from torch.optim.optimizer import register_optimizer_step_pre_hook

from visionattn.engine.lr_finder import find_lr, make_sweep, suggested_options, write_sweep


@pytest.fixture
def steps() -> Iterator[list[list[float]]]:
    """The groups' learning rates at each step that any optimiser takes."""
    seen: list[list[float]] = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    yield seen
    handle.remove()


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_the_suggestion_is_where_the_loss_falls_fastest(noise: float) -> None:
    exponents = np.linspace(-7, 0, 100)
    # A logistic fall from 2 to 0.5 whose steepest point is 10 ** -2.5, then a rise.
    losses = 0.5 + 1.5 / (1 + np.exp(4 * (exponents + 2.5))) + 3 * np.clip(exponents + 1, 0, None) ** 2
    losses += noise * np.random.default_rng(0).normal(size=100)
    sweep = make_sweep((10**exponents).tolist(), losses.tolist())
    assert sweep.suggestion is not None
    assert math.log10(sweep.suggestion) == pytest.approx(-2.5, abs=0.15)
    assert len(sweep.rates) == len(sweep.losses) == len(sweep.smoothed) == 100


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    assert make_sweep(np.geomspace(1e-5, 1, 50).tolist(), np.linspace(1, 2, 50).tolist()).suggestion is None


def test_rates_rise_exponentially_and_groups_keep_their_ratio(tmp_path: Path, steps: list[list[float]]) -> None:
    wrapper = {
        "optimizer": {"type": "AdamW", "lr": 0.01},
        "paramwise_cfg": {"custom_keys": {"head": {"lr_mult": 0.1}}},
    }
    config = tiny_config(tmp_path / "run", optim_wrapper=wrapper)
    before = config.to_dict()
    sweep = find_lr(config, lowest=1e-5, highest=1e-3, steps=11)
    assert [max(rates) for rates in steps] == pytest.approx(np.geomspace(1e-5, 1e-3, 11).tolist())
    assert sweep.rates == pytest.approx([max(rates) for rates in steps])
    for rates in steps:
        assert min(rates) == pytest.approx(max(rates) / 10)
    assert config.to_dict() == before
    assert not (tmp_path / "run").exists()


def test_gradients_are_accumulated_as_the_config_says(tmp_path: Path, steps: list[list[float]]) -> None:
    wrapper = {"optimizer": {"type": "AdamW", "lr": 0.01}, "accumulative_counts": 3}
    find_lr(tiny_config(tmp_path, optim_wrapper=wrapper), steps=10)
    assert len(steps) == 10


def test_a_sweep_that_diverges_ends_early(tmp_path: Path) -> None:
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.01}}
    sweep = find_lr(tiny_config(tmp_path, optim_wrapper=wrapper), lowest=1e-3, highest=1e30, steps=60)
    assert "the loss" in sweep.stopped
    assert len(sweep.losses) == len(sweep.rates) < 60
    assert np.isfinite(sweep.losses).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "expected 0 < lowest < highest, got lowest=1 and highest=0.1"),
        ({"steps": 4}, "steps=4 are too few"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        find_lr(tiny_config(tmp_path), **options)


def test_numbers_and_plot_are_files(tmp_path: Path) -> None:
    rates = np.geomspace(1e-6, 1, 40)
    sweep = make_sweep([*rates.tolist(), 2.0], (1 / (1 + 100 * rates)).tolist(), "why")
    numbers, plot = write_sweep(sweep, tmp_path / "new", "name")
    read = json.loads(numbers.read_text())
    assert read["suggestion"] == sweep.suggestion
    assert read["stopped"] == "why"
    assert len(read["losses"]) == len(read["rates"]) == 40
    picture = cv2.imread(str(plot))
    assert picture is not None
    red = (picture[..., 2].astype(int) - picture[..., 0] > 100).sum(0)
    assert red.max() > 200, "the suggestion is a red line"


@pytest.mark.parametrize(
    ("schedules", "options"),
    [
        (None, ["optim_wrapper.optimizer.lr=0.0071"]),
        ([{"type": "LinearLR"}, {"type": "PolyLR"}], ["optim_wrapper.optimizer.lr=0.0071"]),
        ([{"type": "LinearLR"}, {"type": "OneCycleLR", "eta_max": 1.0}], ["param_scheduler.1.eta_max=0.0071"]),
        ({"type": "mmengine.OneCycleLR", "eta_max": 1.0}, ["param_scheduler.eta_max=0.0071"]),
    ],
)
def test_the_suggestion_names_what_sets_the_rate(schedules: Any, options: list[str]) -> None:
    config = Config({"optim_wrapper": {"optimizer": {"lr": 1.0}}, "param_scheduler": schedules})
    assert suggested_options(config, 0.00709) == options
