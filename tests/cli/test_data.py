"""`visionattn data check` and its exit codes, as a terminal and a pipe see them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console
from tiny_segmentation import SIZE, write_segmentation

from visionattn.cli.data_tables import _print, print_report, track
from visionattn.cli.main import main
from visionattn.data.findings import DataReport, Finding, Histogram
from visionattn.engine.data_check import ConfigReport

OTHER_VAL = ["--cfg-options", "val_dataloader=None", "test_dataloader=None"]


def test_clean_data_ends_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    assert main(["data", "check", str(config), "--decode", *OTHER_VAL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "no errors and no warnings"
    assert "  train   ImageMaskFolder         5           5" in lines
    assert any(line.split()[:1] == ["middle"] for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_errors_end_with_one_and_are_all_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    mask = np.zeros(SIZE, np.uint8)
    mask[3, 4] = 7
    for stem in "0123":
        cv2.imwrite(str(tmp_path / "data" / "masks" / f"{stem}.png"), mask)
    found = tmp_path / "out" / "found.json"
    assert main(["data", "check", str(config), "--json", str(found), *OTHER_VAL]) == 1
    out = capsys.readouterr().out
    assert "error  train: 4 masks hold 7, which is no class; allowed are 0..2 or ignored 255" in out
    assert "masks/0.png: row 3, column 4\n" in out
    assert out.endswith("1 error and no warnings\n")
    content = json.loads(found.read_text())
    assert (content["errors"], content["warnings"], content["config"]) == (1, 0, str(config))
    assert len(content["findings"][0]["cases"]) == 4


def test_warnings_end_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    for path in (tmp_path / "data" / "masks").iterdir():
        cv2.imwrite(str(path), np.zeros(SIZE, np.uint8))
    assert main(["data", "check", str(config), *OTHER_VAL]) == 0
    assert capsys.readouterr().out.endswith("no errors and 1 warning\n")


@pytest.mark.parametrize(("action", "code"), [("check", 1), ("browse", 2)])
def test_an_unknown_name_has_its_key_and_line(
    action: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_segmentation(tmp_path)
    argv = ["data", action, str(config), "--cfg-options", "train_dataloader.dataset.type=ImageMaskFoldr"]
    assert main(argv) == code
    told = capsys.readouterr()
    answer = " ".join((told.err or told.out).split())
    assert "visionattn: error: train_dataloader.dataset.type (--cfg-options): ImageMaskFoldr is not in"
    assert "ImageMaskFolder" in answer


def many_findings() -> ConfigReport:
    cases = tuple(f"/data/a/rather/long/folder/for/a/data/set/of/streets/masks/{i:04}.png: row 3" for i in range(40))
    report = ConfigReport()
    for split in ("train", "val", "test"):
        histogram = Histogram(("sky", "road [x]", "traffic sign (front)"), (19_000_000_000, 5, 0), 1_000)
        report.splits[split] = [DataReport("ImageMaskFolder", 118_287, 118_287, "", [], histogram)]
    report.splits["extra"] = []
    report.findings = [
        ("train", Finding("error", "label", "40 masks hold 7 [or so]", cases, "correct the masks")),
        ("val", Finding("warning", "class", "class traffic sign (front) never occurs")),
    ]
    return report


@pytest.mark.parametrize("width", [100, 200])
def test_the_tables_fit_a_terminal(width: int) -> None:
    console = Console(width=width, record=True, force_terminal=False)
    with console.capture() as captured:
        _print(many_findings(), console)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert "... and 35 more" in captured.get()
    assert "40 masks hold 7 [or so]" in captured.get()  # no markup of rich's
    assert "road [x]" in captured.get()
    assert "…" not in captured.get()


def test_a_large_vocabulary_is_shown_by_its_ends() -> None:
    report = ConfigReport()
    names = tuple(f"thing{number:04}" for number in range(1203))
    counts = tuple((number * 7) % 1203 for number in range(1203))  # thing0000 never occurs
    for split in ("train", "val"):
        report.splits[split] = [DataReport("CocoDetection", 9, 9, "", [], Histogram(names, counts, 0))]
    console = Console(width=100, record=True, force_terminal=False)
    with console.capture() as captured:
        _print(report, console)
    rows = [line.split() for line in captured.get().splitlines() if line.strip().startswith("thing")]
    assert [int(row[-1].replace(",", "")) for row in rows] == [*range(1202, 1192, -1), *range(10, 0, -1)]
    assert all(names[counts.index(int(row[-1].replace(",", "")))] == row[0] for row in rows)
    assert "of 1,203 classes the most and the least frequent" in " ".join(captured.get().split())


def test_a_pipe_gets_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(many_findings())
    assert "\x1b" not in capsys.readouterr().out


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track("train")(iter("abc"), 3)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip() == ""
