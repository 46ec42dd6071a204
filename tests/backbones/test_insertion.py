"""insert_attention on hosts of several libraries: what they compute, hold and are named stays."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

import visionattn
from visionattn.backbones.insertion import insert_attention
from visionattn.blocks import AttentionPlugin

EFFICIENT = {"type": "EfficientAttention", "num_heads": 2}


class Line(nn.Module):
    """A 1-D network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 6, 3, stride=2)
        self.head = nn.Conv1d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))


def timm_model(name: str, **options: Any) -> nn.Module:
    return timm.create_model(name, pretrained=False, **options)


def resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 2, 1, 1], width_per_group=8)


def video_resnet() -> nn.Module:
    parts = torchvision.models.video.resnet
    return parts.VideoResNet(parts.BasicBlock, [parts.Conv3DSimple] * 4, [1] * 4, parts.BasicStem, num_classes=2)


def image() -> Tensor:
    return torch.randn(2, 3, 32, 48)


# name: host, path, input, channels found, where the parameters live
HOSTS: dict[str, tuple[Callable[[], nn.Module], str, Tensor, int, str]] = {
    "torchvision Sequential": (resnet, "layer2", image(), 512, "layer2"),
    "torchvision block": (resnet, "layer2.0", image(), 512, "layer2.0"),
    "torchvision norm": (resnet, "layer2.0.bn2", image(), 16, "layer2.0.bn2"),
    "torchvision child of a Sequential": (
        lambda: torchvision.models.mobilenet_v3_small(),
        "features.4",
        image(),
        40,
        "features.4",
    ),
    "torchvision dense block": (
        lambda: torchvision.models.DenseNet(8, (2, 2), 16),
        "features.denseblock2",
        image(),
        32,
        "features.denseblock2.denselayer2",
    ),
    "torchvision channels last": (
        lambda: torchvision.models.SwinTransformer([4, 4], 24, [1, 2], [2, 3], [4, 4]),
        "features.1",
        image(),
        24,
        "features.1",
    ),
    "torchvision video": (
        video_resnet,
        "layer2",
        torch.randn(1, 3, 4, 16, 24),
        128,
        "layer2",
    ),
    "timm resnet": (lambda: timm_model("test_resnet"), "layer2", image(), 48, "layer2"),
    "timm convnext": (lambda: timm_model("test_convnext"), "stages.2", image(), 48, "stages.2"),
    "timm mobilenet": (lambda: timm_model("mobilenetv3_small_050"), "blocks.2", image(), 24, "blocks.2"),
    "timm channels last": (lambda: timm_model("test_mambaout"), "stages.1", image(), 32, "stages.1"),
    "timm features": (lambda: timm_model("test_convnext", features_only=True), "stages_1", image(), 32, "stages_1"),
    "one dimension": (Line, "stem", torch.randn(2, 3, 50), 6, "stem"),
}
every_host = pytest.mark.parametrize("name", list(HOSTS))


def build(name: str) -> tuple[nn.Module, str, Tensor, int, str]:
    torch.manual_seed(0)
    factory, *rest = HOSTS[name]
    return factory(), *rest


def tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def wake(model: nn.Module) -> list[AttentionPlugin]:
    plugins = [m for m in model.modules() if isinstance(m, AttentionPlugin)]
    for plugin in plugins:
        nn.init.constant_(plugin.gamma, 0.5)
    return plugins


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that insertion may not touch, or must put back."""
    return {
        "modules": [(name, id(module), module.training) for name, module in model.named_modules()],
        "parameters": [(name, id(p), p.requires_grad, p._version) for name, p in model.named_parameters()],
        "buffers": [(name, id(b), b.flatten().tolist()) for name, b in model.named_buffers()],
        "hooks": [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in model.modules()],
        "random": torch.get_rng_state().tolist(),
    }


@every_host
def test_the_host_stays_as_it_was_and_the_attention_is_there(name: str) -> None:
    model, path, x, channels, home = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected = [y.clone() for y in tensors(model.eval()(x))]
    assert insert_attention(model, {path: EFFICIENT}, example_input=x[:1]) is model

    after = model.state_dict()
    assert [key for key in after if "attention_plugin" not in key] == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert {key for key in after if key not in before} == {
        f"{home}.attention_plugin.{key}" for key in AttentionPlugin(channels, EFFICIENT).state_dict()
    }
    for ours, theirs in zip(tensors(model(x)), expected, strict=True):
        assert torch.equal(ours, theirs)

    (plugin,) = wake(model)
    assert plugin.in_channels == channels
    assert not torch.allclose(tensors(model(x))[-1], expected[-1])
    sum(y.square().sum() for y in tensors(model(x))).backward()
    assert all(p.grad is not None and p.grad.count_nonzero() for p in plugin.parameters())


@every_host
def test_what_the_module_returns_went_through_the_plugin(name: str) -> None:
    """The plug-in gets the very map that the bare module returns, and the next layers get the plug-in's."""
    model, path, x, _, _ = build(name)
    bare = copy.deepcopy(model.eval())
    returned: list[Tensor] = []
    bare.get_submodule(path).register_forward_hook(lambda module, args, output: returned.append(output.clone()))
    bare(x)
    insert_attention(model, {path: EFFICIENT}, example_input=x[:1])
    (plugin,) = wake(model)
    passed: list[Tensor] = []
    plugin.register_forward_hook(lambda module, args, output: passed.extend((args[0].clone(), output)))
    model.get_submodule(path).register_forward_hook(lambda module, args, output: passed.append(output))
    model(x)
    assert torch.equal(passed[0], returned[0])
    assert passed[2] is passed[1]


