"""`visionattn convert`, from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from weights_peers import assert_same_state, timm_swin

from visionattn.cli.main import main
from visionattn.weights.conversion import convert_weights
from visionattn.weights.reading import read_checkpoint


def test_weights_are_converted_and_the_report_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = timm_swin(8, (64, 64), v2=True).state_dict()
    source, out = tmp_path / "swin.pth", tmp_path / "out.safetensors"
    torch.save({"state_dict": state}, source)
    assert main(["convert", str(source), str(out), "--to", "torchvision", "--window", "8", "8"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "timm -> torchvision: Swin V2 (embed_dim=16, depths=(2, 3), num_heads=(2, 4))"
    assert printed[-1] == str(out)
    assert_same_state(read_checkpoint(out), convert_weights(state, "torchvision", window=(8, 8)))


def test_what_is_left_over_is_answered_with_the_option_that_allows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(timm_swin(7, (56, 56)).state_dict(), tmp_path / "swin.pth")
    argv = ["convert", str(tmp_path / "swin.pth"), str(tmp_path / "out.pth"), "--to", "mmseg"]
    assert main(argv) == 2
    answer = capsys.readouterr().err
    assert answer.startswith(f"visionattn: error: {tmp_path}/swin.pth: 4 of 76 tensors have no place in mmseg")
    assert answer.endswith("(--allow 'norm.*' 'head.*') leaves them out\n")
    assert not (tmp_path / "out.pth").exists()
    assert main([*argv, "--allow", "norm.*", "head.*"]) == 0
    assert "  4 left out as allowed: norm.weight, ..." in capsys.readouterr().out


def test_a_prefix_is_cut_off(tmp_path: Path) -> None:
    state = timm_swin(7, (56, 56)).state_dict()
    torch.save({f"encoder.{name}": value for name, value in state.items()}, tmp_path / "swin.pth")
    argv = ["convert", str(tmp_path / "swin.pth"), str(tmp_path / "out.pth"), "--to", "microsoft"]
    assert main(argv) == 2
    assert main([*argv, "--prefix", "encoder."]) == 0
    assert_same_state(read_checkpoint(tmp_path / "out.pth")["model"], convert_weights(state, "microsoft"))
