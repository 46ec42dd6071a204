"""Where efficient attention modules stand in a detector (Shen et al., WACV 2021, arXiv 1812.01243, section 4).

The paper reports Mask R-CNN with 1, 5 and 7 modules, on the ResNet stages res3 and res4 and on the feature pyramid.
Which sites make up each number could not be read. The choice here is ours, the one that adds up: two stages and three
levels are five, two stages and five levels are seven, and the single module stands where the non-local network's did
(Wang et al., CVPR 2018, section 4.1: res4).
"""

from __future__ import annotations

from typing import Any

from visionattn.typing import AttentionConfig

_SITES: dict[int, tuple[tuple[str, ...], tuple[int, ...]]] = {
    1: (("layer3",), ()),
    5: (("layer2", "layer3"), (1, 2, 3)),
    7: (("layer2", "layer3"), (0, 1, 2, 3, 4)),
}


def efficient_attention_places(
    modules: int, attention: AttentionConfig = "EfficientAttention"
) -> dict[str, dict[Any, AttentionConfig]]:
    """The `attention` of a ResNet ("backbone": behind the last block of a stage) and of an FPN over it ("neck").

    `places = efficient_attention_places(5)`, then `TimmBackbone("resnet50", attention=places["backbone"])` and
    `FPN(..., extra_levels="LastLevelMaxPool", attention=places["neck"])`. What comes back is plain data: other sites
    are another entry.

    Args:
        modules: 1, at res4 (`layer3`); 5, at res3 and res4 and on P3 to P5; 7, at res3 and res4 and on P2 to P6.
        attention: a mechanism's config, or dict(type="AttentionPlugin", ...), for every site.
    Raises:
        ValueError: the paper has no such number.
    """
    if modules not in _SITES:
        raise ValueError(
            f"modules={modules}: the paper has 1, 5 and 7; for others give the backbone's and the neck's attention "
            'yourself, as {"layer3": ...} and {1: ...}'
        )
    stages, levels = _SITES[modules]
    return {"backbone": dict.fromkeys(stages, attention), "neck": dict.fromkeys(levels, attention)}
