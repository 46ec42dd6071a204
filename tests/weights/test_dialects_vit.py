"""ViT weights go to torchvision's and mmseg's models and back bit for bit, and into ours; the models then agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weights_peers import assert_same_state, filled, image

from visionattn.backbones.build import create_backbone
from visionattn.weights.conversion import convert_weights
from visionattn.weights.loading import load_checkpoint

HEAD = ("head.*", "norm.*")


def timm_vit(side: int = 32, **options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    size = {"img_size": side, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 3}
    return filled(VisionTransformer(**{**size, **options}))


def torchvision_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return filled(VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=64, num_classes=3))


def mmseg_vit() -> nn.Module:
    from mmseg.models.backbones import VisionTransformer

    model = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dims=16,
        num_layers=3,
        num_heads=2,
        out_indices=(0, 1, 2),
        patch_bias=True,
        final_norm=True,
        norm_cfg={"type": "LN", "eps": 1e-6},
    )
    return filled(model)


def our_vit(**options: Any) -> nn.Module:
    size = {"image_size": (32, 32), "patch": (8, 8), "embed_dim": 16, "depth": 3, "num_heads": 2}
    return filled(create_backbone({"type": "VisionTransformer", **size, **options}), seed=5)


def maps(vit: nn.Module, x: Tensor) -> list[Tensor]:
    found: list[Tensor] = vit.forward_intermediates(x, intermediates_only=True)
    return found


@torch.no_grad()
def test_torchvision_is_equal_and_the_way_back_exact() -> None:
    source, target = timm_vit(), torchvision_vit()
    target.load_state_dict(convert_weights(source.state_dict(), "torchvision"), strict=True)
    torch.testing.assert_close(target(image(32, 32)), source(image(32, 32)), rtol=1e-5, atol=1e-5)
    assert_same_state(convert_weights(target.state_dict(), "timm"), source.state_dict())


def test_the_names_in_torchvisions_published_files_are_known() -> None:
    source = torchvision_vit().state_dict()
    published = {n.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): source[n] for n in source}
    assert published.keys() != source.keys()
    assert_same_state(convert_weights(published, "timm"), convert_weights(source, "timm"))
    assert_same_state(convert_weights(published, "torchvision"), source)


@torch.no_grad()
def test_mmseg_is_equal_and_the_way_back_exact() -> None:
    source, target = timm_vit(), mmseg_vit()
    target.load_state_dict(convert_weights(source.state_dict(), "mmseg", allow=("head.*",)), strict=True)
    x = image(32, 32)
    found, expected = target(x), maps(source, x)
    for index in (0, 1):
        torch.testing.assert_close(found[index], expected[index], rtol=1e-5, atol=1e-5)
    last = source.forward_features(x)[:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
    torch.testing.assert_close(found[2], last, rtol=1e-5, atol=1e-5)
    headless = {name: value for name, value in source.state_dict().items() if not name.startswith("head.")}
    assert_same_state(convert_weights(target.state_dict(), "timm"), headless)
    assert_same_state(convert_weights(convert_weights(target.state_dict(), "torchvision"), "timm"), headless)


@torch.no_grad()
@pytest.mark.parametrize("dialect", ["timm", "torchvision", "mmseg"])
def test_every_dialect_loads_into_our_vit(dialect: str, tmp_path: Path) -> None:
    source = timm_vit()
    torch.save(convert_weights(source.state_dict(), dialect, allow=("head.*",)), tmp_path / "vit.pth")
    ours = our_vit(out_norms=False)
    report = load_checkpoint(ours, tmp_path / "vit.pth", allow=HEAD)
    assert report.complete
    assert set(report.matched) == set(ours.state_dict())
    torch.testing.assert_close(ours(image(32, 32))[0], maps(source, image(32, 32))[-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extent", [(40, 40), (24, 56)])
@pytest.mark.parametrize("options", [{}, {"class_token": True, "reg_tokens": 4}], ids=["class", "registers"])
def test_positions_are_resized_as_timm_does(extent: tuple[int, int], options: dict[str, Any], tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    source = timm_vit(**options)
    tokens = 1 + options.get("reg_tokens", 0)
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    for target in (our_vit(image_size=extent, register_tokens=tokens - 1), timm_vit(extent, **options)):
        report = load_checkpoint(target, tmp_path / "vit.pth", allow=HEAD)
        grid = (extent[0] // 8, extent[1] // 8)
        rows = tokens + grid[0] * grid[1]
        assert report.resized == {"pos_embed": f"[1, {16 + tokens}, 16] to [1, {rows}, 16]"}
        expected = resample_abs_pos_embed(source.pos_embed, grid, num_prefix_tokens=tokens)
        torch.testing.assert_close(target.pos_embed, expected)


def test_a_vit_without_class_token_drops_its_position(tmp_path: Path) -> None:
    source = timm_vit()
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    ours = our_vit(class_token=False)
    with pytest.raises(ValueError, match=r"1 of them resized .*, 3 unexpected .*; allow=\('cls_token', 'head\.\*'\)"):
        load_checkpoint(ours, tmp_path / "vit.pth")
    assert load_checkpoint(ours, tmp_path / "vit.pth", allow=("cls_token", "head.*")).complete
    assert torch.equal(ours.pos_embed, source.pos_embed[:, 1:])


def test_a_vit_of_another_size_names_both(tmp_path: Path) -> None:
    torch.save(timm_vit(embed_dim=32).state_dict(), tmp_path / "vit.pth")
    expected = (
        r"ViT \(embed_dim=32, patch=\(8, 8\), depth=3\), expected ViT \(embed_dim=16, patch=\(8, 8\), depth=3\): "
    )
    with pytest.raises(ValueError, match=expected):
        load_checkpoint(our_vit(), tmp_path / "vit.pth", allow=HEAD)


def test_microsoft_has_no_vit_and_torchvision_no_registers() -> None:
    with pytest.raises(
        ValueError, match="microsoft has no ViT, which these weights are; they can go to timm, torchvision a"
    ):
        convert_weights(timm_vit().state_dict(), "microsoft")
    refused = r"1 of 45 tensors have no place in torchvision: reg_token; allow=\('reg_token',\)"
    with pytest.raises(ValueError, match=refused):
        convert_weights(timm_vit(reg_tokens=1).state_dict(), "torchvision")
