"""The Swin-T of timm, torchvision and mmseg with the weights of ours: image -> list of NCHW maps of the stages."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionattn.backbones.swin import SwinTransformer, shifted
from visionattn.weights.conversion import convert_weights

PEERS = ("timm", "torchvision", "mmseg")
_WINDOW = 7


def our_swin(seed: int = 0, **options: Any) -> SwinTransformer:
    """Swin-T with random weights, in which neither biases are zero nor bias tables small."""
    torch.manual_seed(seed)
    model = SwinTransformer(drop_path_rate=0.0, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias_table"):
                nn.init.normal_(parameter)
            elif parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def our_swin_as(peer: str, ours: SwinTransformer) -> SwinTransformer:
    """Ours with the same weights and those choices of the peer that show in the maps.

    timm rolls before it pads, mmseg shifts also where one window covers the map; timm and torchvision have no norm
    behind a stage.
    """
    attention = {
        "type": "WindowAttention",
        "mask_padding": False,
        "shift_before_padding": peer == "timm",
        "shift_covered_axes": peer == "mmseg",
    }
    model = our_swin(attention=shifted(attention, (_WINDOW, _WINDOW)), out_norms=peer == "mmseg")
    model.load_state_dict({name: t for name, t in ours.state_dict().items() if name in model.state_dict()})
    return model


def make_peer(name: str, ours: SwinTransformer, image: tuple[int, int]) -> nn.Module:
    """The peer's model with the weights of ours.

    Raises:
        ImportError: its package is not installed.
    """
    model = {"timm": _timm_swin, "torchvision": _torchvision_swin, "mmseg": _mmseg_swin}[name](image)
    state, body = ours.state_dict(), model
    if name != "mmseg":
        state, body = {key: t for key, t in state.items() if not key.startswith("norm")}, model.body
    weights = convert_weights(state, name)
    missing, unexpected = body.load_state_dict(weights, strict=False)
    learned = {key for key, _ in body.named_parameters()}
    if unexpected or learned & set(missing):
        raise SystemExit(f"{name}: weights without a place {unexpected[:3]}, or a place without weights {missing[:3]}")
    return model


class _TimmStages(nn.Module):
    """timm's Swin up to the maps of its stages."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.body.forward_intermediates(image, intermediates_only=True)


class _TorchvisionStages(nn.Module):
    """torchvision's Swin without its classifier."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = []
        for number, part in enumerate(self.body.features):
            image = part(image)
            if number % 2:
                maps.append(image.permute(0, 3, 1, 2))
        return maps


def _timm_swin(image: tuple[int, int]) -> nn.Module:
    from timm.models import SwinTransformer as TimmSwin

    body = TimmSwin(img_size=image, window_size=_WINDOW, num_classes=0, drop_path_rate=0.0)
    body.norm = nn.Identity()  # behind the last stage, before the classifier; not run
    return _TimmStages(body)


def _torchvision_swin(image: tuple[int, int]) -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

    body = TorchvisionSwin(
        [4, 4], 96, [2, 2, 6, 2], [3, 6, 12, 24], [_WINDOW, _WINDOW], stochastic_depth_prob=0.0, num_classes=1
    )
    body.norm, body.head = nn.Identity(), nn.Identity()
    return _TorchvisionStages(body)


def _mmseg_swin(image: tuple[int, int]) -> nn.Module:
    from mmseg.models.backbones.swin import SwinTransformer as MmsegSwin

    return MmsegSwin(window_size=_WINDOW, drop_path_rate=0.0)
