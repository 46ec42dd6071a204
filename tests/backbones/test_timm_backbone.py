"""TimmBackbone over timm's families: the contract of a backbone, and attention that later stages see."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from mmengine.config import Config
from torch import Tensor, nn

import visionattn
from visionattn.backbones.timm_backbone import TimmBackbone
from visionattn.blocks import AttentionPlugin
from visionattn.blocks.conv_attention import ConvAttention
from visionattn.registry import MODELS

SWIN = {"embed_dim": 12, "depths": (2, 2, 2, 2), "num_heads": (2, 2, 2, 2), "window_size": 4}
# One of each way in which timm builds and taps its features.
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "convnext_atto": {},
    "test_efficientnet": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "test_mambaout": {},
    "poolformerv2_s12": {},
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "densenet121": {"growth_rate": 4, "block_config": (2, 2, 2, 2)},
    "cspnext_tiny": {},
}
every_family = pytest.mark.parametrize("name", [*FAMILIES, pytest.param("xception41", marks=pytest.mark.slow)])


def backbone(name: str, **options: Any) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, timm_options=FAMILIES.get(name), **options).eval()


def maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return model(x)


def plugins_of(model: nn.Module) -> list[AttentionPlugin]:
    return [m for m in model.modules() if isinstance(m, AttentionPlugin)]


@every_family
def test_contract(name: str) -> None:
    model = backbone(name)
    features = model(torch.randn(2, 3, 96, 160))
    assert isinstance(features, list)
    assert len(features) == len(model.out_channels) == len(model.strides) == len(model.out_indices) == 4
    assert model.strides == (4, 8, 16, 32)
    for feature, channels, stride in zip(features, model.out_channels, model.strides, strict=True):
        assert feature.shape == (2, channels, 96 // stride, 160 // stride)
    sum(f.sum() for f in features).backward()
    assert any(p.grad is not None for p in model.parameters())


@every_family
def test_attention_stands_in_the_network(name: str) -> None:
    """Nothing changes at first; then a stage's own feature and every later one do, and no earlier one."""
    bare, model = backbone(name), backbone(name, attention="EfficientAttention")
    own = model.state_dict()
    bare.load_state_dict({key: own[key] for key in bare.state_dict()})
    x = torch.randn(1, 3, 64, 96)
    expected = maps(bare, x)
    assert all(torch.equal(a, b) for a, b in zip(maps(model, x), expected, strict=True))
    plugins = plugins_of(model)
    assert [p.in_channels for p in plugins] == list(model.out_channels)
    for stage, plugin in enumerate(plugins):
        nn.init.constant_(plugin.gamma, 0.5)
        changed = [not torch.equal(a, b) for a, b in zip(maps(model, x), expected, strict=True)]
        assert changed == [later >= stage for later in range(4)]
        nn.init.zeros_(plugin.gamma)


@pytest.mark.parametrize(
    ("attention", "expected"),
    [
        ("EfficientAttention", {1: 1, 2: 1, 3: 1, 4: 1}),
        ({"type": "EfficientAttention", "num_heads": 2}, {1: 1, 2: 1, 3: 1, 4: 1}),
        ({"type": "AttentionPlugin", "attention": "EfficientAttention", "norm": True}, {1: 1, 2: 1, 3: 1, 4: 1}),
        ({3: "EfficientAttention", 0: "SoftmaxAttention"}, {0: 1, 3: 1}),
        ([None, None, "EfficientAttention", {"type": "SoftmaxAttention"}], {3: 1, 4: 1}),
        ([None, ["EfficientAttention", "SoftmaxAttention"], None, None], {2: 2}),
        ({}, {}),
    ],
)
def test_attention_by_stage(attention: Any, expected: Mapping[int, int]) -> None:
    before = copy.deepcopy(attention)
    model = backbone("test_resnet", attention=attention)
    stages = ["act1", "layer1", "layer2", "layer3", "layer4"]
    found: dict[int, int] = {}
    for name, module in model.body.named_modules():
        if isinstance(module, AttentionPlugin):
            stage = stages.index(name.split(".")[0])
            found[stage] = found.get(stage, 0) + 1
    assert found == expected
    assert attention == before, "a config may be used again"


