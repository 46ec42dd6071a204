"""What is wrong with a run is said before it begins."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_run import TinyData, tiny_config
from tiny_segmentation import write_segmentation

from visionattn.engine.data_check import head_class_findings
from visionattn.engine.preflight import check_config


def test_datasets_check_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_config(tiny_config(tmp_path / "run"), parts=("train", "val"))
    assert capsys.readouterr().out.splitlines() == ["train: checked 16 samples", "val: checked 16 samples"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_bad_labels_are_found_in_the_part_that_runs(part: str, tmp_path: Path) -> None:
    config = Config({**tiny_config(tmp_path), "test_dataloader": {"dataset": {"type": "TinyData"}}})
    config[f"{part}_dataloader"].dataset.bad_label = True
    with pytest.raises(ValueError, match="sample 3 has label 7"):
        check_config(config, parts=(part,))
    check_config(config, parts=[other for other in ("train", "val", "test") if other != part])


def test_a_part_that_the_config_leaves_out_is_passed_over(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, val_dataloader=None)
    check_config(config, parts=("train", "val"))


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"decode_head": {"num_classes": 150}}, "model.decode_head.num_classes"),
        ({"decode_head": {"num_classes": 2}, "auxiliary_head": {"num_classes": 3}}, "model.auxiliary_head.num_classes"),
        ({"auxiliary_head": [{"num_classes": 2}, {"num_classes": 3}]}, "model.auxiliary_head.1.num_classes"),
        ({"decode_head": {"head": {"num_classes": 4}}}, "model.decode_head.head.num_classes"),
    ],
)
def test_heads_have_the_datasets_classes(model: dict[str, object], key: str) -> None:
    (finding,) = head_class_findings(model, TinyData())
    assert finding.level == "error"
    assert re.fullmatch(rf"{key}=\d+, but TinyData has 2 classes \(low, high\)", finding.message)
    assert finding.advice == f"set --cfg-options {key}=2"


def test_a_head_for_other_data_stops_the_run(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, model={"type": "TinyModel", "head": {"num_classes": 3}})
    with pytest.raises(ValueError, match=r"model\.head\.num_classes=3, but TinyData has 2 .*num_classes=2"):
        check_config(config, parts=("train",))


def test_other_counts_of_classes_are_not_heads() -> None:
    model = {"backbone": {"num_classes": 1000}, "decode_head": {"num_classes": 2}}
    assert head_class_findings(model, TinyData()) == []
    assert head_class_findings({"decode_head": {"num_classes": 150}}, object()) == []


def test_the_first_of_many_problems_is_said_with_their_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config.fromfile(write_segmentation(tmp_path))
    masks = sorted((tmp_path / "data" / "masks").iterdir())
    dark = cv2.imread(str(masks[0]), cv2.IMREAD_UNCHANGED)
    dark[2, 5] = 9
    for path in masks[:3]:
        cv2.imwrite(str(path), dark)
    with pytest.raises(
        ValueError, match=r"0\.png: row 2, column 5; .*\(and 2 more; `visionattn data check` lists all\)$"
    ):
        check_config(config, parts=("train",))
    for path in masks:
        cv2.imwrite(str(path), np.zeros_like(dark))
    check_config(config, parts=("train",))
    assert "train: warning: 2 classes never occur (middle, bright)" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("classes", "listed"), [(11, ""), (13, " ... and 2 more")])
def test_few_of_the_classes_that_never_occur_are_named(
    classes: int, listed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_segmentation(tmp_path)
    names = tuple(f"class{number}" for number in range(classes))
    text = (
        path.read_text()
        .replace('("dark", "middle", "bright")', repr(names))
        .replace("num_classes=3", f"num_classes={classes}")
    )
    path.write_text(text.replace("[[0, 0, 160], [0, 160, 0], [250, 220, 60]]", f"[[0, 0, 0]] * {classes}"))
    check_config(Config.fromfile(path), parts=("train",))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "never occur" in line)
    assert line == f"train: warning: {classes - 3} classes never occur ({', '.join(names[3:11])}{listed})"


def test_a_checkpoint_is_looked_at_before_the_data(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, load_from=str(tmp_path / "nothing.pth"))
    config.train_dataloader.dataset.bad_label = True
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
        check_config(config, parts=("train",))
    torch.save({"epoch": 3}, tmp_path / "meta.pth")
    config.load_from = str(tmp_path / "meta.pth")
    with pytest.raises(ValueError, match=r"meta\.pth: no weights found"):
        check_config(config, parts=("train",))


def test_a_checkpoint_at_a_url_is_left_to_the_run(tmp_path: Path) -> None:
    check_config(tiny_config(tmp_path, load_from="https://localhost/net.pth"), parts=("train",))
