"""PSMNet on a backbone of the toolkit: timm's, or ours, whose trained weights timm opens."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch.nn import functional as F

from visionattn.stereo.psmnet import PSMNet

RESNET: dict[str, Any] = {
    "type": "TimmBackbone",
    "model_name": "resnet18",
    "timm_options": {"channels": (8, 16, 24, 32)},
}
SWIN: dict[str, Any] = {
    "type": "SwinTransformer",
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (1, 2),
    "out_indices": (0, 1),
}


@pytest.mark.parametrize("backbone", [RESNET, SWIN], ids=lambda cfg: cfg["type"])
def test_any_backbone_with_a_map_of_stride_four(backbone: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = PSMNet(16, backbone=backbone).train()
    pair = torch.randn(2, 1, 3, 32, 64)
    disparities = model(*pair)
    assert [list(d.shape) for d in disparities] == [[1, 32, 64]] * 3
    F.smooth_l1_loss(disparities[-1], torch.full((1, 32, 64), 5.0)).backward()
    body = model.feature_extraction.body
    assert all(p.grad is not None for p in model.feature_extraction.neck.parameters())
    assert any(p.grad is not None and p.grad.any() for p in body.parameters())
    with torch.no_grad():
        assert [list(d.shape) for d in model.eval()(*pair)] == [[1, 32, 64]]


def test_in_training_the_last_of_three_is_what_is_answered_in_eval() -> None:
    torch.manual_seed(0)
    model = PSMNet(16, backbone=RESNET).eval()
    for module in model.modules():
        module.training = module is model  # its norms stay as in eval
    pair = torch.randn(2, 1, 3, 32, 64)
    with torch.no_grad():
        three = model(*pair)
        (answer,) = model.eval()(*pair)
        assert torch.equal(three[-1], answer)
        assert not torch.equal(three[0], answer)
        model.training = True
        model.classif1[2].weight.mul_(2)
        again = model(*pair)  # each stage's logits are added to those of the one before
        model.classif3[2].weight.zero_()
        without = model(*pair)
    assert all(not torch.equal(new, old) for new, old in zip(again, three, strict=True))
    assert torch.equal(without[0], again[0])
    assert torch.equal(without[2], without[1])


def test_a_trained_resnet_is_timms_bit_by_bit() -> None:
    torch.manual_seed(0)
    model = PSMNet(16, backbone=RESNET).train()
    begun = {key: value.clone() for key, value in model.feature_extraction.body.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(*torch.randn(2, 1, 3, 32, 64))[-1].mean().backward()
    optimizer.step()
    body = model.feature_extraction.body
    state = {key.removeprefix("body."): value for key, value in body.state_dict().items()}
    assert not torch.equal(state["conv1.weight"], begun["body.conv1.weight"])

    theirs = timm.create_model(RESNET["model_name"], features_only=True, **RESNET["timm_options"])
    theirs.load_state_dict(state)
    image = torch.randn(1, 3, 48, 80)
    model.eval()
    with torch.no_grad():
        pairs = zip(body(image), theirs.eval()(image)[-4:], strict=True)
        assert all(torch.equal(ours, timms) for ours, timms in pairs)


def test_a_backbone_without_the_map_is_named() -> None:
    with pytest.raises(ValueError, match=r"read at stride 4, and .* has maps at 8, 16, 32; take another"):
        PSMNet(16, backbone={**RESNET, "out_indices": (2, 3, 4)})
    with pytest.raises(ValueError, match="32 and more, got 16 x 64; pad the pair"):
        PSMNet(16, backbone=RESNET)(*torch.randn(2, 1, 3, 16, 64))
