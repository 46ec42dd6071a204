"""Weights under anyone's names, for any window and image size, load into our backbones and into others' models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from weights_peers import SIZE, filled, image, mmseg_swin, parameters, timm_swin, torchvision_swin

from visionattn.backbones.build import create_backbone
from visionattn.weights.conversion import convert_weights
from visionattn.weights.loading import load_checkpoint

CLASSIFIER = ("norm.*", "head.*")


def our_swin(window: tuple[int, int] = (7, 7), *, v2: bool = False, **options: Any) -> nn.Module:
    kind = "SwinTransformerV2" if v2 else "SwinTransformer"
    size = {"out_indices": (0, 1), "window": window, "image_size": (56, 56), **SIZE}
    return filled(create_backbone({"type": kind, "out_norms": False, **size, **options}), seed=5)


@torch.no_grad()
def assert_maps_of_timm(ours: nn.Module, timm: nn.Module, x: Tensor) -> None:
    for found, expected in zip(ours(x), timm.forward_intermediates(x, intermediates_only=True), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("v2", "dialect"),
    [
        *((False, name) for name in ("timm", "microsoft", "torchvision", "mmseg")),
        *((True, name) for name in ("timm", "microsoft", "torchvision")),
    ],
)
def test_every_dialect_loads_into_our_swin(v2: bool, dialect: str, suffix: str, tmp_path: Path) -> None:
    window = 8 if v2 else 7
    source = timm_swin(window, (8 * window, 8 * window), v2=v2)
    state = convert_weights(source.state_dict(), dialect, window=(window, window) if v2 else None, allow=CLASSIFIER)
    path = tmp_path / f"swin{suffix}"
    if suffix == ".pth":
        torch.save({"model": state, "epoch": 3}, path)
    else:
        save_file(state, path)
    ours = our_swin((window, window), v2=v2)
    report = load_checkpoint(ours, path, allow=CLASSIFIER)
    assert report.complete
    assert not report.missing
    assert set(report.matched) == set(ours.state_dict())
    assert report.dialect == (None if dialect == "timm" else dialect)
    assert len(report.allowed) == (0 if dialect == "mmseg" else 4)
    assert_maps_of_timm(ours, source, image(8 * window, 8 * window))


def test_a_whole_segmentors_backbone_loads_into_another_segmentor_and_into_a_backbone(tmp_path: Path) -> None:
    """As mmseg publishes UPerNet on Swin: backbone., decode_head., auxiliary_head."""
    theirs = mmseg_swin(7)
    head = nn.Conv2d(32, 3, 1)
    whole = nn.ModuleDict({"backbone": theirs, "decode_head": head})
    torch.save({"state_dict": whole.state_dict(), "meta": {}}, tmp_path / "upernet.pth")

    ours = our_swin(out_norms=True, shift_covered_axes=True)
    segmentor = nn.ModuleDict({"backbone": ours, "decode_head": filled(nn.Conv2d(32, 3, 1), seed=8)})
    report = load_checkpoint(segmentor, tmp_path / "upernet.pth")
    assert report.complete
    assert report.dialect == "mmseg"
    assert torch.equal(segmentor["decode_head"].weight, head.weight)
    x = image(56, 56)
    with torch.no_grad():
        for found, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    for options in ({"allow": ("decode_head.*",)}, {"prefix": "backbone."}):
        alone = our_swin(out_norms=True)
        assert load_checkpoint(alone, tmp_path / "upernet.pth", **options).complete
        assert torch.equal(alone.norm1.weight, theirs.norm1.weight)
    with pytest.raises(ValueError, match=r"2 unexpected \(first: decode_head\.weight\); allow=\('decode_head\.\*',\)"):
        load_checkpoint(our_swin(out_norms=True), tmp_path / "upernet.pth")


def test_a_backbones_weights_load_into_a_segmentor(tmp_path: Path) -> None:
    source = timm_swin(7, (56, 56))
    torch.save({"model": convert_weights(source.state_dict(), "microsoft")}, tmp_path / "swin.pth")
    segmentor = nn.ModuleDict({"backbone": our_swin(), "decode_head": nn.Conv2d(32, 3, 1)})
    report = load_checkpoint(segmentor, tmp_path / "swin.pth", allow=("backbone.norm.*", "backbone.head.*", "decode_*"))
    assert report.complete
    assert_maps_of_timm(segmentor["backbone"], source, image(56, 56))


@pytest.mark.parametrize("dialect", ["torchvision", "mmseg"])
def test_others_models_take_any_dialect_too(dialect: str, tmp_path: Path) -> None:
    source = timm_swin(7, (56, 56))
    torch.save({"model": convert_weights(source.state_dict(), "microsoft")}, tmp_path / "swin.pth")
    target = torchvision_swin(7) if dialect == "torchvision" else mmseg_swin(7)
    report = load_checkpoint(target, tmp_path / "swin.pth", allow=("norm*", "head.*") if dialect == "mmseg" else ())
    assert report.complete
    expected = convert_weights(source.state_dict(), dialect, allow=CLASSIFIER if dialect == "mmseg" else ())
    found = target.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_bias_tables_of_another_window_are_resized_as_mmseg_does(tmp_path: Path) -> None:
    from mmseg.models.backbones import SwinTransformer

    source = timm_swin(7, (56, 56))
    state = convert_weights(source.state_dict(), "mmseg", allow=CLASSIFIER)
    # mmseg would load the index of the other window as well.
    torch.save(parameters(state), tmp_path / "mmseg.pth")
    theirs = SwinTransformer(
        embed_dims=16,
        depths=SIZE["depths"],
        num_heads=SIZE["num_heads"],
        strides=(4, 2),
        out_indices=(0, 1),
        window_size=5,
        init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "mmseg.pth")},
    )
    theirs.init_weights()
    torch.save(source.state_dict(), tmp_path / "timm.pth")
    ours = our_swin((5, 5))
    report = load_checkpoint(ours, tmp_path / "timm.pth", allow=CLASSIFIER)
    assert report.complete
    assert len(report.resized) == sum(SIZE["depths"])
    assert report.resized["layers.0.blocks.0.attn.relative_position_bias_table"] == "[169, 2] to [81, 2]"
    assert "5 of them resized (first: layers.0.blocks.0.attn.relative_position_bias_table [169, 2] to [81, 2])" in str(
        report
    )
    for stage, block in ((0, 0), (1, 2)):
        found = ours.layers[stage].blocks[block].attn.relative_position_bias_table
        expected = theirs.stages[stage].blocks[block].attn.w_msa.relative_position_bias_table
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_buffers_of_another_window_are_the_models_own(tmp_path: Path) -> None:
    """mmseg saves its index: that of the file's window must not come into a model of another."""
    source, target = mmseg_swin(7), mmseg_swin(5)
    torch.save(source.state_dict(), tmp_path / "mmseg.pth")
    index = target.stages[0].blocks[0].attn.w_msa.relative_position_index.clone()
    report = load_checkpoint(target, tmp_path / "mmseg.pth")
    assert report.complete
    assert len(report.resized) == sum(SIZE["depths"])
    assert report.dialect is None
    assert torch.equal(target.stages[0].blocks[0].attn.w_msa.relative_position_index, index)


