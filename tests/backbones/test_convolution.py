"""replace_convolution in ResNets of timm and torchvision: what stands around the convolution stays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tests.naive import tensor
from visionattn.backbones.convolution import replace_convolution
from visionattn.blocks.conv_attention import ConvAttention

EFFICIENT = {"type": "EfficientAttention", "num_heads": 2}


def resnet(name: str, layers: tuple[int, ...] = (1, 1, 1, 2), **options: Any) -> Any:
    torch.manual_seed(0)
    channels = (16, 16, 32, 32)
    options = {"layers": layers, "channels": channels, "num_classes": 4, **options}
    return timm.create_model(name, pretrained=False, **options).eval()


def torchvision_resnet() -> nn.Module:
    return torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], width_per_group=8)


# name: model, path, where the convolution was, its channels, its stride
HOSTS: dict[str, tuple[Callable[[], Any], str, str, int, tuple[int, int]]] = {
    "bottleneck": (lambda: resnet("resnet50"), "layer3.0", "layer3.0.conv2", 32, (2, 2)),
    "resnext": (lambda: resnet("resnext50_32x4d"), "layer3.0", "layer3.0.conv2", 64, (2, 2)),
    "resnet d": (lambda: resnet("resnet50d"), "layer4.1", "layer4.1.conv2", 32, (1, 1)),
    "anti-aliased": (lambda: resnet("resnetaa50d"), "layer3.0", "layer3.0.conv2", 32, (1, 1)),
    "squeeze and excitation": (lambda: resnet("seresnet50"), "layer3.0", "layer3.0.conv2", 32, (2, 2)),
    "basic, both would do": (lambda: resnet("resnet18"), "layer4.1", "layer4.1.conv2", 32, (1, 1)),
    "basic": (lambda: resnet("resnet18"), "layer3.0", "layer3.0.conv2", 32, (1, 1)),
    "dilated": (lambda: resnet("resnet50", output_stride=8), "layer4.1", "layer4.1.conv2", 32, (1, 1)),
    "the convolution": (lambda: resnet("resnet50"), "layer4.0.conv2", "layer4.0.conv2", 32, (2, 2)),
    "regnet": (lambda: timm.create_model("regnetx_002").eval(), "s2.b1", "s2.b1.conv2.conv", 56, (2, 2)),
    "torchvision": (lambda: torchvision_resnet().eval(), "layer4.0", "layer4.0.conv2", 64, (2, 2)),
}


@pytest.mark.parametrize("name", HOSTS)
def test_one_convolution_becomes_attention(name: str) -> None:
    build, path, where, channels, stride = HOSTS[name]
    model = build()
    before = copy.deepcopy(model)
    x = torch.randn(1, 3, 65, 97)  # odd maps in every stage
    assert replace_convolution(model, {path: EFFICIENT}, example_input=x) is model
    found = {name: m for name, m in model.named_modules() if isinstance(m, ConvAttention)}
    assert list(found) == [where]
    assert found[where].attn.dim == channels
    assert (found[where].pool.stride if stride != (1, 1) else (1, 1)) == stride
    assert model(x).shape == before(x).shape
    stays = {n for n in before.state_dict() if not n.startswith(f"{where}.")}
    assert stays == {n for n in model.state_dict() if not n.startswith(f"{where}.")}
    assert all(torch.equal(model.state_dict()[n], before.state_dict()[n]) for n in stays)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bottleneck_written_out(stride: int) -> None:
    """conv1, norm, act; attention (and the mean of 2 x 2); norm, act; conv3, norm; the shortcut; act."""
    model = resnet("resnet50").double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.bias.normal_(0, 0.1)
                module.weight.normal_(1, 0.1)
    block = model.layer3[0] if stride == 2 else model.layer4[1]
    path = "layer3.0" if stride == 2 else "layer4.1"
    replace_convolution(model, {path: "SoftmaxAttention"}, example_input=tensor(1, 3, 64, 96))
    attn = block.conv2.attn
    x = tensor(1, block.conv1.in_channels, 4, 6).requires_grad_()

    def norm(y: Tensor, n: Any) -> Tensor:
        scale = n.weight / (n.running_var + n.eps).sqrt()
        return (y - n.running_mean[:, None, None]) * scale[:, None, None] + n.bias[:, None, None]

    def expected() -> Tensor:
        y = norm(torch.einsum("oi,bihw->bohw", block.conv1.weight[..., 0, 0], x), block.bn1).relu()
        tokens = y.flatten(2).mT
        heads, width = attn.num_heads, y.shape[1]
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in attn.qkv(tokens).split(width, dim=-1))
        mixed = ((q @ k.mT) / (width // heads) ** 0.5).softmax(-1) @ v
        y = attn.proj(mixed.transpose(1, 2).flatten(2)).mT.unflatten(-1, (4, 6))
        y = y.unflatten(2, (4 // stride, stride)).unflatten(4, (6 // stride, stride)).mean((3, 5))
        y = norm(torch.einsum("oi,bihw->bohw", block.conv3.weight[..., 0, 0], norm(y, block.bn2).relu()), block.bn3)
        return (y + (x if block.downsample is None else block.downsample(x))).relu()

    theirs, ours = expected(), block(x)
    assert (ours - theirs).abs().max() < 1e-10
    wanted, got = (torch.autograd.grad(y.pow(2).sum(), x)[0] for y in (theirs, ours))
    assert (got - wanted).abs().max() < 1e-10


def test_a_stage_and_several_places() -> None:
    model = resnet("resnet50")
    x = torch.zeros(1, 3, 64, 64)
    places = {"layer4": EFFICIENT, "layer2.0.conv2": {"type": "WindowAttention", "window": (4, 4)}}
    replace_convolution(model, places, example_input=x)
    found = [name for name, m in model.named_modules() if isinstance(m, ConvAttention)]
    assert found == ["layer2.0.conv2", "layer4.0.conv2", "layer4.1.conv2"]
    assert [type(m.get_submodule("attn")).__name__ for m in (model.layer2[0].conv2, model.layer4[0].conv2)] == [
        "WindowAttention",
        "EfficientAttention",
    ]


def test_every_parameter_is_trained() -> None:
    model = resnet("resnet50").train()
    replace_convolution(model, {"layer4": EFFICIENT}, example_input=torch.zeros(1, 3, 64, 64))
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_dtype_mode_and_buffers_stay() -> None:
    model = resnet("resnet50").double()
    model.layer4[1].train()
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    replace_convolution(model, {"layer4": EFFICIENT}, example_input=tensor(1, 3, 64, 64))
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert [block.conv2.training for block in model.layer4] == [False, True]
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


class Unpadded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.unused = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


ERRORS: dict[str, tuple[Callable[[], Any], Any, type[Exception], str]] = {
    "another block": (
        lambda: timm.create_model("resnest14d"),
        {"layer3.0": EFFICIENT},
        ValueError,
        r"'layer3\.0' \(ResNestBottleneck\) has no 3x3 convolution with as many .*conv1 is 1x1 .*insert_attention",
    ),
    "several branches": (
        lambda: timm.create_model("res2net50_14w_8s"),
        {"layer3.1": EFFICIENT},
        ValueError,
        r"'layer3\.1' \(Bottle2neck\) is no single residual block: it has layer3\.1\.convs\.0, ",
    ),
    "a stage that is no nn.Sequential": (
        lambda: timm.create_model("regnetx_002"),
        {"s3": EFFICIENT},
        ValueError,
        r"'s3' \(RegStage\) is no single residual block: it has s3\.b1\.conv2\.conv",
    ),
    "1x1": (lambda: resnet("resnet50"), {"layer3.0.conv1": EFFICIENT}, ValueError, r"\(Conv2d\) is 1x1 with 64 ch"),
    "nothing": (lambda: resnet("resnet50"), {}, TypeError, r"replace_convolution expects where -> what"),
    "unknown": (lambda: resnet("resnet50"), {"layer3.4": EFFICIENT}, KeyError, r"has no module 'layer3\.4'; did you"),
    "twice": (
        lambda: resnet("resnet50"),
        {"layer4": EFFICIENT, "layer4.1": EFFICIENT},
        ValueError,
        r"'layer4\.1\.conv2' is named twice: by 'layer4\.1' and",
    ),
    "heads": (
        lambda: resnet("resnet50"),
        {"layer4": {"type": "EfficientAttention", "num_heads": 5}},
        ValueError,
        r"at 'layer4\.0\.conv2': num_heads=5 does not divide dim=32; use 1, 2, 4, 8, 16 or 32",
    ),
    "mechanism": (lambda: resnet("resnet50"), {"layer4": "Eficient"}, KeyError, "at 'layer4.0.conv2': no attention"),
    "unpadded": (
        Unpadded,
        {"conv": "EfficientAttention"},
        ValueError,
        r"'conv' returns \[1, 3, 62, 62\] and .*only one that",
    ),
    "not called": (Unpadded, {"unused": "EfficientAttention"}, ValueError, r"'unused' \(Conv2d\) is never called"),
    "does not run": (
        lambda: resnet("resnet50"),
        {"layer2": {"type": "WindowAttention", "window": (4, 4, 4), "shift": (0, 0, 0)}},
        ValueError,
        r"ResNet does not run with the attention in it: WindowAttention expects",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    build, attention, kind, message = ERRORS[case]
    model = build()
    before = [(name, id(m)) for name, m in model.named_modules()]
    with pytest.raises(kind, match=message) as caught:
        replace_convolution(model, attention, example_input=torch.zeros(1, 3, 64, 64))
    assert "\n" not in str(caught.value)
    assert [(name, id(m)) for name, m in model.named_modules()] == before