def test_attention_at_single_blocks() -> None:
    model = backbone("resnet18", attention={"layer3.0": "EfficientAttention", 2: "SoftmaxAttention"})
    assert [name for name, m in model.body.named_modules() if isinstance(m, AttentionPlugin)] == [
        "layer2.attention_plugin",
        "layer3.0.attention_plugin",
    ]
    joined = backbone("swin_tiny_patch4_window7_224", attention={"layers.1.blocks.0": "EfficientAttention"})
    assert [name for name, m in joined.body.named_modules() if isinstance(m, AttentionPlugin)] == [
        "layers_1.blocks.0.attention_plugin"
    ], "the path is that in timm's model, however its feature extractor spells it"


def test_attention_in_convolutions() -> None:
    """At a stage, at a block, and beside insertion; the features keep their shapes."""
    options = {"conv_attention": {4: {"type": "EfficientAttention", "num_heads": 2}, "layer3.1": "SoftmaxAttention"}}
    model = backbone("resnet18", attention={4: "EfficientAttention"}, frozen_stages=4, **options)
    found = [name for name, m in model.body.named_modules() if isinstance(m, ConvAttention)]
    assert found == ["layer3.1.conv2", "layer4.0.conv2", "layer4.1.conv2"]
    x = torch.randn(1, 3, 75, 97)
    shapes = [m.shape for m in maps(backbone("resnet18"), x)]
    assert [m.shape for m in maps(model, x)] == shapes
    trained = {name.split(".attn.")[0] for name, p in model.body.named_parameters() if p.requires_grad}
    assert {name for name in trained if "attention_plugin" not in name} == set(found)


def test_stages_are_chosen_and_counted_as_timm_does() -> None:
    model = backbone("test_resnet", out_indices=(0, 2), attention={0: "EfficientAttention", 1: "EfficientAttention"})
    assert (model.out_indices, model.out_channels, model.strides) == ((0, 2), (32, 48), (2, 8))
    assert [tuple(f.shape[1:]) for f in maps(model, torch.zeros(1, 3, 64, 96))] == [(32, 32, 48), (48, 8, 12)]
    assert len(plugins_of(model)) == 2
    last = backbone("test_mambaout", out_indices=(-1,))
    assert (last.out_indices, last.out_channels) == ((3,), (64,))
    assert maps(last, torch.zeros(1, 3, 64, 96))[0].shape == (1, 64, 2, 3)


def test_output_stride_dilates() -> None:
    model = backbone("test_convnext", output_stride=8, attention={3: "EfficientAttention"})
    assert model.strides == (4, 8, 8, 8)
    assert [f.shape[-2:] for f in maps(model, torch.zeros(1, 3, 64, 96))] == [(16, 24), (8, 12), (8, 12), (8, 12)]


def test_images_of_other_channels() -> None:
    model = backbone("test_efficientnet", in_channels=5, attention={4: "EfficientAttention"})
    assert len(maps(model, torch.zeros(1, 5, 64, 64))) == 4


def test_a_plain_vision_transformer_takes_any_size() -> None:
    model = TimmBackbone("test_vit", out_indices=(2, 5))
    assert [f.shape for f in maps(model.eval(), torch.zeros(1, 3, 64, 96))] == [(1, 64, 4, 6)] * 2
    assert model.strides == (16, 16)


