"""AttentionPlugin: the residual around a mechanism, on channels-first and channels-last maps."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from visionattn.attention.base import TokenMixer
from visionattn.blocks import AttentionPlugin

GRIDS = [(11,), (5, 7), (3, 4, 5)]


def awake(plugin: AttentionPlugin) -> AttentionPlugin:
    """With a gamma that lets the attention through."""
    torch.manual_seed(3)
    nn.init.normal_(plugin.gamma)
    return plugin


def by_hand(plugin: AttentionPlugin, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """x [B, C, *grid] plus attention, position by position."""
    tokens = torch.stack([sample.flatten(1).T for sample in x])  # [B, N, C]
    tokens = tokens.reshape(len(x), *x.shape[2:], x.shape[1])
    if plugin.norm is not None:
        centred = tokens - tokens.mean(-1, keepdim=True)
        tokens = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        tokens = tokens * plugin.norm.weight + plugin.norm.bias
    mixed = plugin.attn(tokens, mask=mask)
    gain = torch.ones(x.shape[1]) if plugin.gamma is None else plugin.gamma
    expected = x.clone()
    for channel in range(x.shape[1]):
        expected[:, channel] += gain[channel].to(x) * mixed[..., channel]
    return expected


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("options", [{}, {"norm": True}, {"zero_init": False}, {"norm": True, "zero_init": False}])
def test_is_the_residual_written_out(grid: tuple[int, ...], options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    plugin = AttentionPlugin(8, "SoftmaxAttention", **options).double()
    if plugin.gamma is not None:
        awake(plugin)
    if options.get("norm"):
        nn.init.normal_(plugin.norm.weight)
        nn.init.normal_(plugin.norm.bias)
    x = torch.randn(2, 8, *grid, dtype=torch.float64)
    torch.testing.assert_close(plugin(x), by_hand(plugin, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("zero_init", [True, False])
def test_channels_last_is_the_same_map_permuted(grid: tuple[int, ...], zero_init: bool) -> None:
    options = {"attention": "EfficientAttention", "norm": True, "zero_init": zero_init}
    first = AttentionPlugin(8, **options).double()
    if zero_init:
        awake(first)
    last = AttentionPlugin(8, **options, channels_last=True).double()
    last.load_state_dict(first.state_dict())
    x = torch.randn(2, 8, *grid, dtype=torch.float64)
    torch.testing.assert_close(last(x.movedim(1, -1)).movedim(-1, 1), first(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_changes_no_bit_at_first(dtype: torch.dtype, channels_last: bool) -> None:
    x = torch.randn(2, 8, 5, 8).to(dtype)
    assert torch.equal(AttentionPlugin(8, "EfficientAttention", channels_last=channels_last).to(dtype)(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("zero_init", [True, False])
def test_keeps_the_dtype_under_autocast(dtype: torch.dtype, zero_init: bool) -> None:
    x = torch.randn(2, 8, 5, 7).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = AttentionPlugin(8, "SoftmaxAttention", zero_init=zero_init)(x)
    assert y.dtype == dtype
    assert torch.equal(y, x) == zero_init


class InFloat32(TokenMixer):
    """A mechanism that answers in float32 whatever it is asked in."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x.float() + 1


@pytest.mark.parametrize("zero_init", [True, False])
def test_keeps_the_dtype_whatever_the_mechanism_answers_in(zero_init: bool) -> None:
    x = torch.randn(2, 8, 5, 7).bfloat16()
    assert AttentionPlugin(8, InFloat32, zero_init=zero_init)(x).dtype == torch.bfloat16


