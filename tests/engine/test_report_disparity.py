"""A stereo run's report: its protocols, its worst pairs, its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np

from visionattn.engine.report import write_report
from visionattn.engine.run_record import read_run


def write_run(work_dir: Path) -> None:
    log = work_dir / "20260101_000000" / "vis_data"
    log.mkdir(parents=True)
    lines = [
        {"lr": 0.1, "loss": 1.0, "step": 10},
        {"visionattn/EPE": 1.5, "visionattn/D1": 7.25, "visionattn/EPE-pixels": 1.625, "step": 10},
        {"visionattn/EPE": 1.75, "visionattn/D1": 6.75, "visionattn/EPE-pixels": 1.875, "step": 20},
    ]
    (log / "scalars.json").write_text("\n".join(map(json.dumps, lines)))
    content = {
        "protocol": "visionattn",
        "pixels": "known, 0 < d < 192",
        "images": 1234,
        "without_pixels": ["A/0149/0015"],
        "figures": {
            "all": {"EPE": 1.75, "D1": 6.75, "EPE-pixels": 1.875, "D1-pixels": 6.5},
            "noc": {"EPE": 0.875, "D1": None, "EPE-pixels": 0.9375, "D1-pixels": 3.125},
        },
        "evaluated": [
            {"name": "easy", "EPE": 0.25, "D1": 0.5, "bad-1": 1.0, "bad-3": 0.75, "pixels": 9},
            {"name": "<hard>", "EPE": 8.5, "D1": 60.0, "bad-1": 80.0, "bad-3": 62.5, "pixels": 9},
            {"name": "A/0149/0015", "EPE": None, "D1": None, "bad-1": None, "bad-3": None, "pixels": 0},
        ],
    }
    other = {**content, "protocol": "raft", "figures": {"all": {"EPE": 2.5, "bad-1": 12.5}}, "without_pixels": []}
    (work_dir / "evaluation").mkdir()
    for one in (content, other):
        (work_dir / "evaluation" / f"disparity_{one['protocol']}.json").write_text(json.dumps(one))
    (work_dir / "pictures").mkdir()
    cv2.imwrite(str(work_dir / "pictures" / "made_up_0.png"), np.full((20, 80, 3), 90, np.uint8))
    (work_dir / "pictures" / "cut_off.png").write_bytes(b"\x89PNG")


def cells(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading."""
    after = text[text.index(f"<h2>{heading}</h2>") :]
    body = re.search(r"<tbody>(.*?)</tbody>", after, re.DOTALL)
    assert body is not None
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)]


def test_protocols_stand_by_themselves(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    assert cells(text, "Disparity, protocol visionattn") == [
        ["all", "images", "1.750", "6.75"],
        ["all", "pixels", "1.875", "6.50"],
        ["non-occluded", "images", "0.875", "-"],
        ["non-occluded", "pixels", "0.938", "3.12"],
    ]
    assert cells(text, "Disparity, protocol raft") == [["all", "as the protocol says", "2.500", "12.50"]]
    assert "1,234 images were evaluated; in 1 of them no pixel counts: A/0149/0015." in text
    assert "known, 0 &lt; d &lt; 192" in text
    worst = text[text.index("The worst pairs") :]
    assert worst.index("&lt;hard&gt;") < worst.index("easy")


def test_the_best_is_the_lowest(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    assert "visionattn/EPE, best (at 10)" in text
    assert cells(text, "Evaluations") == [["10", "<b>1.5</b>", "7.25"], ["20", "1.75", "<b>6.75</b>"]]


def test_pictures_are_in_the_page(tmp_path: Path) -> None:
    write_run(tmp_path)
    text = write_report(tmp_path).read_text()
    assert text.count("<img ") == 1
    assert 'alt="evaluation of made_up_0"' in text


def test_a_run_of_another_task_shows_nothing_of_it(tmp_path: Path) -> None:
    write_run(tmp_path)
    for path in (tmp_path / "evaluation").iterdir():
        path.write_text("{")
    assert read_run(tmp_path).disparity == []
    text = write_report(tmp_path).read_text()
    assert "Disparity" not in text
    assert "Pictures" not in text
