"""`visionattn test` in two processes says what it says in one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from ranks import in_ranks
from tiny_segmentation import write_segmentation

from visionattn.cli.main import main
from visionattn.registry import MODELS


def test_two_processes_find_what_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_segmentation(tmp_path)
    config = Config.fromfile(str(path))
    torch.manual_seed(3)
    with MODELS.switch_scope_and_registry("mmseg") as registry:
        torch.save({"state_dict": registry.build(config.model).state_dict()}, tmp_path / "weights.pth")
    command = ["test", str(path), str(tmp_path / "weights.pth")]
    capfd.readouterr()
    assert main(command) == 0
    wanted = _figures(capfd.readouterr().out)

    first, second = in_ranks(lambda rank: main([*command, "--launcher", "pytorch"]), tmp_path / "ranks")
    assert first.result == second.result == 0
    assert _figures(first.output) == wanted
    assert _figures(second.output) == []


def _figures(output: str) -> list[str]:
    """The lines of the table and of the means."""
    return re.findall(r"^(?:mIoU .*|test .*|\| .*)$", output, re.MULTILINE)
