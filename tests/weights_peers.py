"""Small Swins and ViTs of the code bases whose weights are read, filled at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionattn.weights.dialects.swin import is_computed

SIZE = {"embed_dim": 16, "depths": (2, 3), "num_heads": (2, 4)}
"""Two stages, the second of odd depth; the merging between them has four times 16 channels."""


def timm_swin(window: int | tuple[int, int], image: tuple[int, int], *, v2: bool = False, **size: Any) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    kind: Any = SwinTransformerV2 if v2 else SwinTransformer
    return filled(kind(img_size=image, window_size=window, num_classes=3, **{**SIZE, **size}))


def torchvision_swin(window: int, *, v2: bool = False, **size: Any) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    options = {key: list(value) if isinstance(value, tuple) else value for key, value in {**SIZE, **size}.items()}
    kinds: dict[str, Any] = {}
    if v2:
        kinds = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    model = swin.SwinTransformer([4, 4], window_size=[window, window], num_classes=3, **options, **kinds)
    return filled(model)


def mmseg_swin(window: int, **size: Any) -> nn.Module:
    from mmseg.models.backbones import SwinTransformer

    options = {**SIZE, **size}
    stages = len(options["depths"])
    model = SwinTransformer(
        embed_dims=options.pop("embed_dim"),
        strides=(4, *(2,) * (stages - 1)),
        out_indices=tuple(range(stages)),
        window_size=window,
        drop_path_rate=0.0,
        **options,
    )
    return filled(model)


def filled(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with random parameters that leave no part without effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + noise / 5 if parameter.dim() == 1 and name.endswith("weight") else noise / 5)
            if name.endswith("attn.qkv.bias") and hasattr(model.get_submodule(name[:-9]), "logit_scale"):
                third = len(parameter) // 3  # torchvision's V2: the bias of k, which it sets to zero
                parameter[third : 2 * third] = 0
    model.eval()  # mmseg's returns nothing
    return model


def parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the buffers that follow from window and image size."""
    return {name: value for name, value in state.items() if not is_computed(name)}


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """The same names, and bit for bit the same tensors."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
