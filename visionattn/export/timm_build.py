"""A backbone as a timm model, from its config.

A backbone of ours becomes one itself: its class gets timm's methods before its own, the names of its parameters stay,
and `norm` and `head` come beside them. Where a backbone has timm's names, so has the whole model. Others, whose
attributes may be in the way, are held as `backbone`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from visionattn.backbones.build import create_backbone
from visionattn.backbones.vit import VisionTransformer
from visionattn.export.timm_config import with_channels, with_size
from visionattn.export.timm_features import described
from visionattn.export.timm_model import TimmModel
from visionattn.export.timm_vit import TimmTokenModel
from visionattn.typing import Feature


def timm_model(
    *,
    backbone: Mapping[str, Any],
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str | None = None,
    drop_rate: float = 0.0,
    img_size: int | Sequence[int] | None = None,
    **options: Any,
) -> TimmModel:
    """The backbone that a config describes, as a timm model.

    Args:
        backbone: dict(type=..., **options) of any registered backbone.
        num_classes: 0 for no classifier.
        in_chans: channels of the image.
        global_pool: timm's pooling before the classifier, "" for none; a vision transformer's class token or else the
            average if None.
        drop_rate: dropout before the classifier.
        img_size: where position-bound parameters are learned, for backbones that have image_size.
        options: timm hands on what else `create_model` got: options of the backbone, over those of the config.
    Raises:
        KeyError, TypeError, ValueError: as `create_backbone`; the backbone hands out no maps.
    """
    cfg = with_channels({**backbone, **options}, in_chans)
    if img_size is not None:
        cfg = with_size(cfg, img_size)
    body = create_backbone(cfg)
    if type(body).__module__.partition(".")[0] != __name__.partition(".")[0]:
        body = Foreign(body)
    info = described(body, in_chans)
    body.__class__ = _timm_class(type(body))
    model = cast("TimmModel", body)
    model.feature_info = info
    model._returned = tuple(range(len(info)))
    model.in_chans = in_chans
    model.num_features = info[-1]["num_chs"]
    model.add_norm(raw=cfg.get("out_norms") is False)
    model.add_head(num_classes, global_pool, drop_rate)
    return model


class Foreign(nn.Module):
    """Holds a backbone of another library."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> list[Feature]:
        return list(self.backbone(image))


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _timm_class(backbone: type[nn.Module]) -> type[nn.Module]:
    if backbone not in _CLASSES:
        methods = TimmTokenModel if issubclass(backbone, VisionTransformer) else TimmModel
        space = {"__doc__": backbone.__doc__, "__module__": __name__, "__reduce_ex__": _reduce}
        _CLASSES[backbone] = type(f"Va{backbone.__name__}", (methods, backbone), space)
    return _CLASSES[backbone]


def _reduce(model: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """How a model is copied and pickled: no module has its class by name, so that of the backbone is named."""
    return _blank, (type(model).__bases__[1],), model.__dict__


def _blank(backbone: type[nn.Module]) -> nn.Module:
    kind = _timm_class(backbone)
    return kind.__new__(kind)
