"""Confusions of boxes, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionattn.detection.confusion import confusion_counts

CATEGORIES = [7, 3]  # labels 0 and 1


def counted(objects: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> list[list[int]]:
    """Of (category, box, crowd) and (label, box, score) in one image."""
    annotations = [
        {"image_id": 5, "category_id": kind, "bbox": box, "iscrowd": int(bool(crowd))} for kind, box, *crowd in objects
    ]
    labels, boxes, scores = ([one[index] for one in found] for index in range(3))
    results = [{"image_id": 5, "labels": labels, "bbox": boxes, "score": scores}]
    counts = confusion_counts({"annotations": annotations}, results, CATEGORIES)
    assert counts.dtype == np.int64
    rows: list[list[int]] = counts.tolist()
    return rows


BOX, FAR = [10.0, 10.0, 20.0, 20.0], [200.0, 100.0, 20.0, 20.0]


def test_right_wrong_missed_and_made_up() -> None:
    assert counted([(7, BOX)], [(0, BOX, 0.9)]) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert counted([(7, BOX)], [(1, BOX, 0.9)]) == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert counted([(3, BOX)], []) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert counted([], [(1, BOX, 0.9)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert counted([(7, BOX)], [(0, FAR, 0.9)]) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_what_is_unsure_or_covers_too_little_does_not_count() -> None:
    assert counted([(7, BOX)], [(0, BOX, 0.29)]) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert counted([(7, BOX)], [(0, BOX, 0.3)])[0][0] == 1
    half = [10.0, 10.0, 20.0, 10.0]  # an overlap of 0.5, and less
    assert counted([(7, BOX)], [(0, half, 0.9)])[0][0] == 1
    assert counted([(7, BOX)], [(0, [10.0, 10.0, 20.0, 9.9], 0.9)]) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_an_objects_own_class_comes_first_and_a_second_box_is_one_too_many() -> None:
    found = [(1, BOX, 0.9), (0, BOX, 0.4)]
    assert counted([(7, BOX)], found) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert counted([(7, BOX)], [(0, BOX, 0.9), (0, BOX, 0.8)]) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_each_box_takes_the_object_that_it_covers_best() -> None:
    beside = [14.0, 10.0, 20.0, 20.0]  # overlaps BOX by 2 / 3
    assert counted([(7, BOX), (7, beside)], [(0, beside, 0.5), (0, BOX, 0.9)])[0] == [2, 0, 0]
    assert counted([(7, BOX), (3, beside)], [(1, BOX, 0.9)]) == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]  # its class, if any


def test_a_crowd_of_the_class_excuses_what_lies_in_it() -> None:
    crowd = (7, [0.0, 0.0, 100.0, 100.0], True)
    assert np.sum(counted([crowd], [(0, BOX, 0.9), (0, [30.0, 30.0, 9.0, 9.0], 0.8)])) == 0
    assert counted([crowd], [(1, BOX, 0.9)])[2] == [0, 1, 0]
    assert counted([crowd], [(0, FAR, 0.9)])[2] == [1, 0, 0]


def test_images_add_up_and_other_classes_do_not_count() -> None:
    truth = {
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": BOX},
            {"image_id": 2, "category_id": 7, "bbox": BOX},
            {"image_id": 2, "category_id": 99, "bbox": FAR},
        ]
    }
    results = [{"image_id": number, "labels": [0], "bbox": [BOX], "score": [0.8]} for number in (1, 2)]
    assert confusion_counts(truth, results, CATEGORIES).tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
