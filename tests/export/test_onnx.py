"""ONNX files are kept where onnxruntime computes what PyTorch does, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from visionattn import create_backbone, list_attention
from visionattn.export import onnx as exporter
from visionattn.export.onnx import export_onnx
from visionattn.export.program import export_program

pytest.importorskip("onnx", reason='ONNX export needs the extra: pip install "visionattn[export]"')
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

SWIN = {"type": "SwinTransformer", "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "out_indices": (0, 1),
        "window": (4, 4)}  # fmt: skip
TABLE = json.loads((Path(__file__).parents[2] / "docs" / "onnx.json").read_text())["rows"]
VIT = {"type": "VisionTransformer", "embed_dim": 8, "depth": 1, "num_heads": 2, "image_size": (32, 32)}


def answers(path: Path, image: Tensor) -> list[Tensor]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(answer) for answer in session.run(None, {"image": image.numpy()})]


def stirred(config: dict[str, object]) -> nn.Module:
    """The backbone with no gain of 0 that would hide what stands behind it."""
    torch.manual_seed(0)
    model = create_backbone(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.5)
    return model


def assert_same(path: Path, model: nn.Module, image: Tensor) -> None:
    with torch.no_grad():
        for got, wanted in zip(answers(path, image), model.eval()(image), strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4 * max(1.0, float(wanted.abs().max())))


@pytest.mark.slow
def test_any_size(tmp_path: Path) -> None:
    model, path = create_backbone(VIT), tmp_path / "new" / "vit.onnx"
    written = export_onnx(model, path, torch.randn(1, 3, 37, 21), dynamic=True, metadata={"classes": "cat dog"})
    assert model.training
    assert written.multiple_of == 1
    assert (37, 21) in written.sizes
    assert len(written.sizes) == 3
    assert written.error < 1e-4
    assert written.inputs == {"image": (1, 3, "height", "width")}
    assert list(path.parent.iterdir()) == [path]
    for size in ((16, 16), (33, 50), (1, 3)):
        assert_same(path, model, torch.randn(1, 3, *size))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"classes": "cat dog"}


class Halves(nn.Module):
    """Takes multiples of 2: the branch for odd heights does something else."""

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x * 2 if x.shape[2] % 2 or x.shape[3] % 2 else x
        return [x[:, :, ::2, ::2] + x[:, :, 1::2, 1::2]] if x.shape[2] % 2 == x.shape[3] % 2 == 0 else [x]


def test_sizes_that_the_model_asks_for_are_found(tmp_path: Path) -> None:
    written = export_onnx(Halves(), tmp_path / "m.onnx", torch.randn(1, 3, 8, 12), dynamic=True)
    assert written.multiple_of == 2
    assert written.inputs == {"image": (1, 3, "height", "width")}
    assert_same(tmp_path / "m.onnx", Halves(), torch.randn(1, 3, 26, 6))


class Counting(nn.Module):
    """Answers otherwise each time it is called; an export has the first answer."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class Peeking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_another_answer_leaves_no_file(tmp_path: Path, dynamic: bool) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("what was there")
    with pytest.raises(ValueError, match="onnxruntime and PyTorch differ by"):
        export_onnx(Counting(), path, torch.zeros(1, 3, 8, 8), dynamic=dynamic)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_captured_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"torch.export cannot capture this model: .*data-dependent"):
        export_onnx(Peeking(), tmp_path / "m.onnx", torch.zeros(1, 3, 8, 8))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exporter, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ImportError, match=r'needs onnxscript: pip install "visionattn\[export\]"'):
        export_onnx(nn.Identity(), tmp_path / "m.onnx", torch.zeros(1, 3, 8, 8))


def test_windows_of_open_extents() -> None:
    """One graph for whole windows and for padding, even if one window covers the example."""
    from visionattn import build_attention

    class OnMap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = build_attention(
                {"type": "WindowAttention", "window": (4, 3), "shift": (2, 1), "num_heads": 2}, 8
            )

        def forward(self, image: Tensor) -> Tensor:
            return self.attn(image.permute(0, 2, 3, 1))

    model = OnMap().eval()
    program = export_program(model, torch.randn(1, 8, 4, 3), dynamic=True).module()
    for size in ((9, 7), (8, 6), (13, 5), (5, 11)):
        x = torch.randn(1, 8, *size)
        torch.testing.assert_close(program(x)[0], model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", list_attention())
@pytest.mark.parametrize("host", ["resnet18", "swin", "vit"])
def test_every_mechanism(host: str, name: str, tmp_path: Path) -> None:
    """As the table of docs/onnx.md has it; `python tools/onnx_table.py` adds what is not there yet."""
    attention = {"type": name, "grid": (19, 24)}
    hosts = {
        "resnet18": {"type": "TimmBackbone", "model_name": "resnet18", "out_indices": (1,), "attention": attention},
        "swin": SWIN | {"attention": name},
        "vit": VIT | {"attention": name, "class_token": False},
    }
    model, path = stirred(hosts[host]), tmp_path / "m.onnx"
    image = torch.randn(1, 3, 75, 93)
    row = TABLE[f"{({'resnet18': 'ResNet', 'swin': 'Swin', 'vit': 'ViT'})[host]} | {name}"]
    if "why" in row:
        with pytest.raises(ValueError):
            export_onnx(model, path, image, dynamic=True)
    else:
        assert export_onnx(model, path, image, dynamic=True).multiple_of == row["multiple_of"]
        assert_same(path, model, image)


@pytest.mark.slow
@pytest.mark.parametrize("config", [SWIN, SWIN | {"type": "SwinTransformerV2"}, VIT], ids=["swin", "swin2", "vit"])
def test_any_size_of_ours(config: dict[str, object], tmp_path: Path) -> None:
    model, path = stirred(config), tmp_path / "m.onnx"
    assert export_onnx(model, path, torch.randn(1, 3, 61, 75), dynamic=True).multiple_of == 1
    for size in ((64, 96), (32, 32), (128, 33), (1, 1), (255, 257)):
        assert_same(path, model, torch.randn(1, 3, *size))
