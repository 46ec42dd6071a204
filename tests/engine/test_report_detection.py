"""A detection run's report and plots: figures, curves, classes, confusions, pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.cli.main import main
from visionattn.engine.report import write_report
from visionattn.engine.report_plots import write_plots
from visionattn.engine.run_record import read_run

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def write_run(work_dir: Path) -> None:
    log = work_dir / "20260101_000000" / "vis_data"
    log.mkdir(parents=True)
    figures = {f"coco/bbox_{name}": 0.25 + number / 100 for number, name in enumerate(FIGURES)}
    lines = [
        {"lr": 0.1, "loss": 1.0, "step": 10},
        {**figures, "step": 10},
        {**figures, "coco/bbox_AP": 0.125, "step": 20},
    ]
    (log / "scalars.json").write_text("\n".join(map(json.dumps, lines)))
    classes = [
        {"name": "<crate>", "AP": 0.75, "AP50": 0.9375, "AR100": 0.8125, "objects": 1234},
        {"name": "star", "AP": 0.5, "AP50": 0.625, "AR100": 0.75, "objects": 6},
        {"name": "unicorn", "AP": None, "AP50": None, "AR100": None, "objects": 0},
    ]
    content = {"images": 77, "bbox": {**dict.fromkeys(FIGURES, 0.4375), "APl": -1.0, "classes": classes}}
    folder = work_dir / "evaluation"
    folder.mkdir()
    (folder / "coco.json").write_text(json.dumps(content))
    precision = np.full((10, 101, 3), -1.0)
    precision[:, :, 0], precision[:, :, 1] = 0.75, np.linspace(1, 0, 101)
    precision[5:, :, :2] /= 2
    np.save(folder / "precision_bbox.npy", precision)
    np.save(folder / "confusion_boxes.npy", np.array([[90, 7, 0, 3], [1, 4, 0, 1], [0, 0, 0, 0], [8, 0, 2, 0]]))
    (work_dir / "pictures").mkdir()
    cv2.imwrite(str(work_dir / "pictures" / "first.png"), np.full((20, 80, 3), 90, np.uint8))


def rows_behind(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table behind it, without markup."""
    body = re.search(r"<tbody>(.*?)</tbody>", text[text.index(heading) :], re.DOTALL)
    assert body is not None
    rows = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)
    return [[re.sub(r"<.*?>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def test_figures_and_classes(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    expected = ["0.438", "0.438", "0.438", "0.438", "0.438", "-", *["0.438"] * 6]
    assert rows_behind(text, "<h2>Boxes</h2>") == [expected]
    assert rows_behind(text, "<th>class</th>") == [
        ["&lt;crate&gt;", "0.750", "", "0.938", "0.812", "1,234"],
        ["star", "0.500", "", "0.625", "0.750", "6"],
    ]
    assert "Without an object here: unicorn (1)." in text
    assert "of 77 images" in text
    assert "<h2>Masks</h2>" not in text
    assert 'alt="evaluation of first"' in text


def test_curves_of_the_validations_and_of_precision(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    assert "<h3>Validation, boxes</h3>" in text
    assert "<h3>coco/bbox_AP50</h3>" not in text  # in the chart above
    assert "coco/bbox_AP, best (at 10)" in text
    assert rows_behind(text, "<h2>Evaluations</h2>") == [
        ["10", "0.25", "0.26", "0.27"],
        ["20", "0.125", "0.26", "0.27"],
    ]
    for name in ("overlap 0.5", "overlap 0.75", "overlap 0.9"):
        assert f"</span>{name}</li>" in text
    single = text[text.index("<h3>Precision at overlap 0.5</h3>") :]
    assert re.findall(r"</span>(.*?)</li>", single)[:2] == ["&lt;crate&gt;", "star"]


def test_confusions_have_what_was_missed_and_made_up(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    assert rows_behind(text, "<h2>Confusions</h2>") == [
        ["nothing", "&lt;crate&gt;", "6.90", "80.0"],
        ["&lt;crate&gt;", "star", "6.03", "7.0"],
        ["&lt;crate&gt;", "nothing", "2.59", "3.0"],
        ["nothing", "unicorn", "1.72", "20.0"],
        ["star", "&lt;crate&gt;", "0.86", "16.7"],
        ["star", "nothing", "0.86", "16.7"],
    ]
    assert 'title="star taken for star: 66.67 %"' in text


def test_a_part_that_is_missing_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "evaluation" / "confusion_boxes.npy").unlink()
    (tmp_path / "evaluation" / "precision_bbox.npy").unlink()
    text = write_report(tmp_path).read_text()
    assert "<h2>Confusions</h2>" not in text
    assert "<h3>Precision" not in text
    assert rows_behind(text, "<th>class</th>")[1][0] == "star"
    (tmp_path / "evaluation" / "coco.json").write_text("{")
    assert read_run(tmp_path).detection == {}
    assert "<h2>Boxes</h2>" not in write_report(tmp_path).read_text()


def test_plots_show_the_same(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert main(["report", str(tmp_path), "--plots", str(tmp_path / "plots")]) == 0
    files = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert files == ["confusion_boxes.png", "precision_recall_bbox.png"]
    pixels = cv2.imread(str(tmp_path / "plots" / "confusion_boxes.png"))
    assert min(pixels.shape[:2]) > 300
    darkest = np.argwhere(pixels.astype(int).sum(-1) < 255)  # the diagonal's cells: 90 and 67 %
    assert len(darkest) > 1000
    curves = cv2.imread(str(tmp_path / "plots" / "precision_recall_bbox.png")).astype(int)
    blue = (abs(curves - np.array([0xB2, 0x72, 0x00])) < 12).all(-1)  # the mean of 0.75 and of 1 to 0: it falls
    columns = np.flatnonzero(blue[: curves.shape[0] // 2].any(axis=0))
    heights = [np.flatnonzero(blue[:, column]).min() for column in (columns[5], columns[len(columns) // 2])]
    assert heights[0] < heights[1]


def test_nothing_to_plot_is_said(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    with pytest.raises(ValueError, match=r"has no confusion_matrix\.npy and no precision_bbox\.npy to plot"):
        write_plots(tmp_path, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_a_segmentation_run_has_its_confusion(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    np.save(tmp_path / "evaluation" / "confusion_matrix.npy", np.eye(30, dtype=np.int64))
    assert [path.name for path in write_plots(tmp_path, tmp_path / "plots")] == ["confusion.png"]


def test_figures_of_lvis(tmp_path: Path) -> None:
    write_run(tmp_path)
    path = tmp_path / "evaluation" / "coco.json"
    content = json.loads(path.read_text())
    content["bbox"] |= {"APr": 0.0625, "APc": -1.0, "APf": 0.5, "AR300": 0.75}
    for one in content["bbox"]["classes"]:
        one["AR300"] = one.pop("AR100")
    path.write_text(json.dumps(content))
    (tmp_path / "evaluation" / "confusion_boxes.npy").unlink()
    text = write_report(tmp_path).read_text()
    figures = rows_behind(text, "<h2>Boxes</h2>")[0]
    assert figures[6:9] == ["0.062", "-", "0.500"]
    assert "or of so rare a class" in text
    assert "AR300" in text
    assert "0.812" in text  # a class's, of 300 detections
    assert "Confusions" not in text
