"""Swin as a backbone: any size, any mechanism, stages, norms, freezing; its numbers stand in test_swin_parity.py."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import visionattn
from visionattn.attention.build import list_attention
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.attention.window import WindowAttention
from visionattn.attention.window_v2 import WindowAttentionV2
from visionattn.backbones.build import create_backbone
from visionattn.backbones.depth import attention_by_depth, drop_path_by_depth
from visionattn.backbones.named import named_backbones
from visionattn.backbones.swin import SwinTransformer, SwinTransformerV2
from visionattn.backbones.timm_backbone import TimmBackbone
from visionattn.blocks.drop_path import DropPath
from visionattn.registry import MODELS

SMALL: dict[str, Any] = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "out_indices": (0, 1)}
KINDS = [SwinTransformer, SwinTransformerV2]
both = pytest.mark.parametrize("kind", KINDS)


def small(kind: Callable[..., nn.Module] = SwinTransformer, seed: int = 0, **options: Any) -> nn.Module:
    """Two stages with random weights, in eval mode: where norms start at zero, blocks would do nothing."""
    torch.manual_seed(seed)
    model = kind(**{**SMALL, "window": (3, 3), "image_size": (48, 48), **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def image(height: int = 50, width: int = 37, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def mixers(model: nn.Module) -> list[nn.Module]:
    return [block.attn for stage in model.layers for block in stage.blocks]


@both
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (50, 37), (64, 48)])
def test_any_size(kind: type[nn.Module], size: tuple[int, int]) -> None:
    model = small(kind, depths=(2, 1, 1), num_heads=(2, 4, 8), out_indices=(0, 1, 2)).train()
    x = image(*size).requires_grad_()
    maps = model(x)
    assert model.strides == (4, 8, 16)
    for features, channels, stride in zip(maps, model.out_channels, model.strides, strict=True):
        assert features.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    sum(features.square().sum() for features in maps).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@both
@pytest.mark.parametrize("attention", [None, *list_attention()])
def test_any_mechanism_takes_the_place_of_windows(kind: type[nn.Module], attention: str | None) -> None:
    model = small(kind, attention=attention).train()
    maps = model(image())
    sum(features.square().mean() for features in maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        assert all(features.isfinite().all() for features in model(image(33, 20)))


def test_the_published_attention_is_a_list_of_configs() -> None:
    windows = [
        {"type": "WindowAttention", "window": (3, 3), "shift": s, "mask_padding": False} for s in ((0, 0), (1, 1))
    ]
    published, listed = small(), small(attention=windows)
    listed.load_state_dict(published.state_dict())
    for ours, theirs in zip(published(image()), listed(image()), strict=True):
        assert torch.equal(ours, theirs)
    assert [mixer.shift for mixer in mixers(published)] == [(0, 0), (1, 1)] * 2
    assert [mixer.num_heads for mixer in mixers(published)] == [2, 2, 4, 4]


def test_attention_goes_round_over_the_depth() -> None:
    cycle = ["EfficientAttention", {"type": "SoftmaxAttention", "num_heads": 1}, {"type": "WindowAttention"}]
    before = copy.deepcopy(cycle)
    model = small(depths=(5, 2), attention=cycle)
    kinds = [type(mixer) for mixer in mixers(model)]
    assert kinds == [
        *(EfficientAttention, SoftmaxAttention, WindowAttention, EfficientAttention, SoftmaxAttention),
        *(EfficientAttention, SoftmaxAttention),
    ]
    assert [mixer.num_heads for mixer in mixers(model)] == [2, 1, 2, 2, 1, 4, 1]
    assert cycle == before, "a config may be used again"
    assert "num_heads" not in attention_by_depth("NonLocal", 1, 4)[0], "it has no heads"
    with pytest.raises(ValueError, match=r"attention=\[\] names no mechanism"):
        small(attention=[])


def test_windows_by_stage() -> None:
    model = small(SwinTransformerV2, window=[(4, 4), (2, 3)], pretrained_window=[(3, 3), (2, 2)])
    assert [mixer.window for mixer in mixers(model)] == [(4, 4), (4, 4), (2, 3), (2, 3)]
    assert [mixer.shift for mixer in mixers(model)] == [(0, 0), (2, 2), (0, 0), (1, 1)]
    assert [mixer.pretrained_window for mixer in mixers(model)] == [(3, 3), (3, 3), (2, 2), (2, 2)]
    assert all(isinstance(mixer, WindowAttentionV2) for mixer in mixers(model))


def test_drop_path_rises_linearly() -> None:
    model = small(depths=(2, 3), drop_path_rate=0.4)
    rates = [block.drop_path1.p for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert rates == pytest.approx(torch.linspace(0, 0.4, 5).tolist())
    assert drop_path_by_depth(0.3, (1,)) == [[0.0]]
    x = image()
    assert all(torch.equal(a, b) for a, b in zip(model(x), model(x), strict=True))
    model.train()
    assert not torch.equal(model(x)[1], model(x)[1])
    assert sum(isinstance(module, DropPath) for module in model.modules()) == 10


@both
def test_norms_on_the_maps(kind: type[nn.Module]) -> None:
    normed, raw = small(kind), small(kind, out_norms=False)
    raw.load_state_dict({key: w for key, w in normed.state_dict().items() if not key.startswith("norm")})
    for index, (features, plain) in enumerate(zip(normed(image()), raw(image()), strict=True)):
        norm = getattr(normed, f"norm{index}")
        centred = plain - plain.mean(1, keepdim=True)
        expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)


def test_stages_that_are_not_returned() -> None:
    model = small(depths=(1, 1, 1), num_heads=(2, 4, 8), out_indices=(1,))
    full = small(depths=(1, 1, 1), num_heads=(2, 4, 8), out_indices=(0, 1, 2))
    assert (model.out_channels, model.strides) == ((16,), (8,))
    assert [info["num_chs"] for info in model.feature_info] == [8, 16, 32]
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16]
    modules = dict(model.named_modules())
    assert all(info["module"] in modules for info in model.feature_info)
    assert {name for name, _ in model.named_children() if name.startswith("norm")} == {"norm1"}
    model.load_state_dict({key: w for key, w in full.state_dict().items() if key in model.state_dict()})
    ran: list[str] = []
    model.layers[2].register_forward_hook(lambda *_: ran.append("stage 2"))
    (features,) = model(image())
    torch.testing.assert_close(features, full(image())[1])
    assert not ran
    features.sum().backward()
    waiting = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not waiting, "DistributedDataParallel would wait for them"


def test_frozen_stages() -> None:
    """A training step moves nothing up to the frozen stage, everything behind it, and drops no path before it."""
    options = {"depths": (2, 1, 1), "num_heads": (2, 4, 8), "out_indices": (0, 2), "absolute_position": True}
    model = small(frozen_stages=1, drop_path_rate=0.9, **options)
    assert model.train() is model
    free = [name for name, p in model.named_parameters() if p.requires_grad]
    assert {name.split(".")[0] for name in free} == {"layers", "norm2"}
    assert all(name.startswith(("layers.2", "norm2")) for name in free)
    x = image()
    assert torch.equal(model(x)[0], model(x)[0])
    assert model.layers[2].training
    before = {key: w.clone() for key, w in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sum(features.square().sum() for features in model.eval()(x)).backward()
    optimizer.step()
    moved = {key for key, w in model.state_dict().items() if not torch.equal(w, before[key])}
    assert moved == set(free)
    assert not any(p.requires_grad for p in small(frozen_stages=2, **options).parameters())
    assert all(p.requires_grad for p in small(**options).parameters())


@both
def test_gradient_checkpointing_gives_the_same_gradients(kind: type[nn.Module]) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = small(kind, grad_checkpointing=checkpointing, drop_path_rate=0.0).train()
        calls: list[int] = []
        mixers(model)[0].register_forward_pre_hook(lambda module, args, calls=calls: calls.append(1))
        sum(features.square().mean() for features in model(image())).backward()
        assert len(calls) == 1 + checkpointing, "a checkpointed block runs again in the backward pass"
        gradients.append({key: p.grad for key, p in model.named_parameters()})
        with torch.no_grad():
            model(image())
        assert len(calls) == 2 + checkpointing
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-6, msg=key)
    model.set_grad_checkpointing(False)
    assert not any(stage.grad_checkpointing for stage in model.layers)


def test_absolute_position() -> None:
    model = small(absolute_position=True, image_size=(32, 24))
    assert model.absolute_pos_embed.shape == (1, 8 * 6, 8)
    seen: list[Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = image(32, 24)
    model(x)
    torch.testing.assert_close(seen[0], model.patch_embed(x) + model.absolute_pos_embed.reshape(1, 8, 6, 8))
    nn.init.ones_(model.absolute_pos_embed)
    for size in ((31, 50), (1, 1)):
        model(image(*size))
        torch.testing.assert_close(seen[-1], model.patch_embed(image(*size)) + 1)
    assert small().absolute_pos_embed is None
    assert "absolute_pos_embed" not in small().state_dict()


def test_parameter_names_are_timm_s() -> None:
    model = small(SwinTransformer, absolute_position=True)
    assert model.no_weight_decay() == {
        "absolute_pos_embed",
        *(f"layers.{stage}.blocks.{block}.attn.relative_position_bias_table" for stage in (0, 1) for block in (0, 1)),
    }
    undecayed = small(SwinTransformerV2).no_weight_decay()
    assert {name.partition(".attn.")[2] for name in undecayed} == {
        *("logit_scale", "cpb_mlp.0.weight", "cpb_mlp.0.bias", "cpb_mlp.2.weight")
    }
    assert not [name for name, _ in model.named_buffers() if name in model.state_dict()]


PEERS = {
    "swin_tiny_window7": "swin_tiny_patch4_window7_224",
    "swin_small_window7": "swin_small_patch4_window7_224",
    "swin_base_window7": "swin_base_patch4_window7_224",
    "swin_base_window12": "swin_base_patch4_window12_384",
    "swin_large_window7": "swin_large_patch4_window7_224",
    "swin_large_window12": "swin_large_patch4_window12_384",
    "swinv2_tiny_window8": "swinv2_tiny_window8_256",
    "swinv2_tiny_window16": "swinv2_tiny_window16_256",
    "swinv2_small_window8": "swinv2_small_window8_256",
    "swinv2_base_window12": "swinv2_base_window12_192",
    "swinv2_base_window16": "swinv2_base_window16_256",
    "swinv2_base_window12to24": "swinv2_base_window12to24_192to384",
    "swinv2_large_window12to16": "swinv2_large_window12to16_192to256",
}


@pytest.mark.parametrize(
    "name", [name if "tiny" in name else pytest.param(name, marks=pytest.mark.slow) for name in PEERS]
)
def test_named_sizes_are_timm_s(name: str) -> None:
    """Every parameter's name and shape, every block's window and drop path."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        ours, theirs = visionattn.create_backbone(name), timm.create_model(PEERS[name], drop_path_rate=0.0)
    shapes = {key: p.shape for key, p in ours.named_parameters() if not key.startswith("norm")}
    assert shapes == {key: p.shape for key, p in theirs.named_parameters() if key.split(".")[0] not in ("norm", "head")}
    for mine, block in zip(mixers(ours), (b for stage in theirs.layers for b in stage.blocks), strict=True):
        assert mine.num_heads == block.attn.num_heads
        assert mine.window == block.window_size
        trained = getattr(block.attn, "pretrained_window_size", (0, 0))
        assert getattr(mine, "pretrained_window", None) == (trained if trained[0] else None)
        assert mine.shift == block.shift_size or (mine.shift[0] > 0 and block.shift_size == (0, 0))


