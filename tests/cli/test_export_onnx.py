"""`visionattn export onnx`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_segmentation import write_segmentation

from visionattn.cli.main import main
from visionattn.cli.models import model_from

VIT = "{'type': 'visionattn.VisionTransformer', 'embed_dim': 8, 'depth': 1, 'num_heads': 2, 'image_size': (32, 32)}"
OPTIONS = [f"model.backbone={VIT}", "model.decode_head.in_index=0"]


@pytest.fixture
def trained(tmp_path: Path) -> tuple[str, str]:
    """A config and a checkpoint of its model with a small backbone."""
    config, checkpoint = write_segmentation(tmp_path, images=1), tmp_path / "iter_1.pth"
    torch.save({"state_dict": model_from(str(config), OPTIONS).state_dict()}, checkpoint)
    return str(config), str(checkpoint)


def test_a_segmentor(trained: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ort = pytest.importorskip("onnxruntime")
    out = tmp_path / "whole.onnx"
    assert main(["export", "onnx", *trained, str(out), "--shape", "3", "24", "40", "--cfg-options", *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert "output [1, 3, 2, 3]" in printed
    assert "onnxruntime and PyTorch differ by" in printed
    assert "mean 127 127 127, std 60 60 60" in printed
    known = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert known["mean"] == "127 127 127"


def test_mistakes(trained: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint = trained
    for arguments, answer in (
        ([config, "out.onnx"], "an export needs weights: visionattn export onnx"),
        ([config, str(tmp_path / "none.pth"), "out.onnx"], "none.pth"),
        ([config, checkpoint, "out.onnx", "--shape", "3", "0", "8"], "--shape 3 0 8: expected 1 or more"),
        (["resnet19", checkpoint, "out.onnx"], "no backbone is called 'resnet19'"),
    ):
        assert main(["export", "onnx", *arguments]) == 2
        error = capsys.readouterr().err
        assert answer in error
        assert len(error.splitlines()) == 1
