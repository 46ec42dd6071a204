"""COCO's figures against those that are published, and over several processes."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from pycocotools import mask as codec
from ranks import in_ranks

from visionattn.detection import CocoMetric, DetectionSample
from visionattn.detection import metric as metric_module
from visionattn.detection.coco_results import category_ids
from visionattn.detection.coco_scores import FIGURES, coco_scores
from visionattn.detection.truth_masks import with_run_lengths

KNOWN = Path(os.environ.get("VISIONATTN_DATA", Path(__file__).parents[3] / "shared" / "data")) / "coco_eval_known"
with_known = pytest.mark.skipif(not KNOWN.is_dir(), reason=f"no known answers in {KNOWN}")
TOOLS = ("faster_coco_eval", "pycocotools")


def read(name: str) -> Any:
    return json.loads((KNOWN / name).read_text())


def published() -> dict[str, list[float]]:
    """The figures of cocoapi's results/val2014_fake_eval_res.txt by kind."""
    figures: dict[str, list[float]] = {}
    kind = ""
    for line in (KNOWN / "val2014_fake_eval_res.txt").read_text().splitlines():
        if line.startswith("type="):
            kind = line.strip().removeprefix("type=")
        elif " = " in line and "maxDets" in line:
            figures.setdefault(kind, []).append(float(line.rpartition("=")[2]))
    return figures


def hundred() -> tuple[dict[str, Any], list[int]]:
    truth = read("instances_val2014_100.json")
    return truth, sorted(image["id"] for image in truth["images"])[:100]


