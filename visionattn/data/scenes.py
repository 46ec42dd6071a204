"""Made-up scenes: textured shapes on textured grounds, whose classes need shape, colour and context.

    crate, star                 shape alone: every colour occurs
    poppy, cornflower           one shape, the flower, in two families of colour
    tent, sail                  one shape and colour, the triangle: the ground under it decides
    ball, moon                  one shape and colour, the disk: a star anywhere in the picture makes it a moon
    meadow, water, paving       texture: their colours overlap

Debris and the kerb between two grounds are label 0, which is not evaluated.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data import textures
from visionattn.data.shapes import cover, place_blob, place_outline

SCENE_CLASSES = (
    "meadow", "water", "paving", "crate", "star", "poppy", "cornflower", "tent", "sail", "ball", "moon",
)  # fmt: skip
"""Names of labels 1, 2, ...; label 0 is not evaluated."""

SCENE_PALETTE = (
    (120, 171, 48), (86, 180, 233), (150, 150, 150), (166, 86, 40), (240, 228, 66), (213, 40, 40),
    (40, 60, 200), (230, 159, 0), (255, 255, 255), (204, 121, 167), (90, 40, 120),
)  # fmt: skip

SMALLEST_SIDE = 64
"""The shortest side, in pixels, that a scene can have."""

SMALLEST_OBJECT = 24
"""No object's bounding box has a side below this many pixels (times the shorter side / 128, if that is more)."""

_OUTLINES, _SHARES = ("square", "disk", "flower", "triangle"), (0.15, 0.25, 0.3, 0.3)  # stars are drawn apart
_GROUNDS = ("meadow", "water", "paving")
_WARM, _BLUE = (-0.07, 0.07), (0.55, 0.69)  # hues


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
        return max(1.0, min(self.size) / 128)


def thing_class(outline: str, warm: bool, ground: str, starry: bool) -> str:
    """The class of an object: its shape, then its colour, the ground under it, or the whole picture decides."""
    if outline == "flower":
        return "poppy" if warm else "cornflower"
    if outline == "triangle":
        return "sail" if ground == "water" else "tent"
    if outline == "disk":
        return "moon" if starry else "ball"
    return {"square": "crate", "star": "star"}[outline]


