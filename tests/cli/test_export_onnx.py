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
        ([config, checkpoint, "out.txt"], "out.txt must end in .onnx"),
        (["resnet19", checkpoint, "out.onnx"], "no backbone is called 'resnet19'"),
    ):
        assert main(["export", "onnx", *arguments]) == 2
        error = capsys.readouterr().err
        assert answer in error
        assert len(error.splitlines()) == 1


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Collects the weights of what would be exported, which then is not."""
    states: list[dict[str, torch.Tensor]] = []

    def stop(model: torch.nn.Module, *args: object, **options: object) -> None:
        states.append(model.state_dict())
        raise ValueError("far enough")

    monkeypatch.setattr("visionattn.export.onnx.export_onnx", stop)
    return states


@pytest.mark.parametrize("whole", [True, False])
def test_a_backbone_from_its_own_checkpoint_or_the_whole_models(
    whole: bool, trained: tuple[str, str], exported: list[dict[str, torch.Tensor]]
) -> None:
    config, checkpoint = trained
    state = torch.load(checkpoint)["state_dict"]
    own = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    if not whole:
        torch.save(own, checkpoint)
    with pytest.raises(ValueError, match="far enough"):
        main(["export", "onnx", config, checkpoint, "a.onnx", "--backbone", "--cfg-options", *OPTIONS])
    assert exported[0].keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in exported[0].items())


def test_names_that_may_be_left_over(
    trained: tuple[str, str], exported: list[dict[str, torch.Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    config, checkpoint = trained
    state = torch.load(checkpoint)["state_dict"]
    torch.save({"state_dict": state | {"teacher.weight": torch.ones(2)}}, checkpoint)
    command = ["export", "onnx", config, checkpoint, "a.onnx", "--cfg-options", *OPTIONS]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "1 unexpected (first: teacher.weight)" in error
    assert "--allow 'teacher.*'" in error
    with pytest.raises(ValueError, match="far enough"):
        main([*command, "--allow", "teacher.*"])
    assert all(torch.equal(value, state[name]) for name, value in exported[0].items())
