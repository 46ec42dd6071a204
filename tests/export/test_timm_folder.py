"""The folder that `visionattn export timm` writes, and its answers to what cannot be exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from visionattn.attention.efficient import EfficientAttention
from visionattn.backbones.build import create_backbone
from visionattn.cli.main import main
from visionattn.export import timm_folder
from visionattn.export.timm_config import portable
from visionattn.export.timm_folder import export_timm

SWIN = {
    "type": "visionattn.SwinTransformer",
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (1, 2),
    "out_indices": (0, 1),
    "frozen_stages": 0,
    "drop_path_rate": 0.3,
}
RESNET = {
    "type": "visionattn.TimmBackbone",
    "model_name": "resnet18",
    "attention": {1: {"type": "EfficientAttention", "key_dim": 8}, 3: "EfficientAttention"},
    "timm_options": {"channels": (8, 8, 16, 16)},
    "norm_eval": True,
}
VIT = {
    "type": "visionattn.VisionTransformer",
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 2,
    "image_size": (64, 64),
    "out_indices": (0, 2),
}
BACKBONES: dict[str, dict[str, Any]] = {
    "swin": SWIN,
    "raw swin": {**SWIN, "out_norms": False},
    "resnet with attention": RESNET,
    "vit": VIT,
    "raw vit": {**VIT, "out_norms": False, "class_token": False},
    "mmseg, by the default scope": {"type": "ResNet", "depth": 18, "base_channels": 4, "norm_cfg": {"type": "BN"}},
    "attention inserted into mmseg's": {
        "type": "visionattn.InsertedBackbone",
        "backbone": {"type": "mmseg.ResNet", "depth": 18, "base_channels": 4, "norm_cfg": {"type": "BN"}},
        "attention": {"layer3": "EfficientAttention"},
        "input_size": (3, 64, 64),
    },
}
_CONFIG = """
default_scope = "mmseg"
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[127.5, 102, 51], std=[51, 102, 127.5], size=(64, 96)),
    backbone={backbone!r},
    decode_head=dict(type="FCNHead"),
)
"""


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    """With gradients, a stage that is frozen in the source computes by other kernels than one that is not."""
    with torch.no_grad():
        yield


def image(channels: int = 3) -> Tensor:
    return torch.rand(2, channels, 70, 90, generator=torch.Generator().manual_seed(1))


def randomised(model: nn.Module) -> nn.Module:
    """The model with every parameter, and every statistic, unlike what it begins with."""
    generator = torch.Generator().manual_seed(5)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.5, generator=generator).sub_(0.25 if value.dim() > 1 else 0.0)
    model.eval()
    return model


def segmentor(folder: Path, backbone: dict[str, Any]) -> tuple[Path, Path, nn.Module]:
    """A config, a segmentor's checkpoint and the backbone whose weights are in it."""
    config, checkpoint = folder / "bands.py", folder / "iter_9.pth"
    config.write_text(_CONFIG.format(backbone=backbone))
    scoped = {**backbone, "type": backbone["type"] if "." in backbone["type"] else f"mmseg.{backbone['type']}"}
    source = randomised(create_backbone(scoped))
    state = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": {**state, "decode_head.conv.weight": torch.ones(3)}, "meta": {}}, checkpoint)
    return config, checkpoint, source


def answer(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("visionattn: error: ")


def local(folder: Path, **arguments: Any) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **arguments).eval()


@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=pytest.mark.slow) if key.startswith("raw") else key for key in BACKBONES]
)
def test_timm_opens_the_same_backbone(key: str, tmp_path: Path) -> None:
    config, checkpoint, source = segmentor(tmp_path, BACKBONES[key])
    out = tmp_path / "out"
    export_timm(config, checkpoint, out)
    x = image()
    expected = list(source(x))
    assert len(expected) > 1
    model, features = local(out), local(out, features_only=True)
    maps = model.forward_intermediates(x, intermediates_only=True)
    for found in (maps, features(x)):
        assert len(found) == len(expected)
        assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    assert torch.equal(local(out, features_only=True, out_indices=[1])(x)[0], expected[1])
    assert features.feature_info.channels() == [m.shape[1] for m in expected]
    assert model(x).shape == (2, model.num_features)
    own = {name: value for name, value in model.state_dict().items() if not name.startswith("norm.")}
    other = local(out, num_classes=7)
    assert other(x).shape == (2, 7)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in own.items())
    assert all(p.requires_grad for p in other.parameters())


