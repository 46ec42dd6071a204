"""Made-up scenes: textured shapes on textured grounds, whose classes need shape, colour and context.

    poppy, cornflower           one shape, the flower, in two families of colour
    star, crate                 shape: their colours overlap with those of poppies, tents and sails
    tent, sail                  one shape and colour, the triangle: the ground around it decides
    ball, buoy                  one shape and colour, the disk: likewise
    meadow, water, paving       texture: every colour occurs

Debris and the kerb between two grounds are label 0, which is not evaluated.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.shapes import cover, place_outline

SCENE_CLASSES = (
    "meadow", "water", "paving", "crate", "star", "poppy", "cornflower", "tent", "sail", "ball", "buoy",
)  # fmt: skip
"""Names of labels 1, 2, ...; label 0 is not evaluated."""

SCENE_PALETTE = (
    (120, 171, 48), (86, 180, 233), (150, 150, 150), (150, 80, 40), (240, 228, 66), (213, 50, 40),
    (40, 60, 200), (230, 159, 0), (0, 128, 128), (230, 120, 180), (110, 60, 150),
)  # fmt: skip

SMALLEST_SIDE = 64
"""The shortest side, in pixels, that a scene can have."""

SMALLEST_OBJECT = 24
"""No object's bounding box has a side below this many pixels (times the shorter side / 128, if that is more)."""

_OUTLINES, _SHARES = ("square", "star", "disk", "flower", "triangle"), (0.15, 0.15, 0.22, 0.24, 0.24)
_GROUNDS = ("meadow", "water", "paving")
_TRIALS = 12  # places tried for an object before it is left out
_WARM, _BLUE = (-0.06, 0.08), (0.56, 0.7)  # hues of flowers; those of the others overlap with them
_HUES = {"star": (0.06, 0.18), "square": (0.34, 0.52), "triangle": (0.22, 0.42), "disk": (0.68, 0.9)}


@dataclass(frozen=True)
class Thing:
    """One object, wherever it stands; `texture` seeds its surface."""

    outline: str
    color: tuple[float, float, float]
    warm: bool
    center: tuple[float, float]
    extent: float
    angle: float
    texture: int

    def polygon(self) -> NDArray[np.float64]:
        """Its outline [K, 2] in pixels (x, y)."""
        return place_outline(self.outline, self.center, self.extent, self.angle)


@dataclass(frozen=True)
class Scene:
    """What is in a picture, before it is drawn; things overlap in their order.

    Attributes:
        size: H, W.
        grounds: one or two of meadow, water and paving.
        things: objects from the back to the front.
        seed: of everything else: the border of the grounds, textures, debris, light.
    """

    size: tuple[int, int]
    grounds: tuple[str, ...]
    things: tuple[Thing, ...]
    seed: int

    @property
    def scale(self) -> float:
        """Size of everything in it, relative to that in a scene of 128 pixels."""
        return max(1.0, min(self.size) / 128)


def class_label(name: str) -> int:
    """The label of a class in the annotations, 1 or more."""
    return SCENE_CLASSES.index(name) + 1


def thing_class(outline: str, warm: bool, ground: str) -> str:
    """The class of an object: its shape, then its colour or the ground around it decides."""
    if outline == "flower":
        return "poppy" if warm else "cornflower"
    if outline == "triangle":
        return "sail" if ground == "water" else "tent"
    if outline == "disk":
        return "buoy" if ground == "water" else "ball"
    return {"square": "crate", "star": "star"}[outline]


def compose_scene(rng: np.random.Generator, size: tuple[int, int] = (128, 128)) -> Scene:
    """A random scene in which a fifth of an object is hidden at most."""
    grounds = tuple(str(ground) for ground in rng.permutation(_GROUNDS)[: rng.integers(1, 3)])
    scene = Scene(size, grounds, (), int(rng.integers(2**31)))
    labels = ground_labels(scene)
    outlines = [str(outline) for outline in rng.choice(_OUTLINES, rng.integers(3, 6), p=_SHARES)]
    things: list[Thing] = []
    areas: list[int] = []
    owners = np.full(size, -1, np.int16)  # number of the thing that is seen at a pixel
    for outline in outlines:
        for _ in range(_TRIALS):
            thing = random_thing(rng, outline, scene)
            reach = round(6 * scene.scale)
            window, mask = cover(thing.polygon(), size, margin=reach)
            body = mask > 0.5
            hidden = owners[window][body]
            left = [np.count_nonzero(owners == k) - np.count_nonzero(hidden == k) for k in range(len(things))]
            seen = all(pixels >= 0.8 * area for pixels, area in zip(left, areas, strict=True))
            if seen and _one_ground(body, labels[window], reach):
                owners[window][body] = len(things)
                things.append(thing)
                areas.append(int(np.count_nonzero(body)))
                break
    return replace(scene, things=tuple(things))


def random_thing(rng: np.random.Generator, outline: str, scene: Scene) -> Thing:
    """An object of some size and colour that its class may have, anywhere inside the scene."""
    height, width = scene.size
    smallest = 1.4 * SMALLEST_OBJECT * scene.scale
    extent = rng.uniform(smallest, max(smallest, 0.5 * min(scene.size)))
    angle = rng.uniform(-0.3, 0.3)
    warm = bool(rng.random() < 0.5)
    hue = rng.uniform(*(_WARM if warm else _BLUE) if outline == "flower" else _HUES[outline])
    color = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.6, 0.95), rng.uniform(0.7, 0.95))
    half_width, half_height = place_outline(outline, (0.0, 0.0), extent, angle).max(axis=0) + 1
    center = (
        rng.uniform(half_width, max(half_width, width - 1 - half_width)),
        rng.uniform(half_height, max(half_height, height - 1 - half_height)),
    )
    return Thing(outline, color, warm, center, extent, angle, int(rng.integers(2**31)))


def _one_ground(body: NDArray[np.bool_], labels: NDArray[np.uint8], reach: int) -> bool:
    """Whether nine tenths of what an object covers, and has within `reach` pixels, is one ground."""
    side = 2 * reach + 1
    around = cv2.dilate(body.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    return bool(np.bincount(labels[around]).max() >= 0.9 * np.count_nonzero(around))


def ground_labels(scene: Scene) -> NDArray[np.uint8]:
    """Labels [H, W] of the bare grounds."""
    labels = np.full(scene.size, class_label(scene.grounds[0]), np.uint8)
    if len(scene.grounds) == 2:
        labels[beyond_border(scene) > 0] = class_label(scene.grounds[1])
    return labels


def beyond_border(scene: Scene) -> NDArray[np.float32]:
    """About how many pixels [H, W] a pixel lies beyond the winding border of two grounds; negative before it."""
    rng = np.random.default_rng([scene.seed, 1])
    height, width = scene.size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, math.tau)
    c, s = math.cos(angle), math.sin(angle)
    along, across = (x - width / 2) * s - (y - height / 2) * c, (x - width / 2) * c + (y - height / 2) * s
    bend = 5 * scene.scale * np.sin(along * (math.tau / (rng.uniform(50, 90) * scene.scale)) + rng.uniform(0, math.tau))
    return np.asarray(across + bend + rng.uniform(-0.12, 0.12) * min(scene.size), np.float32)