def test_a_window_that_is_no_square_is_the_models(tmp_path: Path) -> None:
    source = timm_swin(7, (56, 56))
    torch.save(source.state_dict(), tmp_path / "timm.pth")
    ours = our_swin((3, 8))
    assert load_checkpoint(ours, tmp_path / "timm.pth", allow=CLASSIFIER).complete
    table = source.layers[0].blocks[0].attn.relative_position_bias_table.detach().t().reshape(1, 2, 13, 13)
    expected = F.interpolate(table, (5, 15), mode="bicubic")[0].flatten(1).t()
    assert torch.equal(ours.layers[0].blocks[0].attn.relative_position_bias_table, expected)


@pytest.mark.parametrize("extent", [(48, 48), (32, 64)])
def test_absolute_positions_are_resized(extent: tuple[int, int], tmp_path: Path) -> None:
    from timm.layers import resample_abs_pos_embed

    source = our_swin(absolute_position=True)
    torch.save(source.state_dict(), tmp_path / "swin.pth")
    ours = our_swin(absolute_position=True, image_size=extent)
    report = load_checkpoint(ours, tmp_path / "swin.pth")
    grid = (extent[0] // 4, extent[1] // 4)
    assert report.resized == {"absolute_pos_embed": f"[1, 196, 16] to [1, {grid[0] * grid[1]}, 16]"}
    expected = resample_abs_pos_embed(source.absolute_pos_embed, grid, num_prefix_tokens=0)
    torch.testing.assert_close(ours.absolute_pos_embed, expected)


def test_weights_in_half_precision_are_resized_in_float32(tmp_path: Path) -> None:
    source = timm_swin(7, (56, 56))
    half = {name: value.half() for name, value in source.state_dict().items()}
    torch.save(half, tmp_path / "half.pth")
    torch.save({name: value.float() for name, value in half.items()}, tmp_path / "float.pth")
    one, other = our_swin((5, 5)), our_swin((5, 5))
    load_checkpoint(one, tmp_path / "half.pth", allow=CLASSIFIER)
    load_checkpoint(other, tmp_path / "float.pth", allow=CLASSIFIER)
    tables = [net.layers[0].blocks[1].attn.relative_position_bias_table for net in (one, other)]
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"embed_dim": 32}, "embed_dim=32, depths=(2, 3), num_heads=(2, 4)"),
        ({"depths": (2, 1)}, "embed_dim=16, depths=(2, 1), num_heads=(2, 4)"),
        ({"num_heads": (4, 4)}, "embed_dim=16, depths=(2, 3), num_heads=(4, 4)"),
    ],
)
def test_a_checkpoint_of_another_size_names_both(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = timm_swin(7, (56, 56))
    torch.save({"model": convert_weights(source.state_dict(), "microsoft")}, tmp_path / "swin.pth")
    ours = our_swin(**options)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError) as refused:
        load_checkpoint(ours, tmp_path / "swin.pth", allow=CLASSIFIER)
    assert str(refused.value).startswith(
        f"{tmp_path}/swin.pth: the weights belong to another model than SwinTransformer: Swin (embed_dim=16, "
        f"depths=(2, 3), num_heads=(2, 4)), expected Swin ({said}): "
    )
    assert "\n" not in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


