"""What `visionattn data check` finds in stereo pairs, and what skip_bad leaves out: each fault planted, then found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tiny_run import TinyData

import visionattn.stereo  # noqa: F401
from visionattn.cli.main import main
from visionattn.data.findings import check_files
from visionattn.data.pfm import read_pfm, write_pfm
from visionattn.engine.data_check import ConfigReport, check_data
from visionattn.engine.preflight import check_config
from visionattn.engine.skip_bad import skip_bad_samples
from visionattn.stereo.inspection import BIN, BINS, inspect_pair
from visionattn.stereo.scene_flow import SceneFlow

HEIGHT, WIDTH = 24, 64
FRAMES = tuple(f"{number:04}" for number in range(6, 11))


def write_tree(root: Path) -> None:
    """Scene Flow's FlyingThings3D, 5 pairs to train on and 5 to test on: noise, moved by 4, 5, ... 8 pixels."""
    random = np.random.default_rng(0)
    for split in ("TRAIN", "TEST"):
        for number, frame in enumerate(FRAMES):
            shift = 4 + number
            wide = random.integers(0, 256, (HEIGHT, WIDTH + shift, 3), np.uint8)
            for view, image in (("left", wide[:, :WIDTH]), ("right", wide[:, shift:])):
                path = root / "FlyingThings3D/frames_finalpass" / split / "A/0000" / view / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image)
            path = root / "FlyingThings3D/disparity" / split / "A/0000/left" / f"{frame}.pfm"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_pfm(path, np.full((HEIGHT, WIDTH), shift, np.float32))


def dataset_config(root: Path, split: str, **options: Any) -> dict[str, Any]:
    parts = ["FlyingThings3D"]
    return {"type": "visionattn.SceneFlow", "data_root": str(root), "split": split, "parts": parts, **options}


def run_config(root: Path, **options: Any) -> Config:
    loaders = {
        f"{part}_dataloader": {"dataset": dataset_config(root, split, **options)}
        for part, split in (("train", "train"), ("val", "test"))
    }
    return Config({"default_scope": "visionattn", **loaders})


def lines(report: ConfigReport) -> list[str]:
    """All that was found but the numbers of pairs, which tiny trees have too few of."""
    return [f"{finding.level} {split}: {finding}" for split, finding in report.findings if finding.kind != "count"]


def image_file(root: Path, view: str, frame: str = "0007") -> Path:
    return root / f"FlyingThings3D/frames_finalpass/TRAIN/A/0000/{view}/{frame}.png"


def map_file(root: Path, frame: str = "0007") -> Path:
    return root / f"FlyingThings3D/disparity/TRAIN/A/0000/left/{frame}.pfm"


@pytest.mark.parametrize("decode", [False, True])
def test_clean_pairs_raise_no_alarm(decode: bool, tmp_path: Path) -> None:
    write_tree(tmp_path)
    report = check_data(run_config(tmp_path), decode=decode)
    assert lines(report) == []
    assert {split: (reports[0].samples, reports[0].checked) for split, reports in report.splits.items()} == {
        "train": (5, 5), "val": (5, 5),
    }  # fmt: skip
    assert json.loads(json.dumps(report.as_dict()))["splits"]["train"][0]["measured"] == {
        "height x width": "24 x 64",
        "pixels with a disparity": "100.0%, at least 100.0% of every pair",
        "median disparity": "6.1",
        "99 % lie below": "8.1",
        "largest disparity": "8.0",
        "192 and more": "none",
    }


