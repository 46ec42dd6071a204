"""`visionattn cost`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_segmentation import write_segmentation

from visionattn.cli.main import main


def test_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = write_segmentation(tmp_path, images=1), tmp_path / "new" / "cost.json"
    assert main(["cost", str(config), "--shape", "3", "32", "48", "--repeats", "1", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    cost = json.loads(out.read_text())
    assert cost["shape"] == [1, 3, 32, 48]
    assert cost["config"] == str(config)
    assert f"{cost['parameters']:,}" in printed
    for part in ("backbone", "layer1", "decode_head", "BasicBlock", "1 x 3 x 32 x 48", "median of"):
        assert part in printed
    assert all(line == line.rstrip() for line in printed.splitlines())
    by_name = {row["name"]: row for row in cost["rows"]}
    assert by_name["decode_head"]["macs"] > 0
    assert by_name["backbone"]["macs"] + by_name["decode_head"]["macs"] == cost["macs"]


def test_a_backbone_by_name_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cost", "resnet18", "--shape", "3", "32", "32", "--batch", "2", "--repeats", "1", "--inference-only"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 x 3 x 32 x 32" in printed
    assert "11,176,512" in printed
    assert "body.bn1" in printed
    assert "body.act1" not in printed  # no weights, no multiplications
    assert "kept MB" not in printed
    assert "attention" not in printed.partition("MACs: ")[0]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["resnet18x"],
            "no config is called 'resnet18x', and no backbone is called 'resnet18x'; did you mean resnet18",
        ),
        (["resnet18", "--shape", "4", "32", "32"], "resnet18 does not run with --shape 4 32 32: Given groups=1"),
        (["resnet18", "--shape", "3", "0", "32"], "--shape's height 0: expected 1 or more"),
        (["resnet18", "--repeats", "0"], "--repeats 0: expected 1 or more"),
        (["resnet18", "--device", "gpu7"], "--device gpu7: "),
        (["resnet18", "--cfg-options", "a=1"], "--cfg-options change a config; resnet18 is the name of a backbone"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", *arguments]) == 2
    error = capsys.readouterr().err
    assert answer in error
    assert len(error.splitlines()) == 1


def test_a_config_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "empty.py"
    config.write_text("data_root = 'x'\n")
    assert main(["cost", str(config)]) == 2
    assert "empty.py has no model" in capsys.readouterr().err
