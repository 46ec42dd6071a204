"""LVIS's federated figures against a plain loop, and cases whose answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from naive_lvis import naive_lvis
from pycocotools import mask as codec

from visionattn.detection.lvis_scores import LVIS_FIGURES, lvis_scores

SIDE = 200


def image(number: int, absent: tuple[int, ...] = (), partly: tuple[int, ...] = ()) -> dict[str, Any]:
    sides = {"height": SIDE, "width": SIDE}
    return {"id": number, **sides, "neg_category_ids": list(absent), "not_exhaustive_category_ids": list(partly)}


def known(images: list[dict[str, Any]], objects: list[tuple[int, int, list[float]]]) -> dict[str, Any]:
    """Four classes, the ids of two of them far apart; the last is nowhere."""
    annotations = [
        {"id": n, "image_id": at, "category_id": kind, "bbox": box, "area": box[2] * box[3], "segmentation": mask(box)}
        for n, (at, kind, box) in enumerate(objects)
    ]
    frequencies = {3: "r", 7: "c", 20: "f", 1203: "r"}
    categories = [{"id": n, "name": f"kind {n}", "frequency": letter} for n, letter in frequencies.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def found(*results: tuple[int, int, list[float], float]) -> list[dict[str, Any]]:
    return [{"image_id": at, "category_id": kind, "bbox": box, "score": s} for at, kind, box, s in results]


def mask(box: list[float]) -> dict[str, Any]:
    left, top, width, height = (round(side) for side in box)
    pixels = np.zeros((SIDE, SIDE), np.uint8, order="F")
    pixels[top : top + height, left : left + width] = 1
    coded = codec.encode(pixels)
    return {"size": list(coded["size"]), "counts": coded["counts"].decode()}


BOX, ELSEWHERE = [10.0, 10.0, 40.0, 40.0], [100.0, 100.0, 40.0, 40.0]


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"absent": (3,)}, 0.5),  # known to be wrong, and of a higher score
        ({}, 1.0),  # nobody looked for the class there
        ({"partly": (3,)}, 1.0),
    ],
)
def test_what_is_found_where_the_class_is_not(about: Any, expected: float) -> None:
    truth = known([image(1), image(2, **about)], [(1, 3, BOX)])
    scores = lvis_scores(truth, found((1, 3, BOX, 0.8), (2, 3, BOX, 0.9)), "bbox")
    assert scores.figures["AP"] == pytest.approx(expected)
    assert scores.figures["APr"] == pytest.approx(expected)
    assert scores.figures["APc"] == scores.figures["APf"] == -1.0
    assert scores.figures["AR300"] == 1.0
    assert scores.classes[3] == {"AP": pytest.approx(expected), "AP50": pytest.approx(expected), "AR300": 1.0,
                                 "objects": 1}  # fmt: skip
    assert np.isnan(scores.classes[7]["AP"])


@pytest.mark.parametrize(("partly", "expected"), [((), 0.5), ((3,), 1.0)])
def test_a_second_box_where_not_all_objects_are_annotated(partly: Any, expected: float) -> None:
    truth = known([image(1, partly=partly)], [(1, 3, BOX)])
    scores = lvis_scores(truth, found((1, 3, BOX, 0.8), (1, 3, ELSEWHERE, 0.9)), "bbox")
    assert scores.figures["AP"] == pytest.approx(expected)


def test_three_hundred_of_an_image_count_over_all_classes() -> None:
    truth = known([image(1)], [(1, 3, BOX), (1, 7, ELSEWHERE)])
    many = [(1, 7, [0.5 * n, 150.0, 5.0, 5.0], 0.9) for n in range(299)]
    assert lvis_scores(truth, found(*many, (1, 3, BOX, 0.5)), "bbox").classes[3]["AP"] == pytest.approx(1.0)
    assert lvis_scores(truth, found((1, 20, BOX, 0.6), *many, (1, 3, BOX, 0.5)), "bbox").classes[3]["AP"] == 0.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_a_plain_loop_says_the_same(seed: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)

    def box() -> list[float]:
        width, height = rng.integers(8, 130, 2)
        return [float(side) for side in (rng.integers(0, SIDE - width), rng.integers(0, SIDE - height), width, height)]

    images, objects, results = [], [], []
    for number in rng.permutation(40)[:12].tolist():
        absent, partly, _, _ = rng.permutation([3, 7, 20, 1203]).tolist()
        there = [kind for kind in (3, 7, 20) if kind != absent and rng.random() < 0.6]
        images.append(image(number, (absent,), (partly,) if partly in there else ()))
        for label in there:
            for _ in range(rng.integers(1, 4)):
                objects.append((number, label, box()))
                near = [max(0.0, side + float(rng.integers(-6, 7))) for side in objects[-1][2]]
                near = [*near[:2], min(near[2] + 1, SIDE - near[0]), min(near[3] + 1, SIDE - near[1])]
                results.append((number, label, near, float(rng.random())))
        for label in (3, 7, 20, 1203):
            results += [(number, label, box(), float(rng.random())) for _ in range(rng.integers(0, 3))]
    truth, rows = known(images, objects), found(*results)
    expected = naive_lvis(truth, rows)
    if kind == "segm":
        rows = [{**row, "segmentation": mask(row["bbox"])} for row in rows]
        for row in rows:
            del row["bbox"]
    scores = lvis_scores(truth, rows, kind)
    by_class = expected.pop("classes")
    assert tuple(scores.figures) == LVIS_FIGURES
    assert {name: pytest.approx(value, abs=1e-9) for name, value in expected.items()} == scores.figures
    assert 0.1 < expected["AP"] < 0.9
    assert {n: v["AP"] for n, v in scores.classes.items() if v["objects"]} == pytest.approx(by_class, abs=1e-9)


def test_some_images_and_classes_of_a_truth() -> None:
    truth = known([image(1), image(2, absent=(3,)), image(5)], [(1, 3, BOX), (5, 3, BOX), (1, 7, BOX)])
    rows = found((1, 3, BOX, 0.5), (2, 3, BOX, 0.9))
    assert lvis_scores(truth, rows, "bbox", image_ids=[1]).figures["AP"] == pytest.approx(0.5)  # 7 is missed
    alone = lvis_scores(truth, rows, "bbox", image_ids=[1], category_ids=[3])
    assert alone.figures["AP"] == pytest.approx(1.0)
    assert list(alone.classes) == [3]
    assert alone.precision.shape == (10, 101, 1)


def test_nothing_found() -> None:
    scores = lvis_scores(known([image(1)], [(1, 3, BOX)]), [], "bbox")
    assert scores.figures == dict.fromkeys(LVIS_FIGURES, 0.0)
    assert scores.classes[3]["AP"] == 0.0


def test_a_truth_that_is_no_lvis() -> None:
    truth = known([image(1), image(2)], [(1, 3, BOX)])
    del truth["images"][1]["neg_category_ids"]
    with pytest.raises(ValueError, match="not LVIS's: image 2 has no list of neg_category_ids; CocoMetric evaluates"):
        lvis_scores(truth, [], "bbox")
    truth = known([image(1)], [(1, 3, BOX)])
    truth["categories"][1]["frequency"] = "often"
    with pytest.raises(ValueError, match="category 7 has the frequency 'often', not 'r', 'c' or 'f'"):
        lvis_scores(truth, [], "bbox")
    with pytest.raises(ValueError, match="results of image 9, which the truth does not have"):
        lvis_scores(known([image(1)], [(1, 3, BOX)]), found((9, 3, BOX, 0.5)), "bbox")