def test_by_name() -> None:
    names = named_backbones()
    for size in ("tiny", "small", "base", "large"):
        assert {f"swin_{size}_window7", f"swin_{size}_window12"} <= set(names)
        assert {f"swinv2_{size}_window8", f"swinv2_{size}_window16"} <= set(names)
    names["swin_tiny_window7"]["depths"] = ()
    assert named_backbones()["swin_tiny_window7"]["depths"] == (2, 2, 6, 2)

    config = {"type": "visionattn.swin_tiny_window7", "depths": (1, 1, 1, 1), "attention": "EfficientAttention"}
    model = visionattn.create_backbone(config)
    assert isinstance(model, SwinTransformer)
    assert [type(mixer) for mixer in mixers(model)] == [EfficientAttention] * 4
    assert config["type"] == "visionattn.swin_tiny_window7"
    with pytest.raises(KeyError, match=r"no backbone is called 'swin_tiny_windw7'; did you mean swin_tiny_window7"):
        visionattn.create_backbone("swin_tiny_windw7")


def test_a_file_of_another_window(tmp_path: Path) -> None:
    trained, wider = small(), small(seed=3, window=(5, 5))
    torch.save(trained.state_dict(), tmp_path / "window3.pth")
    report = visionattn.load_checkpoint(wider, tmp_path / "window3.pth")
    assert report.complete
    table = mixers(trained)[1].relative_position_bias_table.detach()  # 5 x 5 offsets, 2 heads
    expected = nn.functional.interpolate(table.t().reshape(1, 2, 5, 5), (9, 9), mode="bicubic").reshape(2, 81).t()
    torch.testing.assert_close(mixers(wider)[1].relative_position_bias_table.detach(), expected)
    other = small(SwinTransformerV2, seed=3, window=(5, 5), pretrained_window=(3, 3))
    torch.save(small(SwinTransformerV2).state_dict(), tmp_path / "v2.pth")
    assert visionattn.load_checkpoint(other, tmp_path / "v2.pth").complete