def render_scene(
    rng: np.random.Generator, size: tuple[int, int] = (128, 128)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image [H, W, 3] (RGB) and its labels [H, W]: 0 for what is not evaluated, 1.. for SCENE_CLASSES."""
    return draw_scene(compose_scene(rng, size))


def compose_scene(rng: np.random.Generator, size: tuple[int, int] = (128, 128)) -> Scene:
    """A random scene in which no object hides more than a third of another."""
    count = 1 + int(rng.random() < 0.5)
    grounds = tuple(str(g) for g in rng.permutation(_GROUNDS)[:count])
    scene = Scene(size, grounds, (), int(rng.integers(2**31)))
    ground = ground_labels(scene)
    outlines = [str(o) for o in rng.choice(_OUTLINES, int(rng.integers(3, 7)), p=_SHARES)]
    if rng.random() < 0.5:
        outlines.insert(int(rng.integers(len(outlines) + 1)), "star")
    things: list[Thing] = []
    owners = np.full(size, -1, np.int16)  # which thing is seen at a pixel
    areas: list[int] = []
    for outline in outlines:
        for _ in range(12):
            thing = _random_thing(rng, outline, size, scene.scale)
            body = _body(thing, size)
            seen = np.bincount(owners[~body & (owners >= 0)], minlength=len(areas))
            if (seen >= 0.67 * np.array(areas)).all() and _stands_on_one_ground(body, ground, scene.scale):
                owners[body] = len(things)
                things.append(thing)
                areas.append(int(body.sum()))
                break
    return Scene(size, grounds, tuple(things), scene.seed)


def _random_thing(rng: np.random.Generator, outline: str, size: tuple[int, int], scale: float) -> Thing:
    smallest = SMALLEST_OBJECT * scale + 1  # one more than promised: the polygon is rounded to pixels
    extent = rng.uniform(smallest, max(smallest, 0.4 * min(size)))
    angle = rng.uniform(-0.35, 0.35) if outline == "triangle" else rng.uniform(-math.pi, math.pi)
    warm = bool(rng.random() < 0.5)
    hue = rng.uniform(*(_WARM if warm else _BLUE)) if outline == "flower" else rng.random()
    color = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.45, 0.95), rng.uniform(0.55, 0.95))
    polygon = place_outline(outline, (0.0, 0.0), extent, angle)
    half_width, half_height = polygon.max(axis=0) + 1
    center = (
        rng.uniform(half_width, max(half_width, size[1] - 1 - half_width)),
        rng.uniform(half_height, max(half_height, size[0] - 1 - half_height)),
    )
    return Thing(outline, color, warm, center, extent, angle, int(rng.integers(2**31)))


def _body(thing: Thing, size: tuple[int, int]) -> NDArray[np.bool_]:
    return cover(place_outline(thing.outline, thing.center, thing.extent, thing.angle), size) > 0.5


def _stands_on_one_ground(body: NDArray[np.bool_], ground: NDArray[np.uint8], scale: float) -> bool:
    """Whether nine tenths of what the object covers and touches is one ground."""
    reach = 2 * round(6 * scale) + 1
    around = cv2.dilate(body.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    return bool(np.bincount(ground[around]).max() >= 0.9 * around.sum())


def ground_labels(scene: Scene) -> NDArray[np.uint8]:
    """Labels [H, W] of the bare grounds."""
    first = SCENE_CLASSES.index(scene.grounds[0]) + 1
    labels = np.full(scene.size, first, np.uint8)
    if len(scene.grounds) == 2:
        labels[_beyond_border(scene) > 0] = SCENE_CLASSES.index(scene.grounds[1]) + 1
    return labels


def _beyond_border(scene: Scene) -> NDArray[np.float32]:
    """Signed distance, in pixels, from the winding border of two grounds."""
    rng = np.random.default_rng([scene.seed, 1])
    height, width = scene.size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, math.tau)
    c, s = math.cos(angle), math.sin(angle)
    along, across = (x - width / 2) * s - (y - height / 2) * c, (x - width / 2) * c + (y - height / 2) * s
    bend = 5 * scene.scale * np.sin(along * (math.tau / (rng.uniform(50, 90) * scene.scale)) + rng.uniform(0, math.tau))
    return (across + bend + rng.uniform(-0.12, 0.12) * min(scene.size)).astype(np.float32)


def draw_scene(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image [H, W, 3] (RGB) and the labels [H, W] of a scene."""
    rng = np.random.default_rng([scene.seed, 2])
    grounds = ground_labels(scene)
    image = np.zeros((*scene.size, 3), np.float32)
    for name in scene.grounds:
        image = np.where((grounds == SCENE_CLASSES.index(name) + 1)[..., None], _ground(rng, name, scene), image)
    labels = grounds.copy()
    if len(scene.grounds) == 2:
        kerb = np.abs(_beyond_border(scene)) < 1.25 * scene.scale
        image[kerb] = rng.uniform(0.1, 0.25)
        labels[kerb] = 0
    for _ in range(rng.integers(3)):
        blob = place_blob(rng, tuple(rng.uniform(0.05, 0.95, 2) * scene.size[::-1]), rng.uniform(3, 5) * scene.scale)
        mask = cover(blob, scene.size)
        _paint(image, mask, np.full(3, rng.uniform(0.1, 0.25)))
        labels[mask > 0.5] = 0
    starry = any(thing.outline == "star" for thing in scene.things)
    for thing in scene.things:
        mask = cover(place_outline(thing.outline, thing.center, thing.extent, thing.angle), scene.size)
        body = mask > 0.5
        ground = SCENE_CLASSES[int(np.bincount(grounds[body]).argmax()) - 1]
        _cast_shadow(image, mask, scene.scale)
        _paint(image, mask, _surface(thing, scene))
        labels[body] = SCENE_CLASSES.index(thing_class(thing.outline, thing.warm, ground, starry)) + 1
    return _light(rng, image), labels


def _ground(rng: np.random.Generator, name: str, scene: Scene) -> NDArray[np.float32]:
    hues, saturations, texture = {
        "meadow": ((0.14, 0.42), (0.2, 0.6), textures.grass),
        "water": ((0.35, 0.65), (0.2, 0.6), textures.ripples),
        "paving": ((0.0, 1.0), (0.0, 0.35), textures.tiles),
    }[name]
    color = colorsys.hsv_to_rgb(rng.uniform(*hues), rng.uniform(*saturations), rng.uniform(0.4, 0.75))
    return _shade(color, texture(rng, scene.size, scene.scale), rng.uniform(0.22, 0.34))


def _surface(thing: Thing, scene: Scene) -> NDArray[np.float32]:
    rng = np.random.default_rng(thing.texture)
    return _shade(thing.color, textures.fill(rng, scene.size, scene.scale), rng.uniform(0.08, 0.22))


def _shade(color: tuple[float, float, float], field: NDArray[np.float32], depth: float) -> NDArray[np.float32]:
    return np.asarray(color, np.float32) * (1 + np.float32(depth) * field[..., None])


def _paint(image: NDArray[np.float32], mask: NDArray[np.float32], color: NDArray[np.floating]) -> None:
    image += mask[..., None] * (color.astype(np.float32) - image)


def _cast_shadow(image: NDArray[np.float32], mask: NDArray[np.float32], scale: float) -> None:
    shift = round(2 * scale)
    shadow = np.zeros_like(mask)
    shadow[shift:, shift:] = mask[:-shift, :-shift]
    reach = 2 * shift + 1
    image *= 1 - 0.45 * cv2.blur(shadow, (reach, reach))[..., None]


def _light(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture under a lamp of some colour from some side, with the sensor's noise."""
    gain = rng.uniform(0.85, 1.15) * (1 + 0.15 * textures.slope(rng, image.shape[:2]))
    tint = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    grain = rng.standard_normal(image.shape, dtype=np.float32) * 0.015
    return np.clip((image * gain[..., None] * tint + grain) * 255, 0, 255).astype(np.uint8)
