"""Scenes as images and labels."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data import textures
from visionattn.data.scenes import (
    SCENE_CLASSES,
    Scene,
    Thing,
    beyond_border,
    class_label,
    compose_scene,
    ground_labels,
    thing_class,
)
from visionattn.data.shapes import cover, place_blob

_GROUNDS = {"meadow": textures.grass, "water": textures.ripples, "paving": textures.tiles}


def render_scene(
    rng: np.random.Generator, size: tuple[int, int] = (128, 128)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A random scene's image [H, W, 3] (RGB) and labels [H, W]: 0 for what is not evaluated, 1.. for SCENE_CLASSES."""
    return draw_scene(compose_scene(rng, size))


def draw_scene(scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The image [H, W, 3] (RGB) and the labels [H, W] of a scene."""
    grounds = ground_labels(scene)
    labels = grounds.copy()
    image = _draw_grounds(scene, grounds)
    _draw_unlabelled(scene, image, labels)
    for thing in scene.things:
        window, mask = cover(thing.polygon(), scene.size, margin=round(4 * scene.scale))
        body = mask > 0.5
        ground = SCENE_CLASSES[int(np.bincount(grounds[window][body]).argmax()) - 1]
        _cast_shadow(image[window], mask, round(2 * scene.scale))
        _paint(image[window], mask, _surface(thing, mask.shape, scene.scale))
        labels[window][body] = class_label(thing_class(thing.outline, thing.warm, ground))
    return _under_light(scene, image), labels


def _draw_grounds(scene: Scene, grounds: NDArray[np.uint8]) -> NDArray[np.float32]:
    image = np.zeros((*scene.size, 3), np.float32)
    for name in scene.grounds:
        rng = np.random.default_rng([scene.seed, 2, class_label(name)])
        color = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.4), rng.uniform(0.35, 0.65))
        there = grounds == class_label(name)
        image[there] = _shade(color, _GROUNDS[name](rng, scene.size, scene.scale), rng.uniform(0.22, 0.34))[there]
    return image


def _draw_unlabelled(scene: Scene, image: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """The kerb between two grounds and some debris, both dark, both label 0."""
    rng = np.random.default_rng([scene.seed, 3])
    if len(scene.grounds) == 2:
        kerb = np.abs(beyond_border(scene)) < 1.25 * scene.scale
        image[kerb] = rng.uniform(0.1, 0.25)
        labels[kerb] = 0
    for _ in range(rng.integers(3)):
        x, y = rng.uniform(0.05, 0.95, 2) * scene.size[::-1]
        window, mask = cover(place_blob(rng, (x, y), rng.uniform(3, 5) * scene.scale), scene.size)
        _paint(image[window], mask, np.full((*mask.shape, 3), rng.uniform(0.1, 0.25), np.float32))
        labels[window][mask > 0.5] = 0


def _surface(thing: Thing, size: tuple[int, int], scale: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(thing.texture)
    return _shade(thing.color, textures.fill(rng, size, scale), rng.uniform(0.05, 0.12))


def _shade(color: Sequence[float], field: NDArray[np.float32], depth: float) -> NDArray[np.float32]:
    shade = 1 + np.float32(depth) * field
    return np.stack([np.float32(channel) * shade for channel in color], axis=-1)


def _paint(image: NDArray[np.float32], mask: NDArray[np.float32], color: NDArray[np.float32]) -> None:
    image += mask[..., None] * (color - image)


def _cast_shadow(image: NDArray[np.float32], mask: NDArray[np.float32], shift: int) -> None:
    """Darkens what lies `shift` pixels below and right of an object, with a soft edge."""
    shadow = np.zeros_like(mask)
    shadow[shift:, shift:] = mask[:-shift, :-shift]
    image *= 1 - np.float32(0.45) * cv2.blur(shadow, (2 * shift + 1, 2 * shift + 1))[..., None]


def _under_light(scene: Scene, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture under a lamp of some colour from some side, with the sensor's noise, in 8 bits."""
    rng = np.random.default_rng([scene.seed, 4])
    lamp = (rng.uniform(0.85, 1.15) * rng.uniform(0.94, 1.06, 3)).tolist()
    light = _shade(lamp, textures.slope(rng, scene.size), 0.15)
    light *= image
    light += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(0.015)
    return np.asarray(np.clip(light * 255, 0, 255), np.uint8)
