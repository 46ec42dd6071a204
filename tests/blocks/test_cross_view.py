"""Attention between two views, against its definition position by position."""

from __future__ import annotations

import pytest
import torch
from naive import randomised, tensor
from torch import Tensor, nn

from visionattn.attention.base import ContextMixer
from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.blocks.cross_view import CrossViewBlock
from visionattn.registry import MODELS

ABLE = [name for name in list_attention() if issubclass(attention_class(name), ContextMixer)]


class OnlyMaps(SoftmaxAttention):
    grid_dims = (2,)


def views() -> tuple[Tensor, Tensor]:
    return tensor(2, 8, 3, 5), tensor(2, 8, 3, 5, seed=1)


def test_mechanisms_were_found() -> None:
    assert {"SoftmaxAttention", "EfficientAttention"} <= set(ABLE)
    assert "WindowAttention" not in ABLE


@pytest.mark.parametrize("rows", [True, False])
def test_each_position_looks_at_its_row_or_all_of_the_other_view(rows: bool) -> None:
    block = randomised(CrossViewBlock(8, {"type": "SoftmaxAttention", "num_heads": 1}, rows=rows))
    left, right = views()
    found = block(left, right)
    attn = block.attn
    query, key, value = attn.qkv.weight.split(8)
    bias_q, bias_k, bias_v = attn.qkv.bias.split(8)
    for out, own, other in ((found[0], left, right), (found[1], right, left)):
        for b in range(2):
            for y in range(3):
                for x in range(5):
                    q = query @ block.norm(own[b, :, y, x]) + bias_q
                    seen = [block.norm(other[b, :, i, j]) for i in range(3) for j in range(5) if not rows or i == y]
                    logits = torch.stack([q @ (key @ token + bias_k) for token in seen]) / 8**0.5
                    values = torch.stack([value @ token + bias_v for token in seen])
                    mixed = attn.proj.weight @ (logits.softmax(0) @ values) + attn.proj.bias
                    torch.testing.assert_close(out[b, :, y, x], own[b, :, y, x] + block.gamma * mixed)


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "map"])
@pytest.mark.parametrize("name", ABLE)
def test_it_starts_as_the_identity_and_trains(name: str, rows: bool) -> None:
    try:
        block = CrossViewBlock(8, {"type": name}, (5,) if rows else (3, 5), rows=rows)
    except ValueError as error:
        pytest.skip(str(error))
    left, right = (view.float() for view in views())
    out = block(left, right)
    assert torch.equal(out[0], left)
    assert torch.equal(out[1], right)
    nn.init.ones_(block.gamma)
    out = block(left, right)
    assert not torch.allclose(out[0], left)
    (out[0] * out[1]).sum().backward()
    assert [n for n, p in block.named_parameters() if p.grad is None] == []


def test_without_zero_init_there_is_no_gain() -> None:
    block = MODELS.build({"type": "visionattn.CrossViewBlock", "channels": 8, "attention": "EfficientAttention"})
    assert isinstance(block, CrossViewBlock)
    plain = CrossViewBlock(8, "EfficientAttention", norm=False, zero_init=False)
    assert {name.split(".")[0] for name in plain.state_dict()} == {"attn"}
    left, right = (view.float() for view in views())
    rows = build_attention("EfficientAttention", 8)
    rows.load_state_dict(plain.attn.state_dict())
    mixed = rows(left.permute(0, 2, 3, 1).flatten(0, 1), right.permute(0, 2, 3, 1).flatten(0, 1))
    torch.testing.assert_close(plain(left, right)[0], left + mixed.view(2, 3, 5, 8).permute(0, 3, 1, 2))


def test_maps_keep_their_dtype_under_autocast() -> None:
    block = CrossViewBlock(8, "SoftmaxAttention")
    nn.init.ones_(block.gamma)
    left, right = (view.float() for view in views())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = block(left, right)
    assert {view.dtype for view in low} == {torch.float32}
    torch.testing.assert_close(low[0], block(left, right)[0], rtol=3e-2, atol=3e-2)


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match=r"WindowAttention cannot look at another map; .* EfficientAttention, "):
        CrossViewBlock(8, "WindowAttention")
    with pytest.raises(ValueError, match=r"OnlyMaps takes no rows \(grids of \(2,\) dimensions\); let it look"):
        CrossViewBlock(8, {"type": OnlyMaps})
    with pytest.raises(ValueError, match=r"LambdaLayer takes no rows .*; let it .*, or give .* such as grid=\(64,\)"):
        CrossViewBlock(8, "LambdaLayer")
    assert CrossViewBlock(8, {"type": "LambdaLayer", "grid": (5,)}).attn.grid_dims == (1,)
    assert CrossViewBlock(8, {"type": OnlyMaps}, rows=False).attn.grid_dims == (2,)
    block = CrossViewBlock(8, "SoftmaxAttention")
    with pytest.raises(ValueError, match=r"\[B, 8, H, W\] of one size, got \[1, 8, 3, 5\] and \[1, 8, 3, 6\]"):
        block(torch.zeros(1, 8, 3, 5), torch.zeros(1, 8, 3, 6))
