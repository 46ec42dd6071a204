"""A run's report: what is in the files is in the page, whatever of them is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_run import tiny_config

from visionattn.cli.main import main
from visionattn.engine.report import write_report
from visionattn.engine.run_record import read_run
from visionattn.engine.runner import Runner


def write_log(work_dir: Path, name: str, lines: list[dict[str, Any]], end: str = "\n") -> Path:
    log = work_dir / name / "vis_data"
    log.mkdir(parents=True)
    (log / "scalars.json").write_text("\n".join(json.dumps(line) for line in lines) + end)
    return log


def train(*steps: int, loss: float = 1.0) -> list[dict[str, Any]]:
    return [{"lr": 0.1, "loss": loss, "time": 0.2, "data_time": 0.1, "iter": step, "step": step} for step in steps]


def write_evaluation(work_dir: Path, names: list[str], confusion: np.ndarray) -> None:
    folder = work_dir / "evaluation"
    (folder / "examples").mkdir(parents=True)
    np.save(folder / "confusion_matrix.npy", confusion)
    classes = [
        {"name": name, "color": None, "IoU": 50.0 + i, "accuracy": None, "precision": 1.5, "Dice": 2.5, "pixels": 10}
        for i, name in enumerate(names)
    ]
    (folder / "classes.json").write_text(json.dumps({"mIoU": 50.0, "images": 7, "classes": classes}))
    for rank in range(2):
        examples = []
        for number in range(3):
            cv2.imwrite(str(folder / "examples" / f"{rank}-{number}-input.jpg"), np.full((9, 13, 3), 99, np.uint8))
            tiles = [{"title": "input", "file": f"{rank}-{number}-input.jpg"}]
            score = 10.0 * number + rank
            examples.append({"path": f"/data/{score:g}.jpg", "score": score, "measure": "mIoU", "tiles": tiles})
        content = {"processes": 2, "number": 2, "examples": examples}
        (folder / "examples" / f"{rank}.json").write_text(json.dumps(content))


def test_a_resumed_runs_logs_are_one_and_what_was_done_over_counts_once(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", [*train(10, 20, 30), {"mIoU": 5.0, "step": 30}, *train(40)])
    write_log(tmp_path, "20260102_000000", [*train(40, 50, loss=0.5), {"mIoU": 7.0, "time": 1.0, "step": 50}])
    record = read_run(tmp_path)
    assert [(line["step"], line["loss"]) for line in record.train] == [(10, 1), (20, 1), (30, 1), (40, 0.5), (50, 0.5)]
    assert [(line["step"], line["mIoU"]) for line in record.evaluations] == [(30, 5.0), (50, 7.0)]


def test_a_run_begun_anew_in_the_same_place_replaces_the_old_one(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", [*train(10, 20, 30), {"mIoU": 5.0, "step": 30}])
    write_log(tmp_path, "20260102_000000", train(10, 20))
    record = read_run(tmp_path)
    assert [line["step"] for line in record.train] == [10, 20]
    assert record.evaluations == []


def test_a_log_that_a_kill_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    write_log(tmp_path, "a", train(10, 20), end='\n{"lr": 0.1, "lo')
    assert [line["step"] for line in read_run(tmp_path).train] == [10, 20]
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "classes.json").write_text('{"mIoU": 5')
    assert "20 iterations logged" in write_report(tmp_path).read_text()


def test_the_page_has_every_number(tmp_path: Path) -> None:
    log = write_log(tmp_path, "a", [*train(10), {"mIoU": 41.5, "step": 10}, *train(20), {"mIoU": 40.25, "step": 20}])
    (log / "config.py").write_text("data_root = '<here>'\n")
    write_evaluation(tmp_path, ["sky", "road <b>", "tree"], np.array([[90, 7, 3], [0, 50, 0], [4, 0, 6]]))
    text = write_report(tmp_path).read_text()
    assert "41.50" in text
    assert "<b>41.50</b>" in text  # the best evaluation
    assert "<b>40.25</b>" not in text
    assert "road &lt;b&gt;" in text
    assert "road <b>" not in text
    assert "data_root = &#x27;&lt;here&gt;&#x27;" in text
    assert 'title="sky taken for road &lt;b&gt;: 7.00 %"' in text
    mistakes = re.findall(r'<td class="n">([\d.]+)</td><td class="n">([\d.]+)</td></tr>', text)
    assert mistakes[-3:] == [("4.38", "7.0"), ("2.50", "40.0"), ("1.88", "3.0")]  # of 160 pixels; of the class
    # Worst first; best from the other end; what a second process kept is there too.
    assert re.findall(r"<b>([\d.]+)\.jpg</b> · mIoU", text) == ["0", "1", "21", "20"]


def test_the_images_scores_are_summed_up(tmp_path: Path) -> None:
    write_log(tmp_path, "a", train(10))
    write_evaluation(tmp_path, ["sky", "road"], np.eye(2, dtype=np.int64))
    images = [{"image": f"{i}.jpg", "mIoU": float(i)} for i in range(101)] + [{"image": "ignored.jpg", "mIoU": None}]
    (tmp_path / "evaluation" / "images.json").write_text(json.dumps(images))
    text = write_report(tmp_path).read_text()
    assert "Of 101 images, one in ten has an mIoU below 10.0, half are above 50.0." in text


def test_many_classes_are_a_picture(tmp_path: Path) -> None:
    write_log(tmp_path, "a", train(10))
    write_evaluation(tmp_path, [f"class {i}" for i in range(30)], np.eye(30, dtype=np.int64) * 5)
    text = write_report(tmp_path, tmp_path / "elsewhere" / "page.html").read_text()
    assert 'alt="confusion matrix"' in text
    assert "No pixel is wrong." in text
    assert 'class="matrix"' not in text
    assert (tmp_path / "elsewhere" / "page.html").is_file()


def test_other_metrics_have_no_direction_and_no_percent(tmp_path: Path) -> None:
    write_log(tmp_path, "a", [*train(10), {"runtime": 2.0, "step": 10}, *train(20), {"runtime": 1.5, "step": 20}])
    text = write_report(tmp_path).read_text()
    assert "runtime, last" in text
    assert "runtime, best" not in text
    assert "runtime, %" not in text


@pytest.mark.parametrize("content", [None, "empty"])
def test_a_folder_without_a_run_is_answered(content: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    if content:
        folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no folder .*work|no run wrote here"):
        write_report(folder)


def test_a_training_ends_with_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Runner.from_cfg(tiny_config(tmp_path)).train()
    text = (tmp_path / "report.html").read_text()
    assert "finished" in text
    assert "tiny/accuracy" in text
    assert "<dd>8</dd>" in text  # iterations
    (facts,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/run.json"))
    assert facts["iterations"] == 8
    assert facts["seed"] == 3
    assert facts["finished"] is True
    before = text
    (tmp_path / "report.html").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit(143), ValueError("broken")])
def test_a_training_that_is_stopped_has_a_report_too(error: Any, tmp_path: Path) -> None:
    runner = Runner.from_cfg(tiny_config(tmp_path))

    class Stop:
        """The model's sixth step."""

        calls = 0

    step = runner.model.train_step

    def train_step(*args: Any, **kwargs: Any) -> Any:
        Stop.calls += 1
        if Stop.calls == 6:
            raise error
        return step(*args, **kwargs)

    runner.model.train_step = train_step
    with pytest.raises((KeyboardInterrupt, SystemExit, ValueError)):
        runner.train()
    assert "stopped after 5 of 8 iterations" in (tmp_path / "report.html").read_text()