def test_the_numbers_of_pairs_are_compared_with_the_whole(tmp_path: Path) -> None:
    write_tree(tmp_path)
    counts = [str(finding) for _, finding in check_data(run_config(tmp_path)).findings if finding.kind == "count"]
    assert counts == [
        "FlyingThings3D TRAIN finalpass has 5 pairs, the whole of it 22,390; "
        "figures are comparable with published ones on the whole only",
        "FlyingThings3D TEST finalpass has 5 pairs, the whole of it 4,370; "
        "figures are comparable with published ones on the whole only",
    ]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_map(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda root: write_pfm(map_file(root), change(read_pfm(map_file(root)).copy()))


def put(value: float) -> Callable[[Path], None]:
    def change(values: np.ndarray) -> np.ndarray:
        values[3, 5] = value
        return values

    return change_map(change)


def other_size(root: Path) -> None:
    image = np.asarray(cv2.imread(str(image_file(root, "right"))))
    cv2.imwrite(str(image_file(root, "right")), image[:, :60])


FAULTS: dict[str, tuple[Callable[[Path], Any], bool, str]] = {  # how it is planted, only with --decode, what is said
    "no right image": (lambda root: image_file(root, "right").unlink(), False,
                       "1 file is missing: {right}; fetch what is missing, or leave such pairs out by --skip-bad"),
    "no left image": (lambda root: image_file(root, "left").unlink(), False, "1 file is missing: {left}"),
    "no disparity": (lambda root: map_file(root).unlink(), False, "1 file is missing: {map}"),
    "empty image": (lambda root: image_file(root, "left").write_bytes(b""), False,
                    "1 file cannot be decoded: {left} "),
    "image cut short": (lambda root: truncate(image_file(root, "right")), True,
                        "1 file cannot be decoded: {right} cannot be decoded as an image"),
    "map cut short": (lambda root: truncate(map_file(root)), False,
                      "1 pair has a truth that cannot be used: {map} is cut short"),
    "sizes differ": (other_size, False, "1 pair has images of two sizes: {left} is 24 x 64, {right} is 24 x 60"),
    "map of another size": (change_map(lambda d: d[:20]), False,
                            "1 pair has a truth that cannot be used: {map} is 20 x 64, {left} is 24 x 64"),
    "NaN": (put(np.nan), False, "1 pair has a truth that cannot be used: {map} holds NaN at row 3, column 5;"),
    "one negative": (put(-1), False,
                     "{map} holds negative disparities beside positive ones at row 3, column 5;"),
    "nothing known": (change_map(lambda d: d * np.inf), False, "{map} has no valid pixel"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_and_named(name: str, tmp_path: Path) -> None:
    plant, needs_decode, said = FAULTS[name]
    write_tree(tmp_path)
    plant(tmp_path)
    named = {"left": image_file(tmp_path, "left"), "right": image_file(tmp_path, "right"), "map": map_file(tmp_path)}
    for decode in (False, True):
        found = lines(check_data(run_config(tmp_path), decode=decode))
        if needs_decode and not decode:
            assert found == []
            continue
        (line,) = found
        assert line.startswith("error train: ")
        assert said.format(**named) in line
    if not needs_decode:
        with pytest.raises((ValueError, OSError)) as error:
            check_config(run_config(tmp_path), parts=("train",))
        assert said.format(**named).split(": ", 1)[-1].split(";")[0] in str(error.value)


@pytest.mark.parametrize("name", FAULTS)
def test_skip_bad_counts_and_leaves_out(name: str, tmp_path: Path) -> None:
    write_tree(tmp_path)
    FAULTS[name][0](tmp_path)
    dataset = SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"], skip_bad=True)
    assert [dataset.raw(index)["name"][-4:] for index in range(len(dataset))] == ["0006", "0008", "0009", "0010"]
    assert len(dataset.skipped) == 1
    assert "0007" in dataset.skipped[0]
    report = check_data(run_config(tmp_path, skip_bad=True), decode=True)
    assert [line.split()[0] for line in lines(report)] == ["warning"]
    assert "; skip_bad leaves such pairs out" in lines(report)[0]


def test_skip_bad_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("visionattn.stereo.datasets.print_log", lambda message, **_: said.append(message))
    write_tree(tmp_path)
    map_file(tmp_path, "0006").unlink()
    truncate(map_file(tmp_path, "0009"))
    SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"], skip_bad=True)
    first = f"no {map_file(tmp_path, '0006')}"
    assert said == [f"SceneFlow leaves out 2 of 5 pairs that cannot be used: {first}, and 1 more"]
    for frame in FRAMES:
        map_file(tmp_path, frame).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"SceneFlow found no pair in .*, and cannot use: no .*0006\.pfm"):
        SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"], skip_bad=True)


def test_the_commands_option_reaches_every_data_set(tmp_path: Path) -> None:
    config = run_config(tmp_path)
    inner = config.train_dataloader.dataset
    config.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": inner}
    skip_bad_samples(config, parts=("train", "test"))
    assert config.train_dataloader.dataset.dataset.skip_bad
    assert "skip_bad" not in config.val_dataloader.dataset
    config.train_dataloader.dataset = {"type": TinyData}
    with pytest.raises(ValueError, match=r"--skip-bad: TinyData of train_dataloader cannot leave samples out"):
        skip_bad_samples(config, parts=("train",))


def test_swapped_images_are_warned_of(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for frame in FRAMES[:2]:
        left, right = image_file(tmp_path, "left", frame), image_file(tmp_path, "right", frame)
        kept = left.read_bytes()
        left.write_bytes(right.read_bytes())
        right.write_bytes(kept)
    (line,) = lines(check_data(run_config(tmp_path)))
    assert line.startswith(
        f"warning train: 2 of 5 pairs looked at match the other way round: {image_file(tmp_path, 'left', '0006')}, "
    )
    assert line.endswith("are the left and the right image swapped?")


def test_disparities_that_cannot_be_are_warned_of(tmp_path: Path) -> None:
    write_tree(tmp_path)
    put(70.5)(tmp_path)
    (line,) = lines(check_data(run_config(tmp_path)))
    assert line.startswith("warning train: 1 disparity map points beyond the image: ")
    assert "0007.pfm: 70.5 pixels, the images are 64 wide; is the number of steps" in line
    for frame in FRAMES:
        write_pfm(map_file(tmp_path, frame), np.full((HEIGHT, WIDTH), 0.02, np.float32))
    (line,) = lines(check_data(run_config(tmp_path)))
    assert line.startswith("warning train: no disparity reaches 1 pixel, the largest is 0.020; is the number of steps")


def test_pairs_that_are_listed_twice(tmp_path: Path) -> None:
    write_tree(tmp_path)
    files = f"{image_file(tmp_path, 'left')} {image_file(tmp_path, 'right')} {map_file(tmp_path)}\n"
    (tmp_path / "list.txt").write_text(files * 2)
    dataset = {"type": "visionattn.PairList", "ann_file": str(tmp_path / "list.txt")}
    config = Config({"default_scope": "visionattn", "train_dataloader": {"dataset": dataset}})
    (line,) = lines(check_data(config))
    assert line.startswith("warning train: 1 pair is listed more than once: ")


def test_what_cannot_be_opened_or_is_empty(tmp_path: Path) -> None:
    train, _ = lines(check_data(run_config(tmp_path)))
    assert "Scene Flow's FlyingThings3D, finalpass: no folder" in train
    for kind in ("frames_finalpass", "disparity"):
        for split in ("TRAIN", "TEST"):
            (tmp_path / "FlyingThings3D" / kind / split).mkdir(parents=True)
    assert "SceneFlow has no pair in" in lines(check_data(run_config(tmp_path)))[0]


def test_a_choice_and_a_limit(tmp_path: Path) -> None:
    write_tree(tmp_path)
    truncate(map_file(tmp_path))
    dataset = SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"], indices=[0, 2, 4], lazy_init=True)
    report = check_files(dataset)
    assert (report.samples, report.checked) == (3, 3)
    assert [finding.kind for finding in report.findings] == ["count"]
    for indices, kinds in ((1, ["count"]), (2, ["truth", "count"]), (-3, ["count"])):
        dataset = SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"], indices=indices, lazy_init=True)
        assert [finding.kind for finding in check_files(dataset).findings] == kinds
    limited = check_files(SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"]), limit=3)
    assert (limited.samples, limited.checked) == (5, 3)
    assert limited.summary == "checked the files and disparities of 3 of 5 pairs, evenly spaced"
    assert [finding.kind for finding in limited.findings] == ["count"]


def test_pairs_without_truth_are_looked_at_too(tmp_path: Path) -> None:
    write_tree(tmp_path)
    left, right = image_file(tmp_path, "left"), image_file(tmp_path, "right")
    (tmp_path / "list.txt").write_text(f"{left} {right}\n")
    dataset = {"type": "visionattn.PairList", "ann_file": str(tmp_path / "list.txt")}
    config = Config({"default_scope": "visionattn", "test_dataloader": {"dataset": dataset}})
    report = check_data(config)
    assert lines(report) == []
    assert report.splits["test"][0].measured == {"height x width": "24 x 64", "pixels with a disparity": "no truth"}
    truncate(right)
    assert "1 file cannot be decoded" in lines(check_data(config, decode=True))[0]


def test_the_counts_are_those_of_plain_loops(tmp_path: Path) -> None:
    write_tree(tmp_path)
    values = np.random.default_rng(1).gamma(2, 60, (HEIGHT, WIDTH)).astype(np.float32)
    values[0, :7] = np.inf
    values[1, 0] = 5000
    write_pfm(map_file(tmp_path), values)
    dataset = SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"])
    found = inspect_pair(dataset.files(1), dataset.truth, decode=False)
    counts = np.zeros(BINS, np.int64)
    for value in values.ravel():
        if value != np.inf:
            counts[min(int(value // BIN), BINS - 1)] += 1
    np.testing.assert_array_equal(found.counts, counts)
    assert (found.size, found.known, found.largest) == ((HEIGHT, WIDTH), HEIGHT * WIDTH - 7, 5000)


def test_what_is_measured_of_the_known_pixels(tmp_path: Path) -> None:
    write_tree(tmp_path)
    half, quarter = np.full((2, HEIGHT, WIDTH), np.inf, np.float32)
    half[:, : WIDTH // 2], quarter[:, : WIDTH // 4] = 100, 200
    write_pfm(map_file(tmp_path, "0006"), half)
    write_pfm(map_file(tmp_path, "0007"), quarter)  # the others: 6, 7 and 8 everywhere
    assert check_files(SceneFlow(str(tmp_path), "train", parts=["FlyingThings3D"])).measured == {
        "height x width": "24 x 64",
        "pixels with a disparity": "75.0%, at least 25.0% of every pair",
        "median disparity": "7.1",
        "99 % lie below": "200.1",
        "largest disparity": "200.0",
        "192 and more": "6.67% of the pixels",
    }


def test_the_command_prints_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path)
    truncate(map_file(tmp_path))
    config = tmp_path / "pairs.py"
    config.write_text(
        'default_scope = "visionattn"\n'
        f"train_dataloader = dict(dataset={dataset_config(tmp_path, 'train')!r})\n"
        f"test_dataloader = dict(dataset={dataset_config(tmp_path, 'test')!r})\n"
    )
    assert main(["data", "check", str(config), "--json", str(tmp_path / "found.json")]) == 1
    printed = capsys.readouterr().out
    for expected in ("measured", "median disparity", "24 x 64", "1 pair has a truth that cannot be used", "0007.pfm"):
        assert expected in printed
    kept = json.loads((tmp_path / "found.json").read_text())
    assert (kept["errors"], kept["warnings"]) == (1, 2)
    assert kept["splits"]["test"][0]["measured"]["largest disparity"] == "8.0"