def test_the_mixer_looks_at_the_map_itself() -> None:
    seen: list[Tensor] = []
    plugin = AttentionPlugin(8, "EfficientAttention")
    plugin.attn.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.randn(2, 8, 5, 7)
    y = plugin(x)
    assert seen[0].shape == (2, 5, 7, 8)
    assert seen[0].data_ptr() == x.data_ptr()
    assert y.is_contiguous()
    y = plugin(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_a_map_in_either_memory_format_gives_one_answer() -> None:
    plugin = awake(AttentionPlugin(8, "SoftmaxAttention").double())
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(plugin(x.contiguous(memory_format=torch.channels_last)), plugin(x), rtol=0, atol=1e-12)


def test_gamma_learns_first_and_then_the_attention() -> None:
    plugin = AttentionPlugin(8, "EfficientAttention", norm=True)
    x = torch.randn(2, 8, 5, 7, requires_grad=True)
    plugin(x).square().sum().backward()
    assert plugin.gamma.grad.abs().min() > 0
    torch.testing.assert_close(x.grad, 2 * x)
    assert all(p.grad is not None for p in plugin.parameters()), "a distributed run waits for every gradient"
    assert all(p.grad.count_nonzero() == 0 for p in plugin.attn.parameters())
    awake(plugin)
    plugin(x).square().sum().backward()
    assert all(p.grad.count_nonzero() > 0 for p in plugin.parameters())


def test_hidden_positions_change_nothing() -> None:
    plugin = awake(AttentionPlugin(8, "EfficientAttention").double())
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    mask = torch.ones(2, 5, 7, dtype=torch.bool)
    mask[1, :, 4:] = False
    y = plugin(x, mask=mask)
    noisy = torch.where(mask[:, None], x, torch.randn_like(x))
    torch.testing.assert_close(plugin(noisy, mask=mask)[0], y[0])
    torch.testing.assert_close(plugin(noisy, mask=mask)[1, :, :, :4], y[1, :, :, :4])
    assert not torch.allclose(plugin(noisy)[1, :, :, :4], y[1, :, :, :4])


def timm_style(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.normal_(module.bias)
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)


def torchvision_style(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
        nn.init.constant_(module.weight, 1)
        nn.init.constant_(module.bias, 1)


def own_reset(module: nn.Module) -> None:
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


@pytest.mark.parametrize("initialise", [timm_style, torchvision_style, own_reset])
def test_stays_the_identity_after_a_hosts_initialisation(initialise: object) -> None:
    plugin = AttentionPlugin(8, "EfficientAttention", norm=True)
    before = plugin.attn.qkv.weight.clone()
    plugin.apply(initialise)
    assert initialise is torchvision_style or not torch.equal(plugin.attn.qkv.weight, before)
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(plugin(x), x)


def test_parameters_go_by_name() -> None:
    names = set(AttentionPlugin(8, "EfficientAttention", norm=True).state_dict())
    assert names == {
        "gamma",
        "norm.weight",
        "norm.bias",
        "attn.qkv.weight",
        "attn.qkv.bias",
        "attn.proj.weight",
        "attn.proj.bias",
    }
    assert "gamma" not in AttentionPlugin(8, "EfficientAttention", zero_init=False).state_dict()


def test_copies_and_pickles() -> None:
    plugin = awake(AttentionPlugin(8, {"type": "EfficientAttention", "num_heads": 2}, norm=True))
    x = torch.randn(2, 8, 5, 7)
    for other in (copy.deepcopy(plugin), pickle.loads(pickle.dumps(plugin))):
        assert torch.equal(other(x), plugin(x))


def test_grid_reaches_the_mechanism() -> None:
    assert AttentionPlugin(8, "SoftmaxAttention", (5, 7)).attn.grid == (5, 7)
    assert AttentionPlugin(8, {"type": "SoftmaxAttention", "grid": (3, 4)}).attn.grid == (3, 4)


def test_wrong_maps_are_answered_in_its_own_layout() -> None:
    with pytest.raises(ValueError, match=r"expects a map \[B, 8, \*grid\] .* got \[2, 5, 7, 8\]"):
        AttentionPlugin(8, "EfficientAttention")(torch.zeros(2, 5, 7, 8))
    with pytest.raises(ValueError, match=r"expects a map \[B, \*grid, 8\] .* got \[2, 8, 5, 7\]"):
        AttentionPlugin(8, "EfficientAttention", channels_last=True)(torch.zeros(2, 8, 5, 7))
    with pytest.raises(ValueError, match=r"got \[2, 8\]"):
        AttentionPlugin(8, "EfficientAttention")(torch.zeros(2, 8))
    with pytest.raises(ValueError, match="bool mask"):
        AttentionPlugin(8, "EfficientAttention")(torch.zeros(2, 8, 5, 7), mask=torch.ones(2, 7, 5).bool())
    with pytest.raises(TypeError, match="nrom"):
        AttentionPlugin(8, "EfficientAttention", nrom=True)  # type: ignore[call-arg]