def test_the_last_step_counts_though_no_log_has_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config.default_hooks.logger.interval = 3
    Runner.from_cfg(config).train()
    assert read_run(tmp_path).train[-1]["step"] == 6
    text = write_report(tmp_path).read_text()
    assert "<dd>8</dd>" in text
    assert "6 of 8" not in text


def test_the_duration_is_that_of_all_runs_since_it_was_begun_anew(tmp_path: Path) -> None:
    def note(name: str, **facts: Any) -> None:
        log = write_log(tmp_path, name, train(10))
        (log.parent / "run.json").write_text(json.dumps({"iterations": 30, **facts}))

    note("a", begun=1000, ended=9000, begun_at=0)
    note("b", begun=10000, ended=10060, begun_at=0)
    note("c", begun=20000, ended=20065, begun_at=10)
    assert "<dd>2 min 05 s</dd>" in write_report(tmp_path).read_text()
    assert read_run(tmp_path).facts["begun"] == 10000
    note("d", begun=30000, begun_at=20)  # killed
    assert "<dd>over 2 min 05 s</dd>" in write_report(tmp_path).read_text()


def test_a_training_that_is_taken_up_counts_on(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config.train_cfg.max_iters = 4
    Runner.from_cfg(config).train()
    config = tiny_config(tmp_path)
    config.resume, config.load_from = True, str(tmp_path / "iter_4.pth")
    config.experiment_name = "later"
    Runner.from_cfg(config).train()
    begun = [json.loads(path.read_text())["begun_at"] for path in tmp_path.glob("*/run.json")]
    assert 4 in begun  # two runs within a second share a folder


def test_a_training_that_never_began_has_none(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, load_from=str(tmp_path / "nothing.pth"))
    with pytest.raises(FileNotFoundError):
        Runner.from_cfg(config).train()
    assert not (tmp_path / "report.html").exists()
    (log,) = tmp_path.glob("*/*.log")
    assert "no report" not in log.read_text()


def test_a_report_that_cannot_be_written_fails_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("visionattn.engine.report.write_report", refuse)
    Runner.from_cfg(tiny_config(tmp_path)).train()
    (log,) = tmp_path.glob("*/*.log")
    assert "no report was written: OSError" in log.read_text()
