"""The models in timm's registry: what timm's own tests ask of every model, and the numbers of its Swin and ViT."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

import visionattn.export.timm  # noqa: F401
from visionattn.backbones.build import create_backbone
from visionattn.backbones.named import named_backbones

SWIN: dict[str, Any] = {"embed_dim": 16, "depths": (2, 2, 1), "num_heads": (1, 2, 2), "window": (7, 7)}
VIT: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "image_size": (64, 64)}
RESNET = {
    "type": "visionattn.TimmBackbone",
    "model_name": "resnet18",
    "attention": [None, None, "EfficientAttention", "EfficientAttention"],
    "timm_options": {"channels": (8, 8, 16, 16)},
}
FOREIGN = {"type": "mmseg.ResNet", "depth": 18, "base_channels": 4, "norm_cfg": {"type": "BN"}}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "swin": ("va_swin_tiny_window7", SWIN),
    "swin, other attention": ("va_swin_tiny_window7", {**SWIN, "attention": "EfficientAttention"}),
    "swinv2": ("va_swinv2_tiny_window8", {**SWIN, "window": (4, 4)}),
    "vit": ("va_vit_tiny_patch16", VIT),
    "vitdet": ("va_vitdet_small_patch16", VIT),
    "resnet with attention": ("va_backbone", {"backbone": RESNET}),
    "mmseg": ("va_backbone", {"backbone": FOREIGN}),
}
_SLOW = ("swin, other attention", "swinv2", "vitdet", "mmseg")
every_model = pytest.mark.parametrize(
    "key", [pytest.param(key, marks=pytest.mark.slow) if key in _SLOW else key for key in MODELS]
)


def model(key: str, **arguments: Any) -> Any:
    name, options = MODELS[key]
    torch.manual_seed(0)
    return timm.create_model(name, **{**options, **arguments}).eval()


def image(height: int = 70, width: int = 90, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_every_backbone_has_a_name_in_timm() -> None:
    assert len(named_backbones()) > 8
    assert set(timm.list_models("va_*")) == {f"va_{name}" for name in named_backbones()} | {"va_backbone"}
    known = timm.models.get_pretrained_cfg("va_swin_base_window12")
    assert known.input_size == (3, 384, 384)
    assert not known.has_weights
    with pytest.raises(RuntimeError, match="No pretrained weights exist for va_vit_tiny_patch16"):
        timm.create_model("va_vit_tiny_patch16", pretrained=True, **VIT)


@every_model
def test_default_cfg_says_what_the_model_is(key: str) -> None:
    net = model(key)
    cfg, state = net.default_cfg, net.state_dict()
    assert cfg is net.pretrained_cfg
    assert cfg["architecture"] == MODELS[key][0]
    assert f"{cfg['classifier']}.weight" in state
    assert net.get_classifier() is net.get_submodule(cfg["classifier"])
    stem = cfg["first_conv"] or net.first_convolution()
    assert state[f"{stem}.weight"].shape[1] == net.in_chans == 3
    assert net.num_classes == cfg["num_classes"] == 1000
    x = image(64, 96)
    features = net.forward_features(x)
    pre = net.forward_head(features, pre_logits=True)
    assert pre.shape == (2, net.head_hidden_size)
    assert torch.equal(net.get_classifier()(pre), net(x))
    if net.output_fmt == "NCHW":
        assert features.shape == (2, net.num_features, *net.pool_size(64, 96))
        assert net.forward_features(image(*cfg["input_size"][1:])).shape[2:] == cfg["pool_size"]
    else:
        rows, columns = net.pool_size(64, 96)
        assert features.shape == (2, net.num_prefix_tokens + rows * columns, net.num_features)


@every_model
def test_the_classifier_comes_and_goes(key: str) -> None:
    net, x = model(key), image()
    net.reset_classifier(7)
    assert net(x).shape == (2, 7)
    net.reset_classifier(0)
    assert net.num_classes == 0
    assert net(x).shape == (2, net.head_hidden_size)
    net.reset_classifier(0, "")
    assert torch.equal(net(x), net.forward_features(x))
    bare = model(key, num_classes=0, global_pool="")
    assert isinstance(bare.get_classifier(), nn.Identity)
    assert bare(x).shape == net(x).shape


@every_model
def test_every_parameter_gets_a_gradient(key: str) -> None:
    net = model(key, num_classes=42).train()
    out = net(image(64, 64))
    assert out.shape == (2, 42)
    out.mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("key", ["swin", "swinv2", "vit"])
def test_features_only_leaves_nothing_that_gets_no_gradient(key: str) -> None:
    net = model(key, features_only=True, out_indices=(0, 1)).train()
    sum(m.mean() for m in net(image(64, 64))).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_features_only_drops_the_norms_of_other_stages() -> None:
    cfg = {**named_backbones()["swin_tiny_window7"], **SWIN, "out_indices": (0, 1, 2)}
    net = timm.create_model("va_backbone", backbone=cfg, features_only=True, out_indices=[1]).train()
    net(image(64, 64))[0].mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert "model.norm1.weight" in net.state_dict()


@every_model
def test_features_are_those_of_the_backbone(key: str) -> None:
    net, x = model(key), image()
    features = model(key, features_only=True)
    maps = features(x)
    assert [m.shape[1] for m in maps] == features.feature_info.channels()
    assert [m.shape[2] for m in maps] == [-(-70 // stride) for stride in features.feature_info.reduction()]
    modules = dict(net.named_modules())
    assert key == "mmseg" or all(info["module"] in modules for info in net.feature_info)
    expected = net.forward_intermediates(x, intermediates_only=True)
    assert len(maps) == len(expected) == len(net.feature_info)
    assert all(torch.equal(one, two) for one, two in zip(maps, expected, strict=True))
    some = model(key, features_only=True, out_indices=(0, 2))(x)
    assert len(some) == 2
    assert all(torch.equal(one, expected[place]) for one, place in zip(some, (0, 2), strict=True))


@every_model
def test_intermediates(key: str) -> None:
    net, x = model(key), image()
    final, every = net.forward_intermediates(x)
    assert torch.equal(final, net.forward_features(x))
    for indices, places in ((2, [-2, -1]), ([0, -1], [0, -1]), ((1,), [1])):
        final, some = net.forward_intermediates(x, indices=indices)
        assert torch.equal(final, net.forward_features(x))
        assert all(torch.equal(one, every[place]) for one, place in zip(some, places, strict=True))
    _, normed = net.forward_intermediates(x, indices=1, norm=True)
    if net.output_fmt == "NCHW":
        assert torch.equal(normed[-1], net.forward_features(x))
    stopped, first = net.forward_intermediates(x, indices=[0], stop_early=True)
    assert torch.equal(first[0], every[0])
    if key.startswith("swin"):
        assert torch.equal(stopped, every[0])
    for wrong in (0, [9], [-9]):
        with pytest.raises(ValueError, match="there are the stages 0 to"):
            net.forward_intermediates(x, indices=wrong)
    with pytest.raises(ValueError, match="output_fmt='NHWC'"):
        net.forward_intermediates(x, output_fmt="NHWC")


def test_stopping_early_runs_no_later_stage() -> None:
    for key, later in (("swin", "layers.1"), ("vit", "blocks.1")):
        net = model(key)
        calls: list[Any] = []
        net.get_submodule(later).register_forward_hook(lambda *args, calls=calls: calls.append(args))
        net.forward_intermediates(image(), indices=[0], stop_early=True)
        net.forward_intermediates(image(), indices=[0], intermediates_only=True)
        assert calls == []
        net.forward_intermediates(image(), indices=[0])
        assert len(calls) == 1


def test_tokens_of_a_vit_in_rows() -> None:
    net = model("vit")
    (rows,) = net.forward_intermediates(image(64, 96), indices=1, output_fmt="NLC", norm=True, intermediates_only=True)
    assert torch.allclose(rows, net.forward_features(image(64, 96))[:, 1:], atol=1e-6)


@every_model
def test_pruning(key: str) -> None:
    net, x = model(key), image()
    expected = net.forward_intermediates(x, intermediates_only=True)
    assert net.prune_intermediate_layers([0, 1], prune_norm=True) == [0, 1]
    assert net.num_classes == 0
    maps = net.forward_intermediates(x, indices=[0, 1], intermediates_only=True)
    assert all(torch.equal(one, two) for one, two in zip(maps, expected[:2], strict=True))
    if hasattr(net, "keep_stages"):
        assert torch.equal(net(x), net.forward_features(x))
        assert net.num_features == expected[1].shape[1]
        with pytest.raises(ValueError, match="stage 2 was pruned; left: 0, 1"):
            net.forward_intermediates(x, indices=[2])


@every_model
def test_half_precision(key: str) -> None:
    net = model(key, num_classes=3).bfloat16()
    out = net(image(64, 64).bfloat16())
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()
    net.reset_classifier(5)
    assert net(image(64, 64).bfloat16()).dtype == torch.bfloat16


@every_model
def test_copies_and_pickles(key: str) -> None:
    net, x = model(key, num_classes=3), image()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert type(other) is type(net)
        assert torch.equal(other(x), net(x))
        assert not {p.data_ptr() for p in other.parameters()} & {p.data_ptr() for p in net.parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["swin", "vit"])
def test_compiled(key: str) -> None:
    net, x = model(key, num_classes=3), image(64, 64)
    with torch.no_grad():
        assert torch.allclose(torch.compile(net, backend="eager")(x), net(x), atol=1e-6)


@pytest.mark.parametrize(
    ("key", "recomputed"),
    [("swin", "layers.0.blocks.0"), ("vit", "blocks.0"), ("resnet with attention", "body.layer2.0")],
)
def test_gradient_checkpointing_changes_no_gradient(key: str, recomputed: str) -> None:
    drop = {} if "resnet" in key else {"drop_path_rate": 0.0}
    plain, saving = (model(key, num_classes=3, **drop).train() for _ in range(2))
    saving.set_grad_checkpointing()
    for net, times in ((plain, 1), (saving, 2)):
        calls: list[Any] = []
        net.get_submodule(recomputed).register_forward_pre_hook(lambda *args, calls=calls: calls.append(args))
        net(image(64, 64)).square().sum().backward()
        assert len(calls) == times
    for one, two in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-5)


def test_a_backbone_without_gradient_checkpointing_says_so() -> None:
    net = model("mmseg")
    net.set_grad_checkpointing(False)
    with pytest.raises(ValueError, match="VaForeign has no gradient checkpointing"):
        net.set_grad_checkpointing()


@every_model
def test_parameters_are_sorted_by_depth(key: str) -> None:
    net = model(key)
    names = {name for name, _ in net.named_parameters()}
    assert net.no_weight_decay() <= names
    groups = param_groups_layer_decay(net, 0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(names)
    first, head = net.get_submodule(net.first_convolution()), net.get_classifier()
    assert scale[id(first.weight)] == min(scale.values())
    assert scale[id(head.weight)] == 1.0
    assert key == "mmseg" or len(set(scale.values())) > 3


@every_model
def test_images_of_other_channels(key: str) -> None:
    net = model(key, in_chans=5, num_classes=3)
    assert net.in_chans == 5
    assert net(image(channels=5)).shape == (2, 3)
    if key != "mmseg":
        assert net.get_submodule(net.first_convolution()).in_channels == 5


def test_another_input_size() -> None:
    net = model("swin", num_classes=3)
    net.set_input_size(128)
    assert net.default_cfg["input_size"] == (3, 128, 128)
    assert net.pretrained_cfg["pool_size"] == (8, 8)
    net.set_input_size((60, 100))
    assert timm.data.resolve_model_data_config(net)["input_size"] == (3, 60, 100)
    assert net.forward_features(image(60, 100)).shape[2:] == net.pretrained_cfg["pool_size"]
    net.set_input_size()
    with pytest.raises(ValueError, match="img_size=0 must be 1 or more"):
        net.set_input_size(0)
    assert model("vit", img_size=96).grid == (6, 6)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(TypeError, match="window_size"):
        timm.create_model("va_swin_tiny_window7", window_size=7)
    with pytest.raises(ValueError, match="global_pool='token' must be one of 'avg', 'max'"):
        model("vitdet", global_pool="token")
    with pytest.raises(ValueError, match="a classifier of 10 classes needs pooling"):
        model("swin", num_classes=10, global_pool="")
    net = model("swin", num_classes=0, global_pool="")
    with pytest.raises(ValueError, match="a classifier of 10 classes needs pooling"):
        net.reset_classifier(10)
    net.reset_classifier(10, "avg")
    assert net(image()).shape == (2, 10)
    with pytest.raises(TypeError, match="backbone"):
        timm.create_model("va_backbone")


PEERS = {
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 16, "depths": (2, 2, 1), "num_heads": (1, 2, 2), "img_size": (112, 112), "window_size": 7},
    ),
    "swinv2": (
        "swinv2_tiny_window8_256",
        {"embed_dim": 16, "depths": (2, 2, 1), "num_heads": (1, 2, 2), "img_size": (64, 96), "window_size": 4},
    ),
    "vit": ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": (64, 64)}),
}


@pytest.mark.parametrize("key", PEERS)
def test_a_file_of_timms_own_loads_by_name_and_gives_the_same(key: str, tmp_path: Path) -> None:
    name, options = PEERS[key]
    torch.manual_seed(3)
    peer = timm.create_model(name, num_classes=5, **options).eval()
    for parameter in peer.parameters():  # tables, scales and norms begin equal in every model
        nn.init.normal_(parameter, std=0.2)
    safetensors.torch.save_file(peer.state_dict(), tmp_path / "peer.safetensors")
    ours = model(key, num_classes=5, checkpoint_path=str(tmp_path / "peer.safetensors"))
    assert set(ours.state_dict()) == set(peer.state_dict())
    x = image(*options["img_size"])
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x), atol=1e-5, rtol=1e-5)
        final, maps = ours.forward_intermediates(x)
        expected, peers = peer.forward_intermediates(x)
        expected = expected if key == "vit" else expected.permute(0, 3, 1, 2)
        for one, two in zip([final, *maps], [expected, *peers], strict=True):
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-5)
    assert ours.pretrained_cfg["classifier"] == peer.pretrained_cfg["classifier"]


@pytest.mark.parametrize("key", ["swin", "vit"])
def test_a_backbone_that_normalises_its_maps_keeps_its_norms(key: str) -> None:
    """As segmentors train it: every map has been normalised, and nothing is normalised twice."""
    name, options = MODELS[key]
    cfg = {**named_backbones()[name.removeprefix("va_")], **options, "out_norms": True, "out_indices": (1, 2)}
    torch.manual_seed(0)
    backbone = create_backbone(cfg).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = image()
    for arguments in ({}, {"features_only": True}):
        net = timm.create_model("va_backbone", backbone=cfg, num_classes=0, **arguments).eval()
        (net.model if arguments else net).load_state_dict(backbone.state_dict())
        maps = net(x) if arguments else net.forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(one, two) for one, two in zip(maps, backbone(x), strict=True))
    net = timm.create_model("va_backbone", backbone=cfg, num_classes=0).eval()
    net.load_state_dict(backbone.state_dict())
    last = backbone(x)[-1]
    pooled = net.forward_features(x)[:, 0] if key == "vit" else last.mean((2, 3))
    torch.testing.assert_close(net(x), pooled)
    if key == "vit":
        tokens = net.forward_features(x)[:, 1:]
        torch.testing.assert_close(tokens.transpose(1, 2).unflatten(2, last.shape[2:]), last)