def test_what_the_folder_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint, _ = segmentor(tmp_path, SWIN)
    out = tmp_path / "sub" / "my-backbone"
    assert main(["export", "timm", str(config), str(checkpoint), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "weights   63 tensors match",
        "model     va_backbone, maps 16 x 1/4, 32 x 1/8",
        f"exported  {out}: config.json, model.safetensors, README.md",
    ]
    assert lines[3].endswith(
        f'import timm, visionattn.export.timm; timm.create_model("local-dir:{out}", pretrained=True)'
    )
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["my-backbone"]
    written = json.loads((out / "config.json").read_text())
    assert written["architecture"] == "va_backbone"
    kept = {key: value for key, value in SWIN.items() if key not in ("frozen_stages", "drop_path_rate")}
    assert written["model_args"]["backbone"] == json.loads(json.dumps(kept))
    known = written["pretrained_cfg"]
    assert known["mean"] == [0.5, 0.4, 0.2]
    assert known["std"] == [0.2, 0.4, 0.5]
    assert known["input_size"] == [3, 64, 96]
    assert known["pool_size"] == [8, 12]
    assert known["first_conv"] == "patch_embed.proj"
    card = (out / "README.md").read_text()
    assert "`import visionattn.export.timm` registers the names" in card
    assert 'timm.create_model("local-dir:my-backbone", pretrained=True' in card
    assert "from `bands` and `iter_9.pth`" in card
    assert "| 1 | 32 | 8 |" in card
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_timm_adapts_the_first_convolution(tmp_path: Path) -> None:
    config, checkpoint, source = segmentor(tmp_path, RESNET)
    export_timm(config, checkpoint, tmp_path / "out")
    grey = local(tmp_path / "out", in_chans=1)
    weight = source.get_submodule("body.conv1").weight
    torch.testing.assert_close(grey.get_submodule("body.conv1").weight, weight.sum(1, keepdim=True))
    config, checkpoint, source = segmentor(tmp_path, {**RESNET, "in_channels": 5})
    export_timm(config, checkpoint, tmp_path / "five")
    five = local(tmp_path / "five")
    assert five.in_chans == 5
    maps = five.forward_intermediates(image(5), intermediates_only=True)
    assert all(torch.equal(one, two) for one, two in zip(maps, source(image(5)), strict=True))


def test_options_change_the_config(tmp_path: Path) -> None:
    config, checkpoint, source = segmentor(tmp_path, {**SWIN, "num_heads": (2, 2)})
    config.write_text(config.read_text().replace("(2, 2), 'out", "(1, 1), 'out"))
    with pytest.raises(ValueError, match="belong to another model"):
        export_timm(config, checkpoint, tmp_path / "out")
    argv = ["export", "timm", str(config), str(checkpoint), str(tmp_path / "out")]
    assert main([*argv, "--cfg-options", "model.backbone.num_heads=(2,2)"]) == 0
    assert torch.equal(local(tmp_path / "out", features_only=True)(image())[1], source(image())[1])


class TestByName:
    """A backbone's name for CONFIG: what is in the file says whether timm's or our own form of it."""

    @pytest.fixture(autouse=True)
    def _tiny(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tiny = {"embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2), "window": (7, 7), "out_indices": (0, 1)}
        self.cfg = {"type": "SwinTransformer", **tiny}
        named = {"swin_tiny_window7": self.cfg}
        monkeypatch.setattr("visionattn.export.timm_source.named_backbones", lambda: named)
        create = timm.create_model

        def create_tiny(name: str, **arguments: Any) -> Any:
            options = {} if name != "va_swin_tiny_window7" else {k: v for k, v in tiny.items() if k != "out_indices"}
            return create(name, **options, **arguments)

        monkeypatch.setattr("visionattn.export.timm_source.timm.create_model", create_tiny)
        self.options = {k: v for k, v in tiny.items() if k not in ("window", "out_indices")}

    def test_a_classifiers_file(self, tmp_path: Path) -> None:
        peer = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, img_size=56, **self.options)
        torch.save({"model": randomised(peer).state_dict()}, tmp_path / "swin.pth")
        source = export_timm("swin_tiny_window7", tmp_path / "swin.pth", tmp_path / "out")
        assert source.architecture == "va_swin_tiny_window7"
        assert json.loads((tmp_path / "out" / "config.json").read_text())["num_classes"] == 5
        model = local(tmp_path / "out")
        x = image()[:, :, :56, :56]
        torch.testing.assert_close(model(x), peer(x), atol=1e-4, rtol=1e-5)
        assert local(tmp_path / "out", num_classes=3)(x).shape == (2, 3)
        raw = peer.forward_intermediates(x, intermediates_only=True)
        for one, two in zip(local(tmp_path / "out", features_only=True)(x), raw, strict=True):
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-5)

    def test_a_file_of_the_backbone_with_its_norms(self, tmp_path: Path) -> None:
        backbone = randomised(create_backbone(self.cfg))
        torch.save(backbone.state_dict(), tmp_path / "swin.pth")
        source = export_timm("visionattn.swin_tiny_window7", tmp_path / "swin.pth", tmp_path / "out")
        assert source.architecture == "va_backbone"
        maps = local(tmp_path / "out", features_only=True)(image())
        assert all(torch.equal(one, two) for one, two in zip(maps, backbone(image()), strict=True))


def test_what_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint, _ = segmentor(tmp_path, SWIN)
    out = str(tmp_path / "out")
    held = tmp_path / "held"
    held.mkdir()
    (held / "notes.txt").write_text("mine")
    torch.save({"state_dict": {"decode_head.weight": torch.ones(3)}}, tmp_path / "headless.pth")
    torch.save({"meta": {}}, tmp_path / "empty.pth")
    (tmp_path / "no_model.py").write_text("default_scope = 'mmseg'")
    export = ["export", "timm"]
    for argv, expected in (
        ([str(config), out], f"an export needs weights: visionattn export timm {config} CHECKPOINT {out}"),
        ([str(config), "no.pth", out], "checkpoint no.pth does not exist"),
        ([str(config), str(tmp_path / "empty.pth"), out], "no weights found"),
        ([str(config), str(tmp_path / "headless.pth"), out], "the weights belong to another model than VaSwin"),
        (
            [str(config), str(checkpoint), out, "--cfg-options", "model.backbone.embed_dim=32"],
            "expected Swin (embed_dim=32",
        ),
        (
            [str(config), str(checkpoint), out, "--cfg-options", "model.backbone.out_norms=False"],
            "4 unexpected (first: norm0.weight)",
        ),
        ([str(config), str(checkpoint), out, "--cfg-options", "model.backbone.type=Swum"], "Swum is not in the"),
        ([str(config), str(checkpoint), str(held)], "already holds notes.txt; give a folder that is new or empty"),
        ([str(config), str(checkpoint), str(checkpoint)], "is a file; give a folder that is new or empty"),
        ([str(tmp_path / "no_model.py"), str(checkpoint), out], "has no model.backbone: there is nothing to export"),
        (["swin_tiny_windw7", str(checkpoint), out], "did you mean swin_tiny_window7"),
        (["swin_tiny_window7", str(checkpoint), out], "Swin (embed_dim=16"),
        (
            ["swin_tiny_window7", str(checkpoint), out, "--cfg-options", "a=1"],
            "swin_tiny_window7 is the name of a backbone",
        ),
    ):
        assert expected in answer([*export, *argv], capsys), argv
    assert not Path(out).exists()
    assert [path.name for path in held.iterdir()] == ["notes.txt"]


def test_names_that_may_be_left_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint, backbone = segmentor(tmp_path, SWIN)
    command = ["export", "timm", str(config), str(checkpoint), str(tmp_path / "out")]
    raw = ["--cfg-options", "model.backbone.out_norms=False"]
    assert main([*command, *raw, "--allow", "norm?.*"]) == 0
    assert "6 left over as allowed (first: norm.weight)" in capsys.readouterr().out  # and the norm before a head
    maps = local(tmp_path / "out", features_only=True)(image())
    normed = [getattr(backbone, f"norm{i}")(x.movedim(1, -1)).movedim(-1, 1) for i, x in enumerate(maps)]
    for one, two in zip(normed, backbone(image()), strict=True):
        torch.testing.assert_close(one, two)


def test_what_json_cannot_hold() -> None:
    for value in (EfficientAttention, {3, 4}, float("inf")):
        with pytest.raises(ValueError, match=r"attention=.* of the backbone cannot be written to config\.json"):
            portable({"type": "SwinTransformer", "attention": {"type": "X", "option": value}}, "visionattn")


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, checkpoint, _ = segmentor(tmp_path, SWIN)
    before = sorted(tmp_path.iterdir())
    (tmp_path / ".out.tmp").mkdir()  # what a run that was killed has left

    def full(model: nn.Module, folder: str, **arguments: Any) -> None:
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(timm_folder, "save_for_hf", full)
    with pytest.raises(OSError, match="out was not written: No space left on device"):
        export_timm(config, checkpoint, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_that_timm_builds_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, checkpoint, _ = segmentor(tmp_path, SWIN)
    save = timm_folder.save_for_hf

    def other_window(model: nn.Module, folder: str, *, model_args: dict[str, Any], safe_serialization: bool) -> None:
        backbone = {
            **model_args["backbone"],
            "attention": {"type": "WindowAttention", "window": (7, 7)},
        }  # never shifts
        save(model, folder, model_args={"backbone": backbone}, safe_serialization=safe_serialization)

    monkeypatch.setattr(timm_folder, "save_for_hf", other_window)
    with pytest.raises(ValueError, match="a model with the same weights and other maps"):
        export_timm(config, checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()