@pytest.mark.parametrize(
    ("name", "frozen", "free"),
    [
        ("test_resnet", 0, "body.layer1."),
        ("test_resnet", 2, "body.layer3."),
        ("test_efficientnet", 0, "body.blocks.1."),
        ("test_efficientnet", 2, "body.blocks.3."),
        ("test_convnext", 2, "body.stages_3."),
        ("cspnext_tiny", 2, "body.model.stages.2."),
        ("densenet121", 2, "body.features_transition2."),
    ],
)
def test_frozen_stages(name: str, frozen: int, free: str) -> None:
    """A training step moves no weight and no running statistic up to the frozen stage, and those behind it."""
    model = backbone(name, frozen_stages=frozen, attention={frozen: "EfficientAttention"})
    (plugin,) = plugins_of(model)
    nn.init.constant_(plugin.gamma, 0.5)
    assert model.train() is model
    weights = {key: w.clone() for key, w in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
    optimizer.step()
    moved = {key for key, w in model.state_dict().items() if not torch.equal(w, weights[key])}
    assert any("attention_plugin" in key for key in moved)

    info = model.body.feature_info[frozen]["module"]
    boundary = next(
        p for p in (info, info.replace(".", "_", 1), f"model.{info}") if p in dict(model.body.named_modules())
    )
    order = [key for key in weights if "attention_plugin" not in key]
    inside = [key for key in order if key.startswith(f"body.{boundary}.")]
    last = order.index(inside[-1]) if inside else order.index(next(k for k in order if k.startswith("body.layer1"))) - 1
    assert last >= 0
    assert not moved & set(order[: last + 1])
    assert moved & set(order[last + 1 :])


def test_frozen_stages_do_not_drop_or_update_in_training() -> None:
    model = backbone("test_convnext", frozen_stages=3)
    assert not any(p.requires_grad for p in model.parameters())
    x = torch.randn(2, 3, 64, 64)
    expected = maps(model, x)
    assert all(torch.equal(a, b) for a, b in zip(maps(model.train(), x), expected, strict=True))
    assert model.training
    assert model.body.training, "only the stages are held, not what is around them"


def test_norm_eval_keeps_the_running_statistics() -> None:
    model = backbone("test_resnet", norm_eval=True).train()
    before = {key: b.clone() for key, b in model.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(b, before[key]) for key, b in model.named_buffers())
    assert all(p.requires_grad for p in model.parameters())
    model = backbone("test_resnet").train()
    model(torch.randn(2, 3, 64, 64))
    assert any(not torch.equal(b, before[key]) for key, b in model.named_buffers())


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_mambaout", "cspnext_tiny", "test_vit"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    attention = None if name == "test_vit" else "EfficientAttention"
    x = torch.randn(2, 3, 64, 64)
    gradients = []
    state: dict[str, Tensor] = {}
    for checkpointing in (False, True):
        model = backbone(name, attention=attention, grad_checkpointing=checkpointing, norm_eval=True)
        for plugin in plugins_of(model):
            nn.init.constant_(plugin.gamma, 0.5)
        state = state or model.state_dict()
        model.load_state_dict(state)
        calls: list[str] = []
        for p in plugins_of(model):
            p.register_forward_pre_hook(lambda module, args, calls=calls: calls.append(""))
        model.train()
        sum(f.square().mean() for f in model(x)).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
        if attention:
            assert (len(calls) > 4) == checkpointing, "a checkpointed stage runs again in the backward pass"
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_mambaout", "test_efficientnet", "swin_tiny_patch4_window7_224", "test_vit"],
)
def test_weights_of_the_plain_model(name: str, suffix: str, tmp_path: Path) -> None:
    """A classifier's file fits every extractor: features agree with those that timm computes from the same weights."""
    torch.manual_seed(1)
    options = FAMILIES.get(name) or {}
    plain = timm.create_model(name, pretrained=False, **options).eval()
    with torch.no_grad():
        for value in plain.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.1)
    file = tmp_path / f"weights{suffix}"
    state = plain.state_dict()
    if suffix == ".pth":
        if "swin" in name:  # older versions of timm kept this buffer
            state["layers.0.blocks.1.attn_mask"] = torch.zeros(1)
        torch.save({"state_dict": state}, file)
    else:
        safetensors.torch.save_file(state, file)
    size = timm.get_pretrained_cfg(name).input_size[-1]
    x = torch.randn(1, 3, size, size)
    model = backbone(name, checkpoint=file)
    with torch.no_grad():
        _, theirs = plain.forward_intermediates(x, norm=False)
    for ours, stage in zip(maps(model, x), model.out_indices, strict=True):
        torch.testing.assert_close(ours, theirs[stage])


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    def saved(model: nn.Module) -> Path:
        safetensors.torch.save_file(model.state_dict(), tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    with pytest.raises(FileNotFoundError, match=r"no\.pth does not exist"):
        TimmBackbone("test_resnet", checkpoint=tmp_path / "no.pth")
    with pytest.raises(ValueError, match=r"weights.safetensors: .* belong to another model"):
        TimmBackbone("test_resnet", checkpoint=saved(timm.create_model("test_convnext")))
    deeper = saved(timm.create_model("resnet18", layers=(2, 2, 2, 3)))
    with pytest.raises(ValueError, match=r"120 tensors match, 12 unexpected \(first: layer4\.2\."):
        TimmBackbone("resnet18", checkpoint=deeper)
    with pytest.raises(ValueError, match=r"of another shape \(first: conv1.weight|of another shape \(first: conv1"):
        TimmBackbone("test_resnet", in_channels=1, checkpoint=saved(timm.create_model("test_resnet")))


def test_stages_that_are_not_returned_need_no_weights(tmp_path: Path) -> None:
    safetensors.torch.save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    TimmBackbone("test_resnet", out_indices=(1, 2), checkpoint=tmp_path / "w.safetensors")
    safetensors.torch.save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    TimmBackbone("test_vit", out_indices=(1, 2), checkpoint=tmp_path / "w.safetensors")


ERRORS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("resnet181", {}, KeyError, r"timm has no model 'resnet181'; did you mean resnet18"),
    ("hf-hub:timm/resnet18", {}, KeyError, "timm has no model 'hf-hub"),
    ("test_resnet", {"out_indices": (2, 9)}, ValueError, r"out_indices=\(2, 9\): test_resnet has the stages 0 to 4"),
    ("test_vit", {"out_indices": (9,)}, ValueError, r"test_vit has the stages 0 to 5"),
    ("test_resnet", {"out_indices": (3, 1)}, ValueError, r"out_indices=\(3, 1\) must rise"),
    (
        "test_resnet",
        {"attention": {7: "EfficientAttention"}},
        ValueError,
        r"stage 7: test_resnet runs the stages 0 to 4",
    ),
    ("test_resnet", {"attention": {1.5: "EfficientAttention"}}, ValueError, r"attention at stage 1\.5"),
    (
        "test_resnet",
        {"attention": {"layer3.9": "EfficientAttention"}},
        KeyError,
        r"has no module 'layer3\.9'; did you mean .*under 'layer3': layer3\.0",
    ),
    (
        "test_resnet",
        {"attention": {3: "EfficientAttention", "layer3": "EfficientAttention"}},
        ValueError,
        r"names 'layer3' twice, as a stage and as a module",
    ),
    (
        "test_resnet",
        {"conv_attention": {7: "EfficientAttention"}},
        ValueError,
        r"stage 7: test_resnet runs the stages 0 to 4",
    ),
    (
        "resnet18",
        {"conv_attention": {"layer4.0.conv1": "EfficientAttention"}},
        ValueError,
        r"no attention in resnet18: 'layer4\.0\.conv1' \(Conv2d\) is 3x3 with 256 channels in and 512 out",
    ),
    (
        "test_resnet",
        {"out_indices": (1, 2), "attention": {4: "SoftmaxAttention"}},
        ValueError,
        "runs the stages 0 to 2",
    ),
    ("test_resnet", {"attention": ["EfficientAttention"]}, ValueError, r"lists 1 stages, test_resnet returns 4 .*None"),
    ("test_resnet", {"attention": "Eficient"}, KeyError, "at 'layer1': no attention mechanism is called 'Eficient'"),
    (
        "test_resnet",
        {"frozen_stages": 5},
        ValueError,
        r"frozen_stages=5: test_resnet has the stages 0 to 4; -1",
    ),
    ("test_resnet", {"timm_options": {"in_chans": 1}}, ValueError, r"timm_options may not hold in_chans"),
    ("test_resnet", {"timm_options": {"nope": 1}}, ValueError, r"timm cannot build 'test_resnet' .*'nope'"),
    ("test_mambaout", {"output_stride": 8}, ValueError, r"timm cannot build 'test_mambaout' .*output_stride"),
    (
        "test_vit",
        {"attention": "EfficientAttention"},
        ValueError,
        r"no attention in test_vit: .* tokens \[1, 101.*replace_attention changes that inside a transformer's blocks",
    ),
    ("hrnet_w18_small", {"attention": {2: "SoftmaxAttention"}}, ValueError, "returns a list, not one feature map"),
    ("hrnet_w18_small", {"attention": {1: "SoftmaxAttention"}}, ValueError, "timm names no module for stage 1"),
    ("hrnet_w18_small", {"grad_checkpointing": True}, ValueError, "no gradient checkpointing for hrnet_w18_small"),
]


