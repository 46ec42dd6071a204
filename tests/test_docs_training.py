"""The config examples in docs/training.md name what exists, and train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_segmentation import write_segmentation

from visionattn.cli.main import main
from visionattn.engine.config import load_config
from visionattn.engine.config_check import check_types

TEXT = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
EXAMPLES = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
TRACKERS = [example for example in EXAMPLES if "visualizer" in example]


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmentation(tmp_path_factory.mktemp("bands"), images=4)


def test_examples_were_found() -> None:
    assert len(EXAMPLES) == 8
    assert len(TRACKERS) == 1


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_has_no_mistake(number: int, bands: Path) -> None:
    child = bands.with_name(f"example_{number}.py")
    child.write_text(f"_base_ = [{bands.name!r}]\n{EXAMPLES[number]}")
    assert check_types(load_config(child)) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_trains(number: int, bands: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if EXAMPLES[number] in TRACKERS:
        pytest.skip("W&B and MLflow are not installed")
    monkeypatch.chdir(tmp_path)
    child = bands.with_name(f"example_{number}.py")
    child.write_text(f"_base_ = [{bands.name!r}]\n{EXAMPLES[number]}")
    assert main(["train", str(child), "--cfg-options", "train_cfg.max_iters=8", "train_cfg.val_interval=4"]) == 0
    assert (tmp_path / "work_dirs" / child.stem / "iter_8.pth").is_file()
