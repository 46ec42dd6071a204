from __future__ import annotations

import pytest
import torch
from torch import nn

from visionattn.registry import MODELS
from visionattn.segmentation.attention_head import AttentionHead

COMMON = {
    "in_channels": 12, "in_index": 0, "channels": 8, "num_classes": 5, "dropout_ratio": 0.0,
    "norm_cfg": {"type": "BN"}, "loss_decode": {"type": "visionattn.CrossEntropyLoss"},
}  # fmt: skip
FCN = {"type": "mmseg.FCNHead", "num_convs": 2, **COMMON}
# mmseg's block in the names of ours, which are linear layers over channels-last maps.
RENAMED = {
    "nl_block.g.conv": "convs.attention.attn.g",
    "nl_block.theta.conv": "convs.attention.attn.theta",
    "nl_block.phi.conv": "convs.attention.attn.phi",
    "nl_block.conv_out.conv": "convs.attention.attn.out",
    "nl_block.conv_out.bn": "convs.attention.attn.norm",
}


@pytest.mark.parametrize("training", [False, True])
def test_with_non_local_it_is_mmsegs_head(training):
    torch.manual_seed(0)
    theirs = MODELS.build({"type": "mmseg.NLHead", "reduction": 2, **COMMON})
    nn.init.normal_(theirs.nl_block.conv_out.bn.weight)  # mmcv starts at the identity
    ours = MODELS.build(
        {
            "type": "visionattn.AttentionHead",
            "head": FCN,
            "attention": {"type": "NonLocal", "reduction": 2, "norm": True},
        }
    )
    state = {"convs.attention.gamma": torch.ones(8)}
    for name, value in theirs.state_dict().items():
        for old, new in RENAMED.items():
            if name.startswith(old):
                name, value = name.replace(old, new), value.squeeze(-1).squeeze(-1) if value.dim() == 4 else value
        state[name] = value
    ours.load_state_dict(state)
    maps = [torch.randn(2, 12, 7, 9)]
    torch.testing.assert_close(ours.train(training)(maps), theirs.train(training)(maps), atol=1e-5, rtol=1e-4)


def test_starts_as_the_head_without_attention_and_learns():
    torch.manual_seed(0)
    head = AttentionHead(FCN, "EfficientAttention")
    plain = MODELS.build(FCN)
    missing = head.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys
    assert all(name.startswith("convs.attention.") for name in missing.missing_keys)
    maps = [torch.randn(2, 12, 7, 9)]
    assert torch.equal(head(maps), plain(maps))
    head(maps).square().sum().backward()
    assert head.convs.attention.gamma.grad.any()


def test_other_heads_are_refused():
    with pytest.raises(TypeError, match=r"first convolution of mmseg\.FCNHead, got PSPHead"):
        AttentionHead({"type": "mmseg.PSPHead", **COMMON}, "EfficientAttention")
    with pytest.raises(TypeError, match="got FCNHead without convolutions"):
        AttentionHead({**FCN, "num_convs": 0, "channels": 12, "concat_input": False}, "EfficientAttention")