class Counting(nn.Module):
    """Changes its buffers and makes one at every call, in any mode, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(2))
        self.register_buffer("last", torch.zeros(1, 3, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += torch.rand(2)
        self.last = x.mean((2, 3), keepdim=True)
        self.register_buffer("late", torch.ones(1), persistent=False)
        return x


def test_probing_leaves_no_trace() -> None:
    model = resnet()
    model.train()
    model.bn1.eval()  # a host may hold some norms in eval mode
    model.layer1.eval()
    model.conv1.weight.requires_grad = False
    model.bn1.weight.requires_grad = False
    host = nn.Sequential(Counting(), nn.Dropout(0.5), model)
    before = fingerprint(host)
    # One image of one position in layer4: batch norms refuse it in training mode.
    insert_attention(host, {"2.layer1": "EfficientAttention"}, example_input=torch.zeros(1, 3, 32, 32))
    after = fingerprint(host)
    new = {id(m) for m in host.modules() if isinstance(m, AttentionPlugin) for m in m.modules()}
    after["modules"] = [row for row in after["modules"] if row[1] not in new]
    after["parameters"] = [row for row in after["parameters"] if "attention_plugin" not in row[0]]
    after["hooks"] = [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in host.modules() if id(m) not in new]
    before.pop("random"), after.pop("random")  # the new layers draw their first weights
    assert after == before
    assert not model.layer1.attention_plugin.training, "a plug-in starts in the mode of its place"


def test_probing_draws_no_random_numbers() -> None:
    host = nn.Sequential(Counting(), nn.Conv2d(3, 8, 3))
    torch.manual_seed(7)
    AttentionPlugin(8, "EfficientAttention")
    expected = torch.rand(3)
    torch.manual_seed(7)
    insert_attention(host, {"1": "EfficientAttention"})
    assert torch.equal(torch.rand(3), expected)


class Strange(nn.Module):
    """One part for every way to be no place for attention."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.parts = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
        self.unused = nn.Conv2d(3, 3, 1)
        self.pair = Pair()
        self.tokens = Tokens()
        self.windows = Windows()
        self.whole = nn.AdaptiveAvgPool2d(3)
        self.pool = nn.MaxPool2d(2)
        self.twice = nn.Conv2d(8, 4, 1)
        self.own_loop = OwnLoop(OwnLoop(nn.Conv2d(8, 8, 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for part in self.parts:
            x = part(x)
        self.pair(x), self.tokens(x), self.windows(x)
        x = self.own_loop(x)
        self.pool(self.pool(x)), self.pool(self.twice(x))
        return self.whole(x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.new_zeros(len(x), 1, x.shape[1]), x.flatten(2).mT], 1)


class Windows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(0, 2)


class OwnLoop(nn.Module):
    """Runs whatever children it has, and something behind them."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x + 1


FAILURES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"layer5": "EfficientAttention"}, KeyError, r"Strange has no module 'layer5'; at its top: first, parts, unused"),
    ({"part": "EfficientAttention"}, KeyError, r"did you mean parts or .*at its top: first, parts"),
    ({"parts.2": "EfficientAttention"}, KeyError, r"did you mean parts.1 .*under 'parts': parts.0, parts.1"),
    ({"body": "EfficientAttention"}, KeyError, r"did you mean own_loop.body"),
    ({"": "EfficientAttention"}, KeyError, r"has no module ''; at its top"),
    ({"first.weight": "EfficientAttention"}, KeyError, r"under 'first': nothing"),
    ({"first": "Eficient"}, KeyError, r"at 'first': no attention mechanism is called 'Eficient'; did you mean"),
    ({"first": {"num_heads": 2}}, KeyError, r"an attention config is a name or dict"),
    ({"first": {"type": "EfficientAttention", "heads": 2}}, TypeError, r"at 'first': .* has no option 'heads'"),
    ({"first": {"type": "EfficientAttention", "num_heads": 3}}, ValueError, r"num_heads=3 does not divide dim=8"),
    ({"first": {"type": "AttentionPlugin", "attention": "EfficientAttention", "nrom": 1}}, TypeError, "nrom"),
    (
        {"first": {"type": "AttentionPlugin", "attention": "EfficientAttention", "in_channels": 8}},
        TypeError,
        r"at 'first': the model gives in_channels=8; remove it",
    ),
    ({"parts": "EfficientAttention"}, ValueError, r"'parts' \(ModuleList\) is never called by the .* it holds parts.0"),
    ({"unused": "EfficientAttention"}, ValueError, r"'unused' \(Conv2d\) is never called by the forward of Strange$"),
    ({"pair": "EfficientAttention"}, ValueError, r"'pair' \(Pair\) returns a tuple, not one feature map"),
    ({"tokens": "EfficientAttention"}, ValueError, r"returns tokens \[1, 4097, 8\] for an input \[1, 3, 64, 64\]"),
    ({"windows": "EfficientAttention"}, ValueError, r"returns no feature map: \[256, 4, 4, 8\] for an input"),
    ({"pool": "EfficientAttention"}, ValueError, r"'pool' .* returns maps of different channels in one forward"),
    ({"own_loop": "EfficientAttention"}, ValueError, r"'own_loop.body.attention_plugin' would run 2 times where"),
    (
        {"first": {"type": "WindowAttention", "window": (7,), "shift": (0,)}},
        ValueError,
        r"Strange does not run with the attention in it: .*window=\(7,\)",
    ),
]


def test_nothing_to_insert_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=r"insert_attention expects where -> what, .*; got \{\}"):
        insert_attention(Strange(), {})


@pytest.mark.parametrize(("attention", "kind", "message"), FAILURES, ids=[str(next(iter(f[0]))) for f in FAILURES])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "behind a good one"])
def test_errors_say_what_is_there_and_leave_the_model(
    attention: dict[str, Any], kind: type[Exception], message: str, beside: bool
) -> None:
    model = Strange()
    before = fingerprint(model)
    if beside:
        attention = {"parts.1": "EfficientAttention", "whole": "EfficientAttention"} | attention
    with pytest.raises(kind, match=message) as caught:
        insert_attention(model, attention, example_input=torch.zeros(1, 3, 64, 64))
    assert "\n" not in str(caught.value)
    after = fingerprint(model)
    before.pop("random"), after.pop("random")
    assert after == before


def test_one_module_under_two_paths_is_named_once() -> None:
    shared = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'0' and '1' are one module"):
        insert_attention(nn.Sequential(shared, shared), {"0": "EfficientAttention", "1": "EfficientAttention"})


def test_a_shared_module_runs_its_attention_at_every_call() -> None:
    shared = nn.Conv2d(3, 3, 1)
    model = insert_attention(nn.Sequential(shared, nn.ReLU(), shared), {"2": "EfficientAttention"})
    (plugin,) = wake(model)
    calls: list[int] = []
    plugin.register_forward_hook(lambda module, args, output: calls.append(1))
    model(torch.randn(1, 3, 5, 7))
    assert len(calls) == 2


def test_a_model_that_does_not_run_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"Line does not run on \[1, 3, 224, 224\]: .*; pass an example_input"):
        insert_attention(Line(), {"stem": "EfficientAttention"})
    with pytest.raises(ValueError, match=r"does not run on \[1, 5, 20\]: .*; example_input must be what its forward"):
        insert_attention(Line(), {"stem": "EfficientAttention"}, example_input=torch.zeros(1, 5, 20))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        pytest.param(lambda m: torch.compile(m), "before torch.compile", marks=pytest.mark.slow),
        (lambda m: nn.DataParallel(m), "before DataParallel"),
        (lambda m: torch.jit.script(m), "before torch.jit.script"),
        pytest.param(lambda m: (m.compile(), m)[1], r"before compile\(\)", marks=pytest.mark.slow),
    ],
)
def test_comes_before_wrappers_that_would_not_notice(wrap: Callable[[nn.Module], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        insert_attention(wrap(nn.Sequential(nn.Conv2d(3, 4, 1))), {"0": "EfficientAttention"})


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="run it once"):
        insert_attention(nn.Sequential(nn.LazyConv2d(4, 1)), {"0": "EfficientAttention"})


@pytest.mark.parametrize("path", ["layer2", "layer2.1"], ids=["Sequential", "hook"])
def test_several_at_one_path_run_in_turn(path: str) -> None:
    torch.manual_seed(0)
    model = resnet().eval()
    example = torch.zeros(1, 3, 32, 32)
    insert_attention(model, {path: [EFFICIENT, "SoftmaxAttention"]}, example_input=example)
    insert_attention(
        model, {path: {"type": "visionattn.AttentionPlugin", "attention": EFFICIENT}}, example_input=example
    )
    host = model.get_submodule(path)
    order: list[str] = []
    for name, child in host.named_children():
        if isinstance(child, AttentionPlugin):
            child.register_forward_hook(lambda module, args, output, name=name: order.append(name))
    model(image())
    assert order == ["attention_plugin", "attention_plugin_2", "attention_plugin_3"]
    assert type(host.attention_plugin_2.attn).__name__ == "SoftmaxAttention"


def test_options_of_the_plugin_and_classes_as_types() -> None:
    config = {"type": AttentionPlugin, "attention": EFFICIENT, "norm": True, "zero_init": False}
    model = insert_attention(nn.Sequential(nn.Conv2d(3, 4, 1)), {"0": config})
    plugin = model[0].attention_plugin
    assert isinstance(plugin.norm, nn.LayerNorm)
    assert plugin.gamma is None
    assert config["type"] is AttentionPlugin, "the config is not consumed"


@pytest.mark.parametrize("name", ["torchvision Sequential", "torchvision block", "torchvision dense block"])
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_stands_on_its_own(name: str, duplicate: Callable[[nn.Module], nn.Module]) -> None:
    model, path, x, _, _ = build(name)
    insert_attention(model.eval(), {path: EFFICIENT}, example_input=x[:1])
    wake(model)
    expected = model(x)
    other = duplicate(model)
    for plugin in wake(model):
        nn.init.constant_(plugin.gamma, 9.0)
    assert torch.equal(other(x), expected)
    assert not torch.allclose(model(x), expected)


def test_a_state_dict_goes_into_a_twin() -> None:
    model, path, x, _, _ = build("torchvision block")
    insert_attention(model.eval(), {path: EFFICIENT}, example_input=x[:1])
    wake(model)
    twin = insert_attention(resnet().eval(), {path: EFFICIENT}, example_input=x[:1])
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))


def test_an_unpickled_hook_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a new process torch counts hooks from zero, and would give a later hook the number of the pickled one."""
    model, path, x, _, _ = build("torchvision block")
    insert_attention(model.eval(), {path: EFFICIENT}, example_input=x[:1])
    wake(model)
    expected = model(x)
    number = next(iter(model.get_submodule(path)._forward_hooks))
    data = pickle.dumps(model)
    monkeypatch.setattr(RemovableHandle, "next_id", number)
    other = pickle.loads(data)
    other.get_submodule(path).register_forward_hook(lambda module, args, output: None)
    assert torch.equal(other(x), expected)


def test_an_earlier_hook_sees_the_attention() -> None:
    """timm's hook-based extractors register theirs at construction: a feature is what the next layers get."""
    model, path, x, _, _ = build("torchvision block")
    seen: list[Tensor] = []
    model.eval().get_submodule(path).register_forward_hook(lambda module, args, output: seen.append(output))
    model(x)
    insert_attention(model, {path: EFFICIENT}, example_input=x[:1])
    wake(model)
    model(x)
    assert not torch.allclose(seen[-1], seen[0])


@pytest.mark.parametrize("path", ["layer2", "layer2.0"], ids=["Sequential", "hook"])
def test_gradient_checkpointing_runs_the_attention(path: str) -> None:
    """timm's checkpointing calls the children of a stage one by one, past the stage's own call."""
    torch.manual_seed(0)
    model = insert_attention(timm_model("test_resnet"), {path: EFFICIENT}, example_input=torch.zeros(1, 3, 32, 32))
    wake(model)
    x = image()
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.train().zero_grad()
        model(x).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert any("attention_plugin" in name for name in gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision Sequential", "torchvision block", "torchvision channels last"])
def test_compiles_without_a_graph_break(name: str) -> None:
    model, path, x, _, _ = build(name)
    insert_attention(model.eval(), {path: EFFICIENT}, example_input=x[:1])
    wake(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


@pytest.mark.slow
def test_exports() -> None:
    model, path, x, _, _ = build("torchvision block")
    insert_attention(model.eval(), {path: EFFICIENT}, example_input=x[:1])
    wake(model)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


def test_trains_under_distributed_data_parallel(tmp_path: Any) -> None:
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        model = insert_attention(Line(), {"stem": "EfficientAttention"}, example_input=torch.zeros(1, 3, 20))
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # the second forward complains of parameters that got no gradient in the first
            parallel(torch.randn(2, 3, 50)).sum().backward()
        assert all(p.grad is not None for p in model.stem.attention_plugin.parameters())
        with pytest.raises(ValueError, match="before DistributedDataParallel"):
            insert_attention(parallel, {"module.head": "EfficientAttention"})
    finally:
        torch.distributed.destroy_process_group()


def test_default_inputs_follow_the_model() -> None:
    gray = timm_model("test_resnet", in_chans=1, num_classes=0)  # timm still records an input of three channels
    assert insert_attention(gray, {"layer1": "EfficientAttention"}).layer1.attention_plugin.in_channels == 32
    half = nn.Sequential(nn.Conv2d(3, 4, 3)).bfloat16()
    assert insert_attention(half, {"0": "EfficientAttention"})[0].attention_plugin.gamma.dtype == torch.bfloat16
    plain = nn.Sequential(nn.Identity())
    assert insert_attention(plain, {"0": "EfficientAttention"})[0].attention_plugin.in_channels == 3


@pytest.mark.parametrize(
    ("path", "channels"), [("layers.0", 12), ("patch_embed.proj", 12), ("layers.1.blocks.0", 24), ("layers.1", 24)]
)
def test_a_model_bound_to_one_size(path: str, channels: int) -> None:
    options = {"img_size": 64, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
    model = timm_model("swin_tiny_patch4_window7_224", **options)
    with pytest.raises(AssertionError):
        model(torch.zeros(1, 3, 96, 96))
    insert_attention(model, {path: "EfficientAttention"}, example_input=torch.zeros(1, 3, 64, 64))
    assert model.get_submodule(path).attention_plugin.in_channels == channels


class Stereo(nn.Module):
    """Stacks its two images in the batch, and builds a volume of a fixed number of disparities."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.volume = nn.Conv3d(12, 6, 3, padding=1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = self.features(torch.cat([left, right])).chunk(2)
        shifted = [torch.cat([left, right.roll(d, -1)], 1) for d in range(5)]
        return self.volume(torch.stack(shifted, 2))


def test_two_images_and_a_cost_volume() -> None:
    views = (torch.zeros(1, 3, 16, 24), torch.zeros(1, 3, 16, 24))
    model = insert_attention(Stereo(), {"features": "EfficientAttention", "volume": EFFICIENT}, example_input=views)
    assert model.features.attention_plugin.in_channels == 6
    assert model.volume.attention_plugin.in_channels == 6
    assert not model.volume.attention_plugin.channels_last
    assert model(*views).shape == (1, 6, 5, 8, 12)


def test_a_container_with_its_own_forward_keeps_its_children() -> None:
    """ASPPPooling is a Sequential that loops over its children and resizes afterwards: attention comes last."""
    head = torchvision.models.segmentation.deeplabv3.ASPPPooling(8, 4).eval()
    model = nn.Sequential(nn.Conv2d(3, 8, 1), head)
    insert_attention(model, {"1": "EfficientAttention"}, example_input=torch.zeros(1, 3, 16, 16))
    shapes: list[torch.Size] = []
    wake(model)[0].register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    model(torch.zeros(1, 3, 10, 12))
    assert shapes == [(1, 4, 10, 12)]
    assert len(head) == 4


class Chain(nn.Module):
    """Runs its children in turn without being a Sequential, as timm's RegStage does."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x.add_(1) if self.in_place else x


@pytest.mark.parametrize(
    ("in_place", "place"), [(False, "chain.attention_plugin"), (True, "chain.two.attention_plugin")]
)
def test_a_module_that_runs_its_children_in_turn(in_place: bool, place: str) -> None:
    model = nn.Sequential()
    model.add_module("chain", Chain(in_place).eval())
    x = torch.randn(1, 3, 10, 12)
    expected = model(x)
    insert_attention(model, {"chain": EFFICIENT}, example_input=x)
    assert torch.equal(model(x), expected)
    (plugin,) = wake(model)
    assert model.get_submodule(place) is plugin
    assert torch.allclose(model(x), plugin(expected), atol=1e-6)


def test_torchvision_extracts_features_behind_the_attention() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    model, _, x, _, _ = build("torchvision block")
    insert_attention(model.eval(), {"layer2": EFFICIENT, "layer3.0": EFFICIENT}, example_input=x[:1])
    wake(model)
    extractor = create_feature_extractor(
        model, {"layer2.attention_plugin": "two", "layer4": "four"}, tracer_kwargs={"leaf_modules": [AttentionPlugin]}
    )
    features = extractor(x)
    torch.testing.assert_close(model.layer4(model.layer3(features["two"])), features["four"])
    nn.init.zeros_(model.layer3[0].attention_plugin.gamma)
    assert not torch.allclose(model.layer4(model.layer3(features["two"])), features["four"])


def test_is_a_public_name() -> None:
    assert visionattn.insert_attention is insert_attention
    assert os.path.basename(insert_attention.__code__.co_filename) == "insertion.py"


@pytest.mark.parametrize("attention", ["NonLocal", {3: "NonLocal"}], ids=str)
def test_what_is_no_mapping_of_paths_is_named(attention: object) -> None:
    with pytest.raises(TypeError, match="insert_attention expects"):
        insert_attention(nn.Sequential(nn.Conv2d(3, 8, 1)), attention)  # type: ignore[arg-type]