@pytest.mark.parametrize(("name", "options", "kind", "message"), ERRORS, ids=[f"{e[0]} {e[1]}" for e in ERRORS])
def test_errors(name: str, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        TimmBackbone(name, **options)
    assert "\n" not in str(caught.value)


def test_copies_and_pickles() -> None:
    model = backbone("test_resnet", attention="EfficientAttention", frozen_stages=2)
    x = torch.randn(1, 3, 64, 64)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(maps(other, x), maps(model, x), strict=True))
        other.train()
        assert not other.body.layer2.training
        assert not model.body.layer2.training or model.training
        assert other.body.layer3.training


def test_in_mmsegs_segmentor_from_a_config_file(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "model = dict(type='mmseg.EncoderDecoder', "
        "backbone=dict(type='visionattn.TimmBackbone', model_name='test_mambaout', frozen_stages=0,"
        " attention={2: dict(type='EfficientAttention', num_heads=2)}),"
        "decode_head=dict(type='mmseg.FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1, num_classes=4,"
        " loss_decode=dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)))"
    )
    config = Config.fromfile(tmp_path / "model.py")
    config.dump(tmp_path / "again.py")
    model = MODELS.build(Config.fromfile(tmp_path / "again.py").model)
    (plugin,) = plugins_of(model)
    before = {key: w.clone() for key, w in model.backbone.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(w, before[key]) for key, w in model.backbone.state_dict().items())
    model.train()
    model(torch.randn(2, 3, 64, 96)).square().sum().backward()
    assert plugin.gamma.grad.count_nonzero()


