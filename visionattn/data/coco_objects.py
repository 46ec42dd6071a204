"""What a detector should find in a made-up scene: each object's class and visible mask, and crowds of small ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visionattn.data.scenes import (
    SCENE_CLASSES,
    Scene,
    Thing,
    compose_scene,
    ground_labels,
    random_thing,
    thing_class,
)
from visionattn.data.shapes import cover

OBJECT_CLASSES = SCENE_CLASSES[3:]
"""The scenes' classes without the grounds."""

_CROWDED = ("square", "star", "flower")  # those whose class no ground decides
_TRIALS = 12


@dataclass(frozen=True)
class FoundObject:
    """One annotation.

    Attributes:
        name: of its class.
        mask: bool [H, W], what is seen of it.
        whole: nothing hides a part of it.
        crowd: many small ones, too many to be told apart.
    """

    name: str
    mask: NDArray[np.bool_]
    whole: bool
    crowd: bool


@dataclass(frozen=True)
class ObjectScene:
    """A scene whose first `crowd` things are one crowd."""

    scene: Scene
    crowd: int


def compose_objects(rng: np.random.Generator, size: tuple[int, int]) -> ObjectScene:
    """A random scene: one in four with a crowd behind its objects, one in sixteen without any object."""
    scene = compose_scene(rng, size)
    chance = rng.random()
    if chance < 1 / 16:
        return ObjectScene(replace(scene, things=()), 0)
    crowd = _crowd(rng, scene) if chance < 5 / 16 else ()
    return ObjectScene(replace(scene, things=(*crowd, *scene.things)), len(crowd))


def objects_in(composed: ObjectScene) -> list[FoundObject]:
    """Its objects from the back to the front; what nothing is seen of is none."""
    scene = composed.scene
    grounds = ground_labels(scene)
    owners = np.full(scene.size, -1, np.int32)
    names, areas = [], []
    for number, thing in enumerate(scene.things):
        # The same cover that the picture is painted with.
        window, mask = cover(thing.polygon(), scene.size, margin=round(4 * scene.scale))
        body = mask > 0.5
        owners[window][body] = number
        ground = SCENE_CLASSES[int(np.bincount(grounds[window][body]).argmax()) - 1] if body.any() else ""
        names.append(thing_class(thing.outline, thing.warm, ground))
        areas.append(int(np.count_nonzero(body)))
    found = []
    if composed.crowd:
        seen = (owners >= 0) & (owners < composed.crowd)
        found.append(FoundObject(names[0], seen, whole=False, crowd=True))
    for number in range(composed.crowd, len(names)):
        seen = owners == number
        found.append(FoundObject(names[number], seen, np.count_nonzero(seen) == areas[number], crowd=False))
    return [one for one in found if one.mask.any()]


def _crowd(rng: np.random.Generator, scene: Scene) -> tuple[Thing, ...]:
    """Small things of one class side by side where no object stands; none if there is no place."""
    height, width = scene.size
    extent = 9 * scene.scale
    rows, columns = (int(number) for number in rng.integers(3, 6, 2))
    taken = np.zeros(scene.size, bool)
    for thing in scene.things:
        window, mask = cover(thing.polygon(), scene.size, margin=2)
        taken[window] |= mask > 0
    reach_y, reach_x = 0.6 * extent * rows, 0.6 * extent * columns
    for _ in range(_TRIALS):
        x, y = rng.uniform(reach_x, width - 1 - reach_x), rng.uniform(reach_y, height - 1 - reach_y)
        area = taken[int(y - reach_y) : int(y + reach_y) + 1, int(x - reach_x) : int(x + reach_x) + 1]
        if area.size and not area.any():
            break
    else:
        return ()
    model = random_thing(rng, str(rng.choice(_CROWDED)), scene)
    things = []
    for row in range(rows):
        for column in range(columns):
            center = (
                x + (column - (columns - 1) / 2) * 1.1 * extent + rng.uniform(-0.1, 0.1) * extent,
                y + (row - (rows - 1) / 2) * 1.1 * extent + rng.uniform(-0.1, 0.1) * extent,
            )
            angle, texture = float(rng.uniform(-0.3, 0.3)), int(rng.integers(2**31))
            things.append(replace(model, center=center, extent=extent, angle=angle, texture=texture))
    return tuple(things)