@with_known
@pytest.mark.parametrize("tool", ["faster_coco_eval", pytest.param("pycocotools", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_known_figures_to_the_last_digit(kind: Any, tool: Any) -> None:
    truth, image_ids = hundred()
    results = read(f"instances_val2014_fake{kind}100_results.json")
    exact = read("pycocotools_exact.json")
    assert tuple(exact["stats_order"]) == FIGURES
    scores = coco_scores(truth, results, kind, image_ids=image_ids, tool=tool)
    assert [round(scores.figures[name], 3) for name in FIGURES] == published()[kind]
    np.testing.assert_allclose(list(scores.figures.values()), exact[kind]["stats"], rtol=0, atol=1e-12)
    by_name = {kind["name"]: scores.classes[kind["id"]]["AP"] for kind in truth["categories"]}
    expected = {name: np.nan if value is None else value for name, value in exact[kind]["per_class_AP"].items()}
    assert by_name.keys() == expected.keys()
    np.testing.assert_allclose([by_name[name] for name in expected], list(expected.values()), rtol=0, atol=1e-12)

    agnostic = coco_scores(truth, results, kind, image_ids=image_ids, class_agnostic=True, tool=tool)
    np.testing.assert_allclose(list(agnostic.figures.values()), exact[kind]["stats_class_agnostic"], rtol=0, atol=1e-12)


@with_known
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_small_known_figures(kind: Any, tool: Any) -> None:
    truth, found = read("small/gt_dataset.json"), read("small/dt_dataset.json")
    fields = ("image_id", "category_id", "score", "bbox", "segmentation")  # with a box, its area counts for masks too
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for one in found:
        if isinstance(one["segmentation"], list):
            one["segmentation"] = codec.merge(codec.frPyObjects(one["segmentation"], *sizes[one["image_id"]]))
    rows = [{key: one[key] for key in fields} for one in found]
    scores = coco_scores(truth, rows, kind, tool=tool)
    expected = read("small/expected_pycocotools.json")["stats"][f"dataset/{kind}"]
    np.testing.assert_allclose(list(scores.figures.values()), expected, rtol=0, atol=1e-12)


def results_as_samples(truth: dict[str, Any], image_ids: list[int], results: list[dict[str, Any]]) -> list[Any]:
    """What a model would have given: samples with `predicted`, boxes float32, masks as pixels."""
    labels = {kind["id"]: label for label, kind in enumerate(truth["categories"])}
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    samples = []
    for image_id in image_ids:
        mine = [result for result in results if result["image_id"] == image_id]
        predicted = InstanceData()
        boxes = torch.tensor([result.get("bbox", [0, 0, 1, 1]) for result in mine], dtype=torch.float64).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        predicted.boxes = boxes.float()
        predicted.labels = torch.tensor([labels[result["category_id"]] for result in mine], dtype=torch.int64)
        predicted.scores = torch.tensor([result["score"] for result in mine], dtype=torch.float64).float()
        masks = [codec.decode(result["segmentation"]) for result in mine if "segmentation" in result]
        predicted.masks = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(len(mine), *sizes[image_id])
        samples.append(DetectionSample(metainfo={"image_id": image_id}, predicted=predicted))
    return samples


def evaluated(metric: CocoMetric, samples: list[Any], size: int | None = None) -> dict[str, float]:
    evaluator = Evaluator(metric)
    metric.dataset_meta = metric.dataset_meta or {}
    for start in range(0, len(samples), 3):
        evaluator.process(samples[start : start + 3])
    figures: dict[str, float] = evaluator.evaluate(len(samples) if size is None else size)
    return figures


@with_known
def test_figures_of_a_models_masks_and_the_servers_files(tmp_path: Path) -> None:
    truth, image_ids = hundred()
    image_ids = image_ids[:15]
    results = [row for row in read("instances_val2014_fakesegm100_results.json") if row["image_id"] in image_ids]
    metric = CocoMetric(KNOWN / "instances_val2014_100.json", iou_types=("segm",), out=tmp_path / "evaluation")
    figures = evaluated(metric, results_as_samples(truth, image_ids, results))
    exact = coco_scores(truth, results, "segm", image_ids=image_ids, tool="pycocotools")
    assert list(figures) == [f"coco/segm_{name}" for name in FIGURES]
    np.testing.assert_allclose(list(figures.values()), list(exact.figures.values()), rtol=0, atol=1e-9)
    assert 0.2 < figures["coco/segm_AP"] < 0.5

    written = json.loads((tmp_path / "evaluation" / "detections_segm_results.json").read_text())
    assert all(row.keys() == {"image_id", "category_id", "segmentation", "score"} for row in written)
    again = coco_scores(truth, written, "segm", image_ids=image_ids)
    np.testing.assert_allclose(list(again.figures.values()), list(exact.figures.values()), rtol=0, atol=1e-9)
    report = json.loads((tmp_path / "evaluation" / "coco.json").read_text())
    assert report["images"] == 15
    assert report["segm"]["AP"] == figures["coco/segm_AP"]
    people = [a for a in truth["annotations"] if a["image_id"] in image_ids and a["category_id"] == 1]
    person = report["segm"]["classes"][0]
    assert (person["name"], person["objects"]) == ("person", sum(not a["iscrowd"] for a in people))
    assert report["segm"]["classes"][10] == {
        "name": "fire hydrant", "AP": None, "AP50": None, "AR100": None, "objects": 0,
    }  # fmt: skip
    assert np.load(tmp_path / "evaluation" / "precision_segm.npy").shape == (10, 101, 80)


def made_up() -> dict[str, Any]:
    """Four images of two classes with ids 7 and 3 in this order; a crowd, an image without objects, an id 0."""
    boxes = {
        11: [(7, [10.0, 12.0, 20.0, 30.0]), (3, [50.0, 8.0, 40.0, 41.0])],
        5: [(3, [1.0, 1.0, 99.0, 70.0])],
        8: [],
        9: [(7, [4.0, 5.0, 12.0, 9.0])],
    }
    annotations = [
        {"id": number, "image_id": image_id, "category_id": kind, "bbox": box, "segmentation": rectangle(box)}
        for number, (image_id, kind, box) in enumerate(
            (image_id, kind, box) for image_id, some in boxes.items() for kind, box in some
        )
    ]
    crowd = {"image_id": 9, "category_id": 3, "bbox": [30.0, 30.0, 40.0, 40.0], "iscrowd": 1}
    annotations.append({"id": 99, **crowd, "segmentation": rectangle(crowd["bbox"])})
    return {
        "images": [{"id": image_id, "height": 80, "width": 110} for image_id in boxes],
        "categories": [{"id": 7, "name": "round"}, {"id": 3, "name": "square"}],
        "annotations": annotations,
    }


def rectangle(box: Any) -> dict[str, Any]:
    left, top, width, height = (int(value) for value in box)
    mask = np.zeros((80, 110), np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    return {**codec.encode(mask), "counts": codec.encode(mask)["counts"].decode()}


def perfect(truth: dict[str, Any], wrong_label: bool = False) -> list[Any]:
    rows = [
        {**annotation, "score": 0.9, "category_id": 7 if wrong_label else annotation["category_id"]}
        for annotation in truth["annotations"]
        if not annotation.get("iscrowd")
    ]
    return results_as_samples(truth, [image["id"] for image in truth["images"]], rows)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_truth_itself_is_perfect(tool: Any) -> None:
    metric = CocoMetric(iou_types=("bbox", "segm"), tool=tool)
    metric.dataset_meta = {"coco": made_up(), "classes": ("round", "square")}
    figures = evaluated(metric, perfect(made_up()))
    for kind in ("bbox", "segm"):
        assert figures[f"coco/{kind}_AP"] == pytest.approx(1.0)
        assert figures[f"coco/{kind}_AR100"] == 1.0
        assert figures[f"coco/{kind}_APs"] == pytest.approx(1.0)
        assert figures[f"coco/{kind}_APl"] == -1.0  # no object is so large
    assert metric.results == []


def test_labels_go_by_the_names_of_the_classes() -> None:
    truth = made_up()
    assert category_ids({"classes": ("square", "round")}, truth) == [3, 7]
    assert category_ids({"category_ids": (3,), "classes": ("anything",)}, truth) == [3]
    assert category_ids({}, truth) == [7, 3]
    with pytest.raises(ValueError, match=r"the truth has no class 'squares'; did you mean 'square'\?"):
        category_ids({"classes": ("squares", "round")}, truth)
    with pytest.raises(ValueError, match="category_ids has 4, and the truth has no such category"):
        category_ids({"category_ids": (3, 4)}, truth)


def test_a_wrong_class_counts_unless_classes_do_not() -> None:
    found = {}
    for agnostic in (False, True):
        metric = CocoMetric(class_agnostic=agnostic)
        metric.dataset_meta = {"coco": made_up()}
        found[agnostic] = evaluated(metric, perfect(made_up(), wrong_label=True))["coco/bbox_AR100"]
    assert found == {False: 0.5, True: 1.0}


def test_nothing_found_is_zero_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = MMLogger.get_instance("nothing found", logger_name="nothing found")
    logger.addHandler(caplog.handler)
    truth = made_up()
    metric = CocoMetric(iou_types=("bbox", "segm"), out=tmp_path)
    metric.dataset_meta = {"coco": truth}
    figures = evaluated(metric, results_as_samples(truth, [image["id"] for image in truth["images"]], []))
    assert set(figures.values()) == {0.0}
    assert len(figures) == 24
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"nothing was found in 4 images: every {kind} figure is 0" for kind in ("bbox", "segm")]
    assert json.loads((tmp_path / "detections_bbox_results.json").read_text()) == []


def test_truth_without_annotations_gives_files_only(tmp_path: Path) -> None:
    truth = made_up()
    samples = perfect(truth)
    del truth["annotations"]
    metric = CocoMetric(out=tmp_path)
    metric.dataset_meta = {"coco": truth}
    assert evaluated(metric, samples) == {}
    rows = json.loads((tmp_path / "detections_bbox_results.json").read_text())
    assert {row["category_id"] for row in rows} == {3, 7}
    assert rows[0] == {
        "image_id": 5, "category_id": 3, "bbox": [1.0, 1.0, 99.0, 70.0], "score": pytest.approx(0.9),
    }  # fmt: skip


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="'masks' must be 'bbox' or 'segm'"):
        CocoMetric(iou_types=("masks",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give it ann_file"):
        evaluated(CocoMetric(), perfect(made_up()))
    metric = CocoMetric()
    metric.dataset_meta = {"coco": made_up()}
    with pytest.raises(ValueError, match="3 images were evaluated of a data set of 4; evaluate each once"):
        evaluated(metric, perfect(made_up())[:3], size=4)
    sample = perfect(made_up())[0]
    del sample.predicted.masks
    with pytest.raises(ValueError, match="the model gives no masks"):
        evaluated(CocoMetric(iou_types=("segm",)), [sample])
    with pytest.raises(ValueError, match="results of image 1, which the truth does not have"):
        coco_scores(made_up(), [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1.0}], "bbox")
    rows = [{"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1.0}]
    with pytest.raises(ValueError, match="tool='cocoapi' must be"):
        coco_scores(made_up(), rows, "bbox", tool="cocoapi")  # type: ignore[arg-type]


def test_processes_gather_every_image_once(tmp_path: Path) -> None:
    """Four images, dealt to two and to three processes; the first is repeated where the sampler fills up."""
    truth = made_up()
    samples = perfect(truth, wrong_label=True)
    alone = CocoMetric(iou_types=("bbox", "segm"))
    alone.dataset_meta = {"coco": truth}
    expected = evaluated(alone, samples)

    def rank_of(size: int) -> Any:
        def run(rank: int) -> dict[str, float]:
            torch.distributed.init_process_group("gloo")
            metric = CocoMetric(iou_types=("bbox", "segm"))
            metric.dataset_meta = {"coco": truth}
            dealt = [*samples, *samples[: -len(samples) % size]][rank::size]
            return evaluated(metric, dealt, size=len(samples))

        return run

    for size in (2, 3):
        ranks = in_ranks(rank_of(size), tmp_path / str(size), size)
        assert [rank.result for rank in ranks] == [expected] * size
    assert 0 < expected["coco/bbox_AP"] < 1


def test_a_training_reads_and_draws_its_truth_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polygon = [[1.0, 1.0, 7.0, 1.0, 7.0, 5.0, 1.0, 5.0]]
    truth = {
        "images": [{"id": 3, "height": 8, "width": 10}],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 7, "bbox": [1, 1, 6, 4], "area": 24, "segmentation": polygon}
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    mask = codec.decode(codec.merge(codec.frPyObjects(polygon, 8, 10)))
    found = {"boxes": np.array([[1.0, 1, 7, 5]]), "scores": np.array([0.9]), "labels": np.array([0])}
    sample = {"image_id": 3, "predicted": {**found, "masks": mask[None]}}
    sample["predicted"] = {key: torch.as_tensor(value) for key, value in sample["predicted"].items()}
    metric = CocoMetric(path, iou_types=("segm",))
    metric.dataset_meta = {"classes": ("cell",)}
    drawings = []
    real = metric_module.with_run_lengths
    monkeypatch.setattr(metric_module, "with_run_lengths", lambda truth: drawings.append(1) or real(truth))
    for _ in range(2):
        metric.process(None, [sample])
        assert metric.evaluate(1)["coco/segm_AP"] == 1.0
    assert len(drawings) == 1
    truth["annotations"][0]["segmentation"] = [
        [1.0, 5.0, 7.0, 5.0, 7.0, 7.0, 1.0, 7.0]
    ]  # another truth, another answer
    path.write_text(json.dumps(truth))
    os.utime(path, ns=(1, 1))
    metric.process(None, [sample])
    assert metric.evaluate(1)["coco/segm_AP"] == 0.0
    assert len(drawings) == 2


def test_masks_that_cannot_be_drawn_are_left_to_the_tool() -> None:
    image = {"id": 3, "height": 8, "width": 10}
    shapes = [[[1.0, 2.0]], [[]], [], None]
    annotations = [{"id": n, "image_id": 3, "segmentation": shape} for n, shape in enumerate(shapes, 1)]
    annotations += [
        {"id": 9, "image_id": 4, "segmentation": [[1.0, 1.0, 7.0, 1.0, 7.0, 5.0]]},
        {"id": 10, "image_id": 3},
    ]
    truth = {"images": [image, {"id": 5}], "annotations": annotations}
    assert with_run_lengths(truth) == truth
    crowd = {"id": 1, "image_id": 3, "segmentation": {"size": [8, 10], "counts": [3, 5, 72]}}
    (drawn,) = with_run_lengths({"images": [image], "annotations": [crowd]})["annotations"]
    np.testing.assert_array_equal(codec.decode(drawn["segmentation"]).T.ravel(), [0] * 3 + [1] * 5 + [0] * 72)