def test_create_backbone() -> None:
    assert isinstance(visionattn.create_backbone("test_resnet"), TimmBackbone)
    assert visionattn.create_backbone("resnet18.a1_in1k").model_name == "resnet18.a1_in1k"
    config = {"type": "visionattn.TimmBackbone", "model_name": "test_resnet", "out_indices": (1,)}
    assert visionattn.create_backbone(config).out_indices == (1,)
    assert "type" in config
    config = {"type": "mmseg.ResNet", "depth": 18, "stem_channels": 8, "base_channels": 8}
    assert len(visionattn.create_backbone(config)(torch.zeros(2, 3, 64, 64))) == 4
    with pytest.raises(KeyError, match="no backbone is called 'resnet181'; did you mean resnet18"):
        visionattn.create_backbone("resnet181")
    with pytest.raises(KeyError, match="did you mean TimmBackbone"):
        visionattn.create_backbone("TimBackbone")
    with pytest.raises(TypeError, match=r"SwinTransformer has no option 'window_size'; did you mean window.*heads"):
        visionattn.create_backbone({"type": "swin_tiny_window7", "window_size": 7})


def test_registering_it_does_not_import_timm() -> None:
    code = "import sys, visionattn.backbones; sys.exit('timm' in sys.modules or 'torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
