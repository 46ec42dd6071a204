"""Pictures of the long-range tasks: what they hold follows from what is drawn, and not from what lies near."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data.longrange_drawing import IGNORED
from visionattn.data.longrange_folder import picture_generator, write_majority, write_pathfinder
from visionattn.data.majority_pictures import compose_majority, draw_majority, local_lead
from visionattn.data.pathfinder_pictures import best_local_answer, compose_pathfinder, draw_pathfinder


def rng(index: int) -> np.random.Generator:
    return np.random.default_rng([7, index])


@pytest.mark.parametrize(("size", "hues"), [((96, 96), 3), ((64, 130), 4), ((96, 96), 0)])
def test_curves_lie_apart_and_inside_and_two_ends_have_dots(size: tuple[int, int], hues: int) -> None:
    joined = 0
    for index in range(30):
        scene = compose_pathfinder(rng(index), size, 3, hues)
        assert 2 <= len(scene.curves) <= 3
        assert len(set(scene.hues)) == (len(scene.curves) if hues else 1)
        for number, curve in enumerate(scene.curves):
            assert (curve >= 5).all()
            assert (curve <= np.array(size[::-1]) - 6).all()
            for other in scene.curves[:number]:
                assert np.hypot(*(curve[:, None] - other).transpose(2, 0, 1)).min() > 8
        image, labels = draw_pathfinder(scene)
        assert (image.shape, labels.shape, image.dtype, labels.dtype) == ((*size, 3), size, np.uint8, np.uint8)
        assert set(np.unique(labels)) == ({0, 1, 2, IGNORED} if scene.joined is not None else {0, 1, IGNORED})
        joined += scene.joined is not None
        for number, curve in enumerate(scene.curves):
            x, y = np.round(curve).astype(int).T
            assert (labels[y, x] == (2 if number == scene.joined else 1)).all()
        for number, end in scene.dots:
            x, y = np.round(scene.curves[number][end]).astype(int)
            assert image[y, x].min() > 200, "a dot is white"
    assert 8 <= joined <= 22


def test_grey_curves_look_alike() -> None:
    scene = compose_pathfinder(rng(3), hues=0)
    image, _ = draw_pathfinder(scene)
    shades = []
    for curve in scene.curves:
        x, y = np.round(curve[10:-10]).astype(int).T
        shades.append(image[y, x].mean())
    assert max(shades) - min(shades) < 6


def test_where_the_dots_are_decides_far_away() -> None:
    """The same curves with the dots elsewhere: other labels, and the same picture but at the ends."""
    scene = next(s for s in (compose_pathfinder(rng(i)) for i in range(20)) if s.joined is not None)
    moved = dataclasses.replace(scene, dots=(scene.dots[0], ((scene.dots[0][0] + 1) % len(scene.curves), 0)))
    (image, labels), (other, other_labels) = draw_pathfinder(scene), draw_pathfinder(moved)
    middle = np.round(scene.curves[scene.dots[0][0]][len(scene.curves[0]) // 2]).astype(int)
    around = (slice(middle[1] - 14, middle[1] + 15), slice(middle[0] - 14, middle[0] + 15))
    assert (labels[around] == 2).any()
    assert not (other_labels == 2).any()
    far = np.ones(scene.size, bool)
    for number, end in (*scene.dots, *moved.dots):
        x, y = np.round(scene.curves[number][end]).astype(int)
        far[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7] = False
    assert np.array_equal(image[far], other[far])


@pytest.mark.parametrize("size", [(96, 96), (70, 120)])
def test_discs_are_what_two_thirds_of_the_marks_are(size: tuple[int, int]) -> None:
    outcomes = []
    for index in range(40):
        scene = compose_majority(rng(index), size, 5, 9)
        image, labels = draw_majority(scene)
        warm = sum(scene.warm)
        assert max(warm, len(scene.warm) - warm) == -(-2 * len(scene.warm) // 3)
        assert set(np.unique(labels)) == {0, 1 if 2 * warm > len(scene.warm) else 2, IGNORED}
        outcomes.append(scene.outcome)
        for (x, y), is_warm in zip(scene.marks, scene.warm, strict=True):
            red, _, blue = image[round(y), round(x)].astype(int)
            assert (red > blue) == is_warm
            assert labels[round(y), round(x)] == 0
        for x, y, _ in scene.discs:
            assert np.ptp(image[round(y), round(x)].astype(int)) < 60, "a disc is grey"
    assert 10 <= sum(outcomes) <= 30


def test_local_answers_are_all_there_is_to_know_from_afar_and_nothing_from_near() -> None:
    for index in range(15):
        scene = compose_pathfinder(rng(index))
        _, labels = draw_pathfinder(scene)
        counted = labels != IGNORED
        everything = best_local_answer(scene, labels, 96, 1, 1)
        assert (everything != labels)[counted].mean() < 0.001
        nothing = best_local_answer(scene, labels, 0, 2, 1)
        mine = counted & (labels == 2)
        assert (nothing[mine] == 2).mean() < 0.4 if mine.any() else True
        assert (nothing[labels == 0] == 0).all()
        votes = compose_majority(rng(index))
        assert (np.sign(local_lead(votes, 96)) == (1 if votes.outcome else -1)).all()
        assert (local_lead(votes, 0) == 0).mean() > 0.9


def test_folders_are_written_once_and_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    for write, compose, draw in (
        (write_pathfinder, compose_pathfinder, draw_pathfinder),
        (write_majority, compose_majority, draw_majority),
    ):
        out = tmp_path / write.__name__
        write(out, train=3, val=2, seed=5)
        files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
        assert files == sorted(
            f"{kind}/{split}/{index:05d}.png"
            for kind in ("images", "masks")
            for split, count in (("training", 3), ("validation", 2))
            for index in range(count)
        )
        image, labels = draw(compose(picture_generator(5, "training", 2)))
        assert np.array_equal(cv2.imread(str(out / "images/training/00002.png"))[..., ::-1], image)
        assert np.array_equal(cv2.imread(str(out / "masks/training/00002.png"), cv2.IMREAD_UNCHANGED), labels)
        stamp = (out / "made_up.json").stat().st_mtime_ns
        write(out, train=3, val=2, seed=5)
        assert (out / "made_up.json").stat().st_mtime_ns == stamp
        with pytest.raises(FileExistsError, match="made with other arguments"):
            write(out, train=3, val=2, seed=6)
        assert json.loads((out / "made_up.json").read_text())["seed"] == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compose_pathfinder(rng(0), (40, 96)), r"size=\(40, 96\) must be 48 pixels or more"),
        (lambda: compose_pathfinder(rng(0), curves=1), "curves=1 must be 2 or more"),
        (lambda: compose_pathfinder(rng(0), curves=4, hues=3), "hues=3 must be at least curves=4"),
        (lambda: compose_majority(rng(0), (48, 40)), r"size=\(48, 40\) must be 48"),
        (lambda: compose_majority(rng(0), marks=2), "marks=2 3 or more"),
        (lambda: compose_majority(rng(0), (48, 48), 9, 60), "has no room for 9 discs and 60 marks"),
        (lambda: write_pathfinder("nowhere", train=0), "train=0 must be a whole number"),
        (lambda: write_majority("nowhere", discs=0), "discs=0 must be 1 or more"),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
    assert not Path("nowhere").exists()
