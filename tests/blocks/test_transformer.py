"""Transformer blocks against timm's, weights copied by name, and stochastic depth against what it promises."""

from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from visionattn.blocks import ResPostNormTransformerBlock, TransformerBlock
from visionattn.blocks.drop_path import DropPath
from visionattn.blocks.mlp import Mlp
from visionattn.registry import MODELS


def scramble(module: nn.Module) -> nn.Module:
    """Every parameter a random number: no norm is 1, no bias 0."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return module.double().eval()


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_is_timms_vit_block(layer_scale: float | None) -> None:
    theirs = scramble(Block(24, num_heads=3, mlp_ratio=2.5, qkv_bias=True, init_values=layer_scale))
    ours = TransformerBlock(
        24,
        {"type": "SoftmaxAttention", "num_heads": 3},
        mlp_ratio=2.5,
        layer_scale=layer_scale,
        norm_eps=theirs.norm1.eps,
    ).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 7, 24, dtype=torch.float64)
    expected = theirs(x.flatten(1, 2)).view_as(x)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [(0, 0), (1, 2)])
def test_is_timms_swin_block(shift: tuple[int, int]) -> None:
    theirs = scramble(SwinTransformerBlock(24, (8, 15), num_heads=3, window_size=(4, 5), shift_size=shift))
    attention = {"type": "WindowAttention", "window": (4, 5), "shift": shift, "num_heads": 3}
    ours = TransformerBlock(24, attention).double().eval()
    weights = {name: w for name, w in theirs.state_dict().items() if name in ours.state_dict()}
    ours.load_state_dict(weights)
    x = torch.randn(2, 8, 15, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_is_timms_swin_v2_block_around_the_same_attention() -> None:
    ours = scramble(ResPostNormTransformerBlock(24, "EfficientAttention", mlp_ratio=3.0))
    theirs = scramble(SwinTransformerV2Block(24, (5, 7), num_heads=3, window_size=(5, 7), mlp_ratio=3.0))
    theirs._attn = lambda x: ours.attn(x)
    ours.load_state_dict({n: w for n, w in theirs.state_dict().items() if not n.startswith("attn")}, strict=False)
    x = torch.randn(2, 5, 7, 24, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x.clone()), rtol=0, atol=1e-12)


def test_res_post_norm_starts_as_the_identity() -> None:
    x = torch.randn(2, 5, 7, 24)
    assert torch.equal(ResPostNormTransformerBlock(24, "SoftmaxAttention")(x), x)
    assert not torch.allclose(ResPostNormTransformerBlock(24, "SoftmaxAttention", zero_init=False)(x), x)


@pytest.mark.parametrize("block", [TransformerBlock, ResPostNormTransformerBlock])
@pytest.mark.parametrize("grid", [(11,), (5, 7), (3, 4, 5)])
def test_takes_any_grid_and_hands_the_mask_on(block: type[nn.Module], grid: tuple[int, ...]) -> None:
    ours = scramble(block(8, "SoftmaxAttention"))
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    mask = torch.ones(2, *grid, dtype=torch.bool)
    mask[1, ..., -2:] = False
    y = ours(x, mask=mask)
    assert y.shape == x.shape
    noisy = torch.where(mask[..., None], x, torch.randn_like(x))
    torch.testing.assert_close(ours(noisy, mask=mask)[mask], y[mask])
    assert not torch.allclose(ours(noisy)[mask], y[mask])


@pytest.mark.parametrize("block", [TransformerBlock, ResPostNormTransformerBlock])
def test_every_parameter_learns(block: type[nn.Module]) -> None:
    ours = scramble(block(8, "EfficientAttention")).train()
    ours(torch.randn(2, 5, 7, 8, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad.count_nonzero() for p in ours.parameters())


def test_drop_path_drops_whole_samples_and_scales_the_others() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 3, 2) + 5
    y = DropPath(0.25).train()(x)
    dropped = (y == 0).flatten(1).all(1)
    torch.testing.assert_close(y[~dropped], x[~dropped] / 0.75)
    assert dropped.float().mean() == pytest.approx(0.25, abs=0.03)  # three standard deviations are 0.02
    assert y.mean() == pytest.approx(x.mean().item(), rel=0.03)


def test_drop_path_does_nothing_at_inference_or_at_zero() -> None:
    x = torch.randn(4, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


@pytest.mark.parametrize("block", [TransformerBlock, ResPostNormTransformerBlock])
def test_a_block_drops_its_two_branches_apart(block: type[nn.Module]) -> None:
    """Of 64 samples each must be one of the four sums of scaled branches, and all four must come up."""
    ours = scramble(block(8, "SoftmaxAttention", drop_path=0.5))
    x = torch.randn(1, 5, 7, 8, dtype=torch.float64).expand(64, -1, -1, -1)

    def second(z: Tensor) -> Tensor:
        return ours.mlp(ours.norm2(z)) if block is TransformerBlock else ours.norm2(ours.mlp(z))

    first = ours.attn(ours.norm1(x[:1])) if block is TransformerBlock else ours.norm1(ours.attn(x[:1]))
    middles = [x[:1], x[:1] + 2 * first]
    sums = torch.cat([m + gain * second(m) for m in middles for gain in (0, 2)])
    distance = (ours.train()(x)[:, None] - sums[None]).flatten(2).abs().amax(-1)  # [64, 4]
    assert distance.amin(1).max() < 1e-12
    assert set(distance.argmin(1).tolist()) == {0, 1, 2, 3}


def test_mlp_drops_after_both_layers() -> None:
    mlp = Mlp(8, 16, drop=0.5)
    calls: list[tuple[int, ...]] = []
    mlp.drop.register_forward_hook(lambda module, args, output: calls.append(tuple(output.shape)))
    mlp(torch.zeros(2, 8))
    assert calls == [(2, 16), (2, 8)]


def test_are_built_from_configs() -> None:
    config = {
        "type": "visionattn.TransformerBlock",
        "dim": 8,
        "attention": {"type": "EfficientAttention", "num_heads": 2},
    }
    assert isinstance(MODELS.build(config), TransformerBlock)
    assert isinstance(MODELS.build(config | {"type": "ResPostNormTransformerBlock"}), ResPostNormTransformerBlock)


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"drop_path=1.0 must be at least 0 and below 1"):
        TransformerBlock(8, "SoftmaxAttention", drop_path=1.0)
    with pytest.raises(ValueError, match="raise mlp_ratio"):
        TransformerBlock(8, "SoftmaxAttention", mlp_ratio=0.1)
    with pytest.raises(ValueError, match="num_heads=5 does not divide dim=8"):
        TransformerBlock(8, {"type": "SoftmaxAttention", "num_heads": 5})