def test_names_of_no_dialect_are_said_to_be_that(tmp_path: Path) -> None:
    torch.save({"foo.weight": torch.ones(2)}, tmp_path / "foo.pth")
    names = "its names are none of microsoft, timm, torchvision and mmseg"
    with pytest.raises(ValueError, match=rf"0 tensors match, .* 1 unexpected \(first: foo\.weight\); {names}$"):
        load_checkpoint(our_swin(), tmp_path / "foo.pth")


def test_a_swin_v2_is_no_swin(tmp_path: Path) -> None:
    torch.save(timm_swin(8, (64, 64), v2=True).state_dict(), tmp_path / "v2.pth")
    with pytest.raises(ValueError, match=r"Swin V2 \(embed_dim=16, .*\), expected Swin \(embed_dim=16, "):
        load_checkpoint(our_swin((8, 8)), tmp_path / "v2.pth", allow=CLASSIFIER)


def test_what_may_be_left_over_is_named_and_taken_from_the_error(tmp_path: Path) -> None:
    torch.save({"model": convert_weights(timm_swin(7, (56, 56)).state_dict(), "microsoft")}, tmp_path / "swin.pth")
    with pytest.raises(ValueError) as refused:
        load_checkpoint(our_swin(out_norms=True), tmp_path / "swin.pth")
    allow = "allow=('norm0.*', 'norm1.*', 'norm.*', 'head.*') (--allow 'norm0.*' 'norm1.*' 'norm.*' 'head.*')"
    advice = f"{allow} lets these be left over"
    assert str(refused.value).endswith(f"4 missing (first: norm0.weight), 4 unexpected (first: norm.weight); {advice}")
    report = load_checkpoint(our_swin(out_norms=True), tmp_path / "swin.pth", allow=("norm?.*", "norm.*", "head.*"))
    assert report.complete
    assert len(report.allowed) == 8
    assert str(report).endswith("by microsoft's names, 8 left over as allowed (first: norm0.weight)")
    with pytest.raises(TypeError, match=r"allow='head\.\*' must be a sequence"):
        load_checkpoint(our_swin(), tmp_path / "swin.pth", allow="head.*")


def test_a_classifier_of_other_classes_may_be_left_over(tmp_path: Path) -> None:
    source, target = timm_swin(7, (56, 56)), torchvision_swin(7)
    torch.save(source.state_dict(), tmp_path / "swin.pth")
    target.head = nn.Linear(32, 9)
    before = target.head.weight.clone()
    with pytest.raises(ValueError, match=r"first: head\.weight \[3, 32\], expected \[9, 32\]\); allow=\('head\.\*',\)"):
        load_checkpoint(target, tmp_path / "swin.pth")
    report = load_checkpoint(target, tmp_path / "swin.pth", allow=("head.*",))
    assert report.allowed == ("head.weight", "head.bias")
    assert torch.equal(target.head.weight, before)


def test_attention_may_be_another(tmp_path: Path) -> None:
    """A Swin with another mechanism takes from a Swin's weights all but the attention's own."""
    source = timm_swin(7, (56, 56))
    torch.save({"model": convert_weights(source.state_dict(), "microsoft")}, tmp_path / "swin.pth")
    ours = our_swin(attention="EfficientAttention")
    report = load_checkpoint(ours, tmp_path / "swin.pth", allow=(*CLASSIFIER, "*bias_table"))
    assert report.complete
    assert torch.equal(ours.layers[1].blocks[0].attn.qkv.weight, source.layers[1].blocks[0].attn.qkv.weight)
