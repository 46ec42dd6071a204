"""Convolution, norm and ReLU in one step: taken exactly when the rule says so, and less is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from visionattn.ops.remade_norm import is_remaking
from visionattn.stereo import normed_layers
from visionattn.stereo.gwcnet import GwcNet
from visionattn.stereo.normed_layers import Chain, ConvNorm, activations_remade


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each step that was taken, whether a ReLU was part of it."""
    monkeypatch.delenv("VISIONATTN_KERNELS", raising=False)
    taken: list[bool] = []
    plain = normed_layers.remade_norm

    def watched(*args: Tensor, relu: bool, **options: object) -> Tensor:
        taken.append(relu)
        return plain(*args, relu=relu, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(normed_layers, "remade_norm", watched)
    return taken


def chain() -> Chain:
    torch.manual_seed(0)
    layers = [ConvNorm(nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)) for _ in range(3)]
    return Chain(layers[0], nn.ReLU(inplace=True), layers[1], nn.Sigmoid(), layers[2], nn.ReLU(inplace=True))


def image(**options: object) -> Tensor:
    return torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1)).to(**options)


def test_a_relu_behind_a_norm_is_part_of_its_step(steps: list[bool]) -> None:
    layers = chain()
    plain = layers(image())
    assert steps == []
    states = {key: value.clone() for key, value in layers.state_dict().items()}
    again = chain()
    with activations_remade(image()):
        torch.testing.assert_close(again(image()), plain, rtol=0, atol=1e-6)
    assert steps == [True, True]  # the norm before the sigmoid has nothing behind it to be one with
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, states[key], rtol=0, atol=1e-6)
    assert again.state_dict()["0.1.num_batches_tracked"] == 1
    assert list(states) == list(nn.Sequential(*chain()).state_dict())


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("other", [torch.float32, torch.float64])
def test_without_a_backward_a_sum_leaves_what_is_added(relu: bool, other: torch.dtype) -> None:
    layer, plus = chain()[0].eval(), image().to(other) / 3
    before = plus.clone()
    with torch.no_grad():
        answer = layer(image(), plus=plus, relu=relu)
    wanted = layer[1](layer[0](image())) + plus
    torch.testing.assert_close(answer, (wanted.relu() if relu else wanted).detach())
    assert torch.equal(plus, before)


@pytest.mark.parametrize("relu", [False, True])
def test_a_sum_is_part_of_the_step(relu: bool, steps: list[bool]) -> None:
    layer, plus = chain()[0], image() / 3
    plain = layer(image(), plus=plus, relu=relu)
    assert steps == []
    wanted = layer[1](layer[0](image())) + plus
    torch.testing.assert_close(plain, wanted.relu() if relu else wanted, rtol=0, atol=1e-6)
    with activations_remade(image()):
        torch.testing.assert_close(layer(image(), plus=plus, relu=relu), plain, rtol=0, atol=1e-6)
        assert steps == [relu]
        layer(image())
    assert steps == [relu]


def test_where_the_rule_says_no(monkeypatch: pytest.MonkeyPatch, steps: list[bool]) -> None:
    def lasts(x: Tensor) -> bool:
        with activations_remade(x):
            return is_remaking()

    assert lasts(image())
    assert lasts(image(dtype=torch.float64))
    assert not lasts(image(dtype=torch.bfloat16))
    with torch.no_grad():
        assert not lasts(image())
    with torch.inference_mode():
        assert not lasts(image())
    with torch.autocast("cpu"):
        assert not lasts(image())
    with torch.autograd.graph.save_on_cpu():
        assert not lasts(image())
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert not lasts(image())


def _cumulative(layers: Chain) -> None:
    layers[0][1].momentum = None


def _watched(layers: Chain) -> None:
    layers[0][1].register_forward_hook(lambda module, inputs, answer: None)


def _watched_relu(layers: Chain) -> None:
    layers[1].register_forward_hook(lambda module, inputs, answer: None)


def _watched_pair(layers: Chain) -> None:
    layers[0].register_forward_hook(lambda module, inputs, answer: None)


def _frozen(layers: Chain) -> None:
    layers[0][1].eval()


def _untracked(layers: Chain) -> None:
    layers[0] = ConvNorm(layers[0][0], nn.BatchNorm2d(3, track_running_stats=False))


def _without_weights(layers: Chain) -> None:
    layers[0] = ConvNorm(layers[0][0], nn.BatchNorm2d(3, affine=False))


def _synchronised(layers: Chain) -> None:
    layers[0] = nn.SyncBatchNorm.convert_sync_batchnorm(layers[0])
    layers[0][1].forward = nn.BatchNorm2d(3).forward  # its own asks for a GPU


def _other_norm(layers: Chain) -> None:
    layers[0] = ConvNorm(layers[0][0], nn.GroupNorm(1, 3))


@pytest.mark.parametrize(
    "change",
    [
        _cumulative,
        _watched,
        _watched_relu,
        _watched_pair,
        _frozen,
        _untracked,
        _without_weights,
        _synchronised,
        _other_norm,
    ],
)
def test_a_norm_that_is_not_ordinary_is_called(change: Callable[[Chain], None], steps: list[bool]) -> None:
    both = []
    for around in (nullcontext, lambda: activations_remade(image())):
        layers = chain()
        change(layers)
        with around():
            both.append(layers(image()))
        both.append(torch.cat([value.flatten().float() for value in layers.state_dict().values()]))
    assert steps == [True]  # that of the last norm
    for plain, ours in zip(both[:2], both[2:], strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


def test_one_value_of_a_channel_is_refused_as_ever() -> None:
    layer = chain()[0]
    with activations_remade(image()), pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(torch.randn(1, 3, 1, 1), relu=True)


def held_bytes(run: Callable[[], object]) -> int:
    """What torch's allocator gave out while `run` ran and has not got back, the answer included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        answer = run()
    del answer
    return sum(event.nbytes() for event in trace.profiler.kineto_results.events() if event.name() == "[memory]")


def test_less_is_kept_for_the_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, pair = GwcNet(48, groups=8), torch.randn(2, 1, 3, 32, 64)
    less = held_bytes(lambda: network(*pair))
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    assert 0 < less < 0.7 * held_bytes(lambda: network(*pair))