@both
def test_checkpoint_of_a_classifier(kind: type[nn.Module], tmp_path: Path) -> None:
    """timm's file, with its classifier; frozen or not, and where other mechanisms stand in for some windows."""
    models = pytest.importorskip("timm.models")
    theirs = models.SwinTransformerV2 if kind is SwinTransformerV2 else models.SwinTransformer
    size = {"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4)}
    peer = theirs(img_size=48, window_size=3, num_classes=5, **size).eval()
    torch.save(peer.state_dict(), tmp_path / "swin.pth")
    options = {**SMALL, "window": (3, 3), "out_norms": False, "checkpoint": tmp_path / "swin.pth"}
    expected = peer.forward_intermediates(image(48, 48), intermediates_only=True)
    for features, wanted in zip(kind(**options).eval()(image(48, 48)), expected, strict=True):
        torch.testing.assert_close(features, wanted)
    kind(**{**options, "out_norms": True, "frozen_stages": 1})
    replaced = kind(**options, attention=["EfficientAttention", "NonLocal"])
    assert torch.equal(mixers(replaced)[0].qkv.weight, peer.layers[0].blocks[0].attn.qkv.weight)
    with pytest.raises(ValueError, match=r"swin\.pth: the weights belong to another model"):
        kind(**{**options, "depths": (2, 1)})
    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        kind(**{**options, "checkpoint": tmp_path / "no.pth"})


def test_starts_as_published() -> None:
    torch.manual_seed(0)
    model = SwinTransformer(embed_dim=32, depths=(1, 1), num_heads=(2, 2), out_indices=(0, 1))
    for name, parameter in model.named_parameters():
        if name.endswith(("qkv.weight", "proj.weight", "reduction.weight", "fc1.weight", "fc2.weight")):
            assert "patch_embed" in name or 0.018 < parameter.std() < 0.022, name
        elif name.endswith("bias") and "patch_embed" not in name:
            assert not parameter.any(), name
    v2 = SwinTransformerV2(embed_dim=8, depths=(1, 1), num_heads=(2, 2), out_indices=(0, 1), out_norms=False)
    x = image()
    torch.testing.assert_close(v2(x)[0], v2.patch_embed(x).permute(0, 3, 1, 2))  # the norms of its blocks start at zero


@both
def test_half_precision(kind: type[nn.Module]) -> None:
    model = small(kind)
    expected = model(image())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(image())
    for features, exact in zip(mixed, expected, strict=True):
        torch.testing.assert_close(features.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    assert all(features.isfinite().all() for features in model.bfloat16()(image().bfloat16()))


@both
def test_copies_and_pickles(kind: type[nn.Module]) -> None:
    model = small(kind, frozen_stages=0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(other(image()), model(image()), strict=True))
        other.train()
        assert not other.layers[0].training
        assert other.layers[1].training


def test_in_mmsegs_segmentor_from_a_config_file(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "model = dict(type='mmseg.EncoderDecoder', "
        "backbone=dict(type='visionattn.SwinTransformer', embed_dim=8, depths=[1, 1], num_heads=[2, 4],"
        " out_indices=[0, 1], window=[3, 3], attention=['EfficientAttention', dict(type='WindowAttention')]),"
        "decode_head=dict(type='mmseg.FCNHead', in_channels=16, in_index=1, channels=8, num_convs=1, num_classes=4,"
        " loss_decode=dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)))"
    )
    model = MODELS.build(Config.fromfile(tmp_path / "model.py").model)
    before = {key: w.clone() for key, w in model.backbone.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(w, before[key]) for key, w in model.backbone.state_dict().items())
    model.train()
    model(image()).square().sum().backward()
    assert model.backbone.patch_embed.proj.weight.grad.any()


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"out_indices": (0, 2)},
        ValueError,
        r"out_indices=\(0, 2\) must rise; this SwinTransformer has the stages 0 to 1",
    ),
    ({"out_indices": (1, 0)}, ValueError, r"out_indices=\(1, 0\) must rise"),
    ({"out_indices": ()}, ValueError, r"out_indices=\(\) must rise"),
    ({"frozen_stages": 2}, ValueError, r"frozen_stages=2: this SwinTransformer has the stages 0 to 1; -1 freezes"),
    ({"num_heads": (2,)}, ValueError, r"depths=\(2, 2\) and num_heads=\(2,\) must have one entry"),
    ({"num_heads": (2, 5)}, ValueError, r"num_heads=5 does not divide dim=16; use 1, 2, 4, 8 or 16"),
    ({"window": 7}, TypeError, r"window=7 must hold height and width: \(7, 7\)"),
    ({"window": [(7, 7)]}, ValueError, r"window=\[\(7, 7\)\] must be one pair, .* one pair for each of 2 stages"),
    ({"window": (7, 7, 7)}, ValueError, r"window=\(7, 7, 7\) must be one pair"),
    ({"image_size": 224}, TypeError, r"image_size=224 must hold height and width: \(224, 224\)"),
    ({"image_size": (224,)}, ValueError, r"image_size=\(224,\) must hold two integers"),
    ({"drop_path_rate": 1.0}, ValueError, r"drop_path=1.0 must be at least 0 and below 1"),
    ({"attention": "Eficient"}, KeyError, r"no attention mechanism is called 'Eficient'; did you mean"),
    ({"attention": {"window": (3, 3)}}, KeyError, r"an attention config is a name or dict\(type="),
]


@pytest.mark.parametrize(("options", "kind", "message"), ERRORS, ids=[str(options) for options, _, _ in ERRORS])
def test_errors(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_an_image_of_other_channels_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected an image \[B, 3, H, W\], got \[1, 4, 8, 8\]"):
        small()(torch.zeros(1, 4, 8, 8))
    assert small(in_channels=4)(torch.zeros(1, 4, 8, 8))[0].shape == (1, 8, 2, 2)


def test_names_are_ours_while_a_config_of_another_scope_is_at_work() -> None:
    small = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1), "out_indices": (0, 1)}
    with DefaultScope.overwrite_default_scope("mmseg"):
        assert type(create_backbone({"type": "SwinTransformer", **small})) is SwinTransformer
        assert type(create_backbone({"type": "swin_tiny_window7", "window": (7, 7), **small})) is SwinTransformer
        assert type(create_backbone("resnet18")) is TimmBackbone
        with pytest.raises(KeyError, match="NoSuchBackbone"):
            create_backbone({"type": "NoSuchBackbone"})
