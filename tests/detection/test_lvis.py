"""LVIS's json: read, looked through, its rare classes repeated, its metric in an evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from visionattn.data.findings import check_files
from visionattn.detection import CocoDetection, CocoMetric, DetectionSample, LvisMetric
from visionattn.detection.coco_report import class_table
from visionattn.detection.coco_scores import CocoScores
from visionattn.engine.config import Config
from visionattn.engine.data_check import check_data
from visionattn.registry import DATASETS

CLASSES = {2: ("ferret", "r"), 5: ("crate", "f"), 1203: ("zucchini", "c")}


def content() -> dict[str, Any]:
    """Nine images named by their address alone; a ferret on the first, crates on all but the last."""
    images = [
        {
            "id": number,
            "coco_url": f"http://images.example/{'val' if number % 2 else 'train'}2017/{number:012d}.png",
            "height": 48,
            "width": 64,
            "neg_category_ids": [2] if number == 3 else [],
            "not_exhaustive_category_ids": [5] if number == 4 else [],
        }
        for number in range(1, 10)
    ]
    found = [(1, 2, [4.0, 6.0, 20.0, 30.0])] + [(number, 5, [30.0, 8.0, 25.0, 25.0]) for number in range(1, 9)]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3]]],
        }
        for number, (image, category, box) in enumerate(found, 1)
    ]
    categories = [{"id": number, "name": name, "frequency": letter} for number, (name, letter) in CLASSES.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def dataset(folder: Path, changed: dict[str, Any] | None = None, **options: Any) -> CocoDetection:
    known = content() if changed is None else changed
    for image in known["images"]:
        path = folder / "/".join(image["coco_url"].split("/")[-2:])
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.full((48, 64, 3), image["id"], np.uint8))
    (folder / "lvis_v1_val.json").write_text(json.dumps(known))
    return CocoDetection(str(folder), "lvis_v1_val.json", **options)


def test_images_are_found_by_their_address(tmp_path: Path) -> None:
    data = dataset(tmp_path, with_masks=True)
    assert data.metainfo["classes"] == ("ferret", "crate", "zucchini")
    assert data.metainfo["federated"]
    sample = data.raw(0)
    assert sample["image"].shape == (48, 64, 3)
    assert sample["file"] == str(tmp_path / "val2017" / "000000000001.png")
    assert sample["labels"].tolist() == [0, 1]
    assert sample["masks"].any(axis=(1, 2)).all()


def test_images_with_rare_classes_are_repeated(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    assert [data.get_cat_ids(index) for index in (0, 1, 8)] == [[0, 1], [1], []]
    balanced = ClassBalancedDataset(data, oversample_thr=0.5)
    times = math.ceil(math.sqrt(0.5 / (1 / 9)))  # the ferret's image alone is rarer than half
    assert times == 3
    ids = [balanced.get_data_info(index)["image_id"] for index in range(len(balanced))]
    assert ids == [1] * times + list(range(2, 10))


def test_a_crowd_is_no_reason_to_repeat_an_image(tmp_path: Path) -> None:
    changed = content()
    changed["annotations"][0]["iscrowd"] = 1
    assert dataset(tmp_path, changed).get_cat_ids(0) == [1]


def checked(folder: Path, changed: dict[str, Any]) -> list[str]:
    return [str(finding) for finding in check_files(dataset(folder, changed, lazy_init=True)).findings]


def test_data_check(tmp_path: Path) -> None:
    (absent,) = checked(tmp_path, content())
    assert absent.startswith("class zucchini has no object")
    changed = content()
    changed["images"][2]["neg_category_ids"] = [2, 77]
    changed["images"][3]["not_exhaustive_category_ids"] = [78]
    (unknown,) = checked(tmp_path, changed)
    assert unknown.startswith(
        "2 lists name a category that the json does not have: neg_category_ids of image 3: category"
    )
    changed = content()
    changed["images"][0]["neg_category_ids"] = [2, 1203]
    contradiction, _ = checked(tmp_path, changed)
    assert contradiction.startswith("1 class is said not to be in an image that shows it: image 1: category id 2 is in")


def test_a_repeating_wrapper_is_looked_through(tmp_path: Path) -> None:
    dataset(tmp_path)
    inner = {"type": "visionattn.CocoDetection", "data_root": str(tmp_path), "ann_file": "lvis_v1_val.json"}
    config = Config(
        {
            "default_scope": "mmengine",
            "model": {"head": {"num_classes": 1203}},
            "train_dataloader": {"dataset": {"type": "ClassBalancedDataset", "oversample_thr": 1e-3, "dataset": inner}},
        }
    )
    report = check_data(config)
    errors = [finding.message for _, finding in report.findings if finding.level == "error"]
    assert errors == ["model.head.num_classes=1203, but CocoDetection has 3 classes (ferret, crate, zucchini)"]


def samples(results: list[tuple[int, int, list[float], float]], number: int = 9) -> list[DetectionSample]:
    """What a model would have given: (image, label, box, score)."""
    made = []
    for image in range(1, number + 1):
        mine = [result for result in results if result[0] == image]
        predicted = InstanceData()
        predicted.boxes = torch.tensor([box for _, _, box, _ in mine], dtype=torch.float32).view(-1, 4)
        predicted.boxes[:, 2:] += predicted.boxes[:, :2]
        predicted.labels = torch.tensor([label for _, label, _, _ in mine], dtype=torch.int64)
        predicted.scores = torch.tensor([score for *_, score in mine], dtype=torch.float32)
        made.append(DetectionSample(metainfo={"image_id": image}, predicted=predicted))
    return made


def evaluated(metric: CocoMetric, results: list[tuple[int, int, list[float], float]]) -> dict[str, float]:
    evaluator = Evaluator(metric)
    evaluator.process(samples(results))
    figures: dict[str, float] = evaluator.evaluate(9)
    return figures


def test_the_metric_in_an_evaluation(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    labels = dict(zip(data.metainfo["category_ids"], range(3), strict=True))
    truth = [(one["image_id"], labels[one["category_id"]], one["bbox"], 0.5) for one in content()["annotations"]]
    wrong = [(3, 0, [4.0, 6.0, 20.0, 30.0], 0.9), (4, 1, [1.0, 1.0, 9.0, 9.0], 0.9), (5, 2, [1.0, 1.0, 9.0, 9.0], 0.9)]
    metric = LvisMetric(out=tmp_path / "evaluation")
    metric.dataset_meta = data.metainfo
    assert evaluated(metric, truth)["lvis/bbox_AP"] == pytest.approx(1.0)
    figures = evaluated(metric, truth + wrong)
    assert figures["lvis/bbox_APr"] == pytest.approx(0.5)  # a ferret where none is
    assert figures["lvis/bbox_APf"] == pytest.approx(1.0)  # a crate where not all are annotated
    assert figures["lvis/bbox_APc"] == -1.0
    report = json.loads((tmp_path / "evaluation" / "coco.json").read_text())
    assert report["bbox"]["classes"][0] == {
        "name": "ferret", "AP": pytest.approx(0.5), "AP50": pytest.approx(0.5), "AR300": 1.0, "objects": 1,
    }  # fmt: skip
    assert not (tmp_path / "evaluation" / "confusion_boxes.npy").exists()
    assert DATASETS.get("visionattn.CocoDetection") is CocoDetection


def test_a_json_that_is_not_lvis_is_refused_before_the_run(tmp_path: Path) -> None:
    changed = content()
    del changed["images"][4]["neg_category_ids"]
    meta = dataset(tmp_path, changed).metainfo
    assert not meta["federated"]
    with pytest.raises(ValueError, match=r"LvisMetric: .*lvis_v1_val\.json is not LVIS's .*visionattn\.CocoMetric"):
        LvisMetric().dataset_meta = meta
    LvisMetric(tmp_path / "another.json").dataset_meta = meta  # the file is named by hand
    with pytest.raises(ValueError, match="LvisMetric: what the data set reads is not LVIS's"):
        LvisMetric().dataset_meta = {"classes": ("cat",), "federated": False}  # as of VOC's files


def table_of(objects: dict[int, int]) -> str:
    classes = {
        number: {"AP": number / 1000, "AP50": 0.5, "AR300": 0.25, "objects": count} for number, count in objects.items()
    }
    names = {number: f"kind{number}" for number in objects}
    return class_table(CocoScores({}, classes, np.zeros((10, 101, len(objects)))), names)


def test_the_table_leaves_out_classes_without_objects() -> None:
    table = table_of({1: 5, 2: 0, 3: 1234, **dict.fromkeys(range(50, 60), 0)})
    rows = [line for line in table.splitlines() if line.startswith("| kind")]
    assert [row.replace(" ", "") for row in rows] == ["|kind1|0.001|0.500|0.250|5|", "|kind3|0.003|0.500|0.250|1,234|"]
    assert table.endswith(
        "without an object here: kind2, kind50, kind51, kind52, kind53, kind54, kind55, kind56, ... (11)"
    )
    assert "AR300" in table


def test_a_table_of_many_classes_shows_both_ends() -> None:
    table = table_of(dict.fromkeys(range(1, 501), 2))
    rows = [line.split()[1] for line in table.splitlines() if line.startswith("| kind")]
    assert rows == [f"kind{number}" for number in (*range(1, 11), *range(491, 501))]
    assert table.endswith("the 10 lowest and the 10 highest of 500 classes; coco.json has all")
    assert sum(line.startswith("| kind") for line in table_of(dict.fromkeys(range(1, 81), 2)).splitlines()) == 80
