"""How papers turn errors of pixels into one figure. Figures under different protocols must not be compared.

A protocol says which pixels count, and how sums of images (rows of `error_sums`, in the order of the data set) become
figures. Read in the evaluation code of JiaRenChang/PSMNet@87ac909, xy-guo/GwcNet@0987074, XiandaGuo/OpenStereo,
princeton-vl/RAFT-Stereo@6068c1a, gangweiX/IGEV, Windsrain/Selective-Stereo and autonomousvision/unimatch@943a990.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from visionattn.stereo.errors import FIELDS

Reduce = Callable[[Tensor], dict[str, float]]

_BATCH = 8
_ERRORS = FIELDS[2:]


@dataclass(frozen=True)
class Protocol:
    """A named way to evaluate.

    Attributes:
        name: to be written beside every figure.
        images: what its authors evaluate on.
        pixels: which pixels count, in words.
        counted: from truth [H, W] (0 where unknown) and known [H, W], the pixels that count.
        reduce: from sums [images, len(FIELDS)], the figures: EPE in pixels, D1 and bad-* in percent.
    """

    name: str
    images: str
    pixels: str
    counted: Callable[[Tensor, Tensor], Tensor]
    reduce: Reduce


def protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        KeyError: there is none.
    """
    if name not in PROTOCOLS:
        near = get_close_matches(str(name).lower(), PROTOCOLS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise KeyError(f"no evaluation protocol is called {name!r}; there are {', '.join(PROTOCOLS)}{hint}")
    return PROTOCOLS[name]


def _below(limit: float, *, positive: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Known disparities between 0 and the limit; without `positive` unknown ones, which are 0, count too."""

    def counted(truth: Tensor, known: Tensor) -> Tensor:
        return known & (truth > 0) & (truth < limit) if positive else torch.where(known, truth, 0.0) < limit

    return counted


def _of_pixels(sums: Tensor) -> dict[str, float]:
    """Every pixel weighs the same; NaN if there is none."""
    return _figures(sums.sum(0)[2:] / sums[:, 0].sum())


def by_image(sums: Tensor) -> dict[str, float]:
    """Every image with a pixel that counts weighs the same."""
    return _mean(sums[sums[:, 0] > 0])


def _of_images_and_empty_ones(sums: Tensor) -> dict[str, float]:
    """An image without a pixel that counts is an image without error."""
    return _figures((sums[:, 2:] / sums[:, :1].clamp(min=1)).mean(0))


def _of_images_with_enough(sums: Tensor) -> dict[str, float]:
    """Images of which less than a tenth of the positive disparities counts are left out; 0 if that is all."""
    kept = sums[(sums[:, 0] > 0) & (sums[:, 0] >= 0.1 * sums[:, 1])]
    return _mean(kept) if len(kept) else _figures(torch.zeros(len(_ERRORS), dtype=sums.dtype))


def _of_batches(sums: Tensor) -> dict[str, float]:
    """Eight images after another are one; a batch without a pixel that counts has no error."""
    return _of_images_and_empty_ones(_in_batches(sums))


def _of_batches_with_pixels(sums: Tensor) -> dict[str, float]:
    """Eight images after another are one; a batch without a pixel that counts is left out."""
    return by_image(_in_batches(sums))


def _images_and_pixels(*of_pixels: str) -> Reduce:
    """EPE by image, and the share of these errors over all pixels."""

    def reduce(sums: Tensor) -> dict[str, float]:
        pooled = _of_pixels(sums)
        return {"EPE": by_image(sums)["EPE"], **{name: pooled[name] for name in of_pixels}}

    return reduce


def _three_pixels_as_d1(sums: Tensor) -> dict[str, float]:
    """IGEV calls D1 what is above 3 pixels, whatever the disparity."""
    return {"EPE": by_image(sums)["EPE"], "D1": _of_pixels(sums)["bad-3"]}


def _all(sums: Tensor) -> dict[str, float]:
    """By image, and by pixel under names that say so."""
    return {**by_image(sums), **{f"{name}-pixels": value for name, value in _of_pixels(sums).items()}}


def _in_batches(sums: Tensor) -> Tensor:
    return torch.stack([batch.sum(0) for batch in sums.split(_BATCH)])


def _mean(sums: Tensor) -> dict[str, float]:
    return _figures((sums[:, 2:] / sums[:, :1]).mean(0))


def _figures(means: Tensor) -> dict[str, float]:
    named = dict(zip(_ERRORS, means.tolist(), strict=True))
    first = {"EPE": named.pop("absolute"), "D1": 100 * named.pop("D1")}
    return {**first, **{name: 100 * share for name, share in named.items()}}


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "visionattn",
            "Scene Flow finalpass, all 4,370",
            "known, 0 < d < 192; images without such a pixel are left out and counted",
            _below(192, positive=True),
            _all,
        ),
        Protocol(
            "psmnet",
            "Scene Flow cleanpass, all 4,370",
            "d < 192, unknown ones as 0; mean over the pixels of 8 images, then over those batches",
            _below(192, positive=False),
            _of_batches,
        ),
        Protocol(
            "gwcnet",
            "Scene Flow finalpass, all 4,370, the lower right 512 x 960 of each",
            "known, 0 < d < 192; images of which less than a tenth counts are left out",
            _below(192, positive=True),
            _of_images_with_enough,
        ),
        Protocol(
            "openstereo",
            "Scene Flow finalpass, all 4,370",
            "known, 0 < d < 192; an image without such a pixel has error 0",
            _below(192, positive=True),
            _of_images_and_empty_ones,
        ),
        Protocol(
            "raft",
            "Scene Flow finalpass, 400 of the 4,370",
            "d < 192, unknown ones as 0; EPE by image, bad-1 by pixel",
            _below(192, positive=False),
            _images_and_pixels("bad-1"),
        ),
        Protocol(
            "igev",
            "Scene Flow finalpass, all 4,370",
            "d < 192, unknown ones as 0; EPE by image, D1 by pixel and without the 5 %",
            _below(192, positive=False),
            _three_pixels_as_d1,
        ),
        Protocol(
            "selective",
            "Scene Flow finalpass, all 4,370",
            "d < 192, unknown ones as 0; mean over the pixels of 8 images, then over batches that have any",
            _below(192, positive=False),
            _of_batches_with_pixels,
        ),
        Protocol(
            "unimatch",
            "Scene Flow finalpass, all 4,370",
            "known, 0 < d < 400; images without such a pixel are left out",
            _below(400, positive=True),
            by_image,
        ),
        Protocol(
            "kitti",
            "KITTI 2012 and 2015, training images or a part of them",
            "known, d > 0 without a limit; mean over the pixels of all images, as the devkits have it",
            _below(math.inf, positive=True),
            _of_pixels,
        ),
        Protocol(
            "middlebury",
            "Middlebury v3 and ETH3D, training images",
            "known, d > 0 without a limit; images count alike (the official average halves five scenes of Middlebury)",
            _below(math.inf, positive=True),
            by_image,
        ),
    )
}
