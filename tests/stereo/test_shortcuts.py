"""The volume networks' exact forms: taken exactly when the rule says so, and equal to the plain ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from visionattn.stereo import normed_layers, shortcuts
from visionattn.stereo.compact import CompactStereo
from visionattn.stereo.gwcnet import GwcNet
from visionattn.stereo.psmnet import PSMNet
from visionattn.stereo.shortcuts import (
    DoublingConvolution,
    ScoreConvolution,
    VolumeConvolution,
    correlation_volume,
    full_disparity,
    image_layout,
    shortens,
)

FORMS = (
    "concatenation_convolution",
    "walked_group_correlation",
    "tiled_soft_argmax",
    "doubling_convolution",
    "score_convolution",
)
STEP = "remade_norm"
"""Taken in training alone, around a network's whole forward."""


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the exact forms that were called."""
    called: set[str] = set()

    def watched(name: str, form: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: object, **options: object) -> Tensor:
            called.add(name)
            return form(*args, **options)

        return run

    for name in FORMS:
        monkeypatch.setattr(shortcuts, name, watched(name, getattr(shortcuts, name)))
    monkeypatch.setattr(normed_layers, STEP, watched(STEP, normed_layers.remade_norm))
    return called


def assert_both_forms_agree(
    network: nn.Module, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, taken: set[str]
) -> set[str]:
    """Disparities in training and eval and every gradient, float64; which exact forms were taken."""
    results, exact = {}, set()
    kept = {key: value.clone() for key, value in network.state_dict().items()}
    for switch in ("on", "off"):
        monkeypatch.setenv("VISIONATTN_KERNELS", switch)
        network.load_state_dict(kept)
        disparities = network.train()(*pair)
        loss = sum((d * (i + 1)).square().mean() for i, d in enumerate(disparities))
        grads = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            evaluated = network.eval()(*pair)
        results[switch] = [*disparities, *evaluated, *grads, *(t.clone() for t in network.state_dict().values())]
        if switch == "on":
            exact = set(taken)
            taken.clear()
    assert not taken
    assert len(results["on"]) == len(results["off"]) > 100
    for ours, plain in zip(results["on"], results["off"], strict=True):
        assert (ours - plain).abs().max() <= 1e-9 * plain.abs().max().clamp(min=1e-4)
    return exact


@pytest.mark.parametrize("concat_channels", [0, 12])
def test_gwcnet_is_the_same_in_both_forms(
    concat_channels: int, monkeypatch: pytest.MonkeyPatch, taken: set[str]
) -> None:
    torch.manual_seed(0)
    network = GwcNet(16, groups=8, concat_channels=concat_channels).double()
    pair = tuple(torch.randn(2, 1, 3, 16, 48, dtype=torch.float64))
    exact = assert_both_forms_agree(network, pair, monkeypatch, taken)
    assert exact == {*FORMS, STEP} - (set() if concat_channels else {"concatenation_convolution"})


@pytest.mark.slow
def test_psmnet_is_the_same_in_both_forms(monkeypatch: pytest.MonkeyPatch, taken: set[str]) -> None:
    torch.manual_seed(0)
    pair = tuple(torch.randn(2, 2, 3, 256, 272, dtype=torch.float64))
    exact = assert_both_forms_agree(PSMNet(16).double(), pair, monkeypatch, taken)
    assert exact == {*FORMS, STEP} - {"walked_group_correlation"}


def test_psmnet_on_a_backbone_is_the_same_in_both_forms(monkeypatch: pytest.MonkeyPatch, taken: set[str]) -> None:
    torch.manual_seed(0)
    options = {"channels": (8, 8, 8, 8), "zero_init_last": False}
    backbone = {"type": "TimmBackbone", "model_name": "resnet18", "timm_options": options}
    attention = {"cost": "EfficientAttention", "hourglass": "NonLocal"}
    network = PSMNet(16, backbone=backbone, attention=attention).double()
    for plugin in network.attention.values():
        nn.init.constant_(plugin.gamma, 0.5)
    pair = tuple(torch.randn(2, 2, 3, 32, 64, dtype=torch.float64))
    exact = assert_both_forms_agree(network, pair, monkeypatch, taken)
    assert exact == {*FORMS, STEP} - {"walked_group_correlation"}


def test_the_compact_network_is_the_same_in_both_forms(monkeypatch: pytest.MonkeyPatch, taken: set[str]) -> None:
    torch.manual_seed(0)
    options = {"channels": (8, 8, 8, 8), "zero_init_last": False}
    backbone = {"type": "TimmBackbone", "model_name": "resnet18", "out_indices": (1, 2), "timm_options": options}
    network = CompactStereo(backbone, 16, channels=8, groups=4, volume_channels=4).double()
    pair = tuple(torch.randn(2, 2, 3, 32, 64, dtype=torch.float64))
    exact = assert_both_forms_agree(network, pair, monkeypatch, taken)
    assert exact == {"walked_group_correlation", "doubling_convolution"}


def test_each_layer_is_the_same_in_both_forms_in_float32(monkeypatch: pytest.MonkeyPatch, taken: set[str]) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 1, 6, 4, 9)
    costs, volume = torch.randn(1, 3, 5, 4, 9), torch.randn(1, 6, 5, 4, 9)
    concatenated, first = VolumeConvolution(3, 6, 4, 5), VolumeConvolution(0, 6, 4, 5)
    doubling, score = DoublingConvolution(6, 2), ScoreConvolution(6)
    calls = {
        "concatenation_convolution": lambda: (concatenated((costs, left, right)), first((None, left, right))),
        "walked_group_correlation": lambda: (correlation_volume(left, right, 5, 3),),
        "tiled_soft_argmax": lambda: (full_disparity(volume[:, :1], 20, 16, 36, align_corners=True),),
        "doubling_convolution": lambda: (doubling(volume),),
        "score_convolution": lambda: (score(volume),),
    }
    assert set(calls) == set(FORMS)
    for name, call in calls.items():
        monkeypatch.setenv("VISIONATTN_KERNELS", "on")
        ours = call()
        assert taken == {name}
        taken.clear()
        monkeypatch.setenv("VISIONATTN_KERNELS", "off")
        plain = call()
        assert not taken
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_program_of_the_network_is_the_plain_form(taken: set[str]) -> None:
    torch.manual_seed(0)
    network = GwcNet(16, groups=8, concat_channels=12).double()
    pair = tuple(torch.randn(2, 1, 3, 32, 48, dtype=torch.float64))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(*pair)  # norms that fit, or one disparity would have it all
    taken.clear()
    program = torch.export.export(network.eval(), pair)
    assert not taken
    with torch.no_grad():
        (wanted,), (found,) = network(*pair), program.module()(*pair)
    assert taken == set(FORMS)
    assert wanted.std() > 1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("concat_channels", [0, 12])
def test_volumes_stay_channels_last_between_the_layers(concat_channels: int) -> None:
    torch.manual_seed(0)
    network = GwcNet(192, concat_channels=concat_channels).eval()
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | nn.BatchNorm3d):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        network(*torch.randn(2, 1, 3, 64, 32))
    # PyTorch's own convolutions answer channels first below a number of planes and rows, and with kernels of 1x1x1.
    whole = {name: out for name, out in seen.items() if out.shape[2:] == (48, 16, 8) and "redir" not in name}
    assert len(whole) == 17
    assert [n for n, out in whole.items() if not out.is_contiguous(memory_format=torch.channels_last_3d)] == []


def test_the_rule(monkeypatch: pytest.MonkeyPatch, taken: set[str]) -> None:
    monkeypatch.delenv("VISIONATTN_KERNELS", raising=False)
    x = torch.randn(1, 3, 4, 6)
    assert shortens(x)
    assert shortens(x.double())
    assert not shortens(x.half())
    assert image_layout(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu"):
        assert not shortens(x)
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert not shortens(x)
    assert image_layout(x) is x
    monkeypatch.delenv("VISIONATTN_KERNELS")

    layer = VolumeConvolution(0, 3, 2, 4)
    with monkeypatch.context() as patch:
        patch.setattr(shortcuts, "runs_eagerly", lambda: False)
        plain = layer((None, x, x))
    assert not taken
    torch.testing.assert_close(plain, layer((None, x, x)), rtol=1e-5, atol=1e-5)
    assert taken == {"concatenation_convolution"}
    taken.clear()
    few = VolumeConvolution(0, 3, 2, 2)  # the form needs an inner plane
    assert few((None, x, x)).shape == (1, 2, 2, 4, 6)
    assert not taken
