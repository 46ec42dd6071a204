"""Clean data of many kinds raises no alarm; wrappers, other data sets and broken configs are looked through too."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from tiny_run import tiny_config

import visionattn.segmentation  # noqa: F401
from visionattn.data.ade20k_scenes import write_ade20k
from visionattn.engine.config import load_config
from visionattn.engine.data_check import ConfigReport, check_data, duplicate_inputs, leaf_datasets

CAMVID = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "camvid"


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """mmengine collects garbage at every data set that it opens: not among all that torch consists of."""
    gc.freeze()
    yield
    gc.unfreeze()


def write_pairs(
    root: Path,
    write_image: Callable[[Path, np.ndarray], Any] = lambda path, image: cv2.imwrite(f"{path}.jpg", image),
    write_mask: Callable[[Path, np.ndarray], Any] = lambda path, mask: cv2.imwrite(f"{path}.png", mask),
    folder: str = "",
) -> None:
    """Two splits of three pairs, 20 x 31, numbers 0, 1, 2 and 255."""
    random = np.random.default_rng(len(str(root)))
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind / folder).mkdir(parents=True)
        for stem in "abc":
            write_image(root / split / "images" / folder / stem, random.integers(0, 256, (20, 31, 3), np.uint8))
            mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (20, 31))
            write_mask(root / split / "masks" / folder / stem, mask)


def dataset_config(root: Path, split: str, **options: Any) -> dict[str, Any]:
    return {
        "type": "visionattn.ImageMaskFolder",
        "data_root": str(root / split),
        "classes": ("sky", "road", "tree"),
        **options,
    }


def run_config(root: Path, **options: Any) -> Config:
    loaders = {f"{split}_dataloader": {"dataset": dataset_config(root, split, **options)} for split in ("train", "val")}
    return Config({"default_scope": "mmseg", "model": {"decode_head": {"num_classes": 3}}, **loaders})


def lines(report: ConfigReport) -> list[str]:
    return [f"{finding.level} {split}: {finding}" for split, finding in report.findings]


def turned(path: Path, image: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter
    Image.fromarray(np.rot90(image)).save(f"{path}.jpg", exif=exif)


def turned_png(path: Path, image: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image)).save(f"{path}.jpg", format="PNG", exif=exif)


def palette_mask(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask, mode="P")
    image.putpalette(list(range(256)) * 3)
    image.save(f"{path}.png")


CLEAN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as usual": ({}, {}),
    "16-bit masks": ({"write_mask": lambda p, m: cv2.imwrite(f"{p}.png", m.astype(np.uint16))}, {}),
    "32-bit masks": ({"write_mask": lambda p, m: Image.fromarray(m.astype(np.int32)).save(f"{p}.tif")},
                     {"mask_suffix": ".tif"}),
    "palette masks": ({"write_mask": palette_mask}, {}),
    "zero is ignored": ({"write_mask": lambda p, m: cv2.imwrite(f"{p}.png", m + 1)}, {"reduce_zero_label": True}),
    "another number is ignored": (
        {"write_mask": lambda p, m: cv2.imwrite(f"{p}.png", np.where(m == 255, 9, m))}, {"ignore_index": 9}),
    "grey images": ({"write_image": lambda p, i: cv2.imwrite(f"{p}.jpg", i[..., 0])}, {}),
    "images turned by their camera": ({"write_image": turned}, {}),
    "PNG images turned by their camera": ({"write_image": turned_png}, {}),
    "sub-folders": ({"folder": "city/street"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("decode", [False, True], ids=["headers", "decoded"])
@pytest.mark.parametrize("name", list(CLEAN))
def test_clean_data_raises_no_alarm(name: str, decode: bool, tmp_path: Path) -> None:
    written, options = CLEAN[name]
    write_pairs(tmp_path, **written)
    report = check_data(run_config(tmp_path, **options), decode=decode)
    assert lines(report) == []
    assert {split: reports[0].checked for split, reports in report.splits.items()} == {"train": 3, "val": 3}
    histogram = report.splits["train"][0].histogram
    assert histogram is not None
    assert sum(histogram.counts) + histogram.ignored == 3 * 20 * 31


def test_the_histogram_is_that_of_plain_loops(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    counts = {0: 0, 1: 0, 2: 0, 255: 0}
    for path in (tmp_path / "train" / "masks").iterdir():
        for row in Image.open(path).getdata():
            counts[row] += 1
    report = check_data(run_config(tmp_path))
    histogram = report.splits["train"][0].histogram
    assert histogram is not None
    assert histogram.names == ("sky", "road", "tree")
    assert (*histogram.counts, histogram.ignored) == tuple(counts.values())
    assert json.loads(json.dumps(report.as_dict()))["splits"]["train"][0]["histogram"]["counts"] == [
        counts[0], counts[1], counts[2],
    ]  # fmt: skip


def test_made_up_scenes_raise_no_alarm(tmp_path: Path) -> None:
    write_ade20k(tmp_path / "scenes", train=60, val=60, seed=0, size=(64, 64))
    config = load_config("quickstart/segmentation", {"data_root": str(tmp_path / "scenes")})
    report = check_data(config, decode=True)
    assert lines(report) == []
    assert list(report.splits) == ["train", "val+test"]


@pytest.mark.skipif(not (CAMVID / "train.txt").is_file(), reason=f"no CamVid at {CAMVID}: set VISIONATTN_DATA")
def test_camvid_raises_no_alarm() -> None:
    config = load_config("segmentation/upernet_r18_camvid", {"data_root": str(CAMVID)})
    report = check_data(config, decode=False)
    assert lines(report) == []
    assert {split: reports[0].samples for split, reports in report.splits.items()} == {
        "train": 367, "val": 101, "test": 233,
    }  # fmt: skip
    histogram = report.splits["val"][0].histogram
    assert histogram is not None
    assert histogram.counts[:2] == (1601620, 4531180)  # counted by another program, see test_real_data
    assert histogram.ignored == 297271


def test_wrappers_are_looked_into(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "train" / "masks" / "b.png").write_bytes(b"")
    inner = dataset_config(tmp_path, "train")
    wrapped = {
        "type": "RepeatDataset",
        "times": 3,
        "dataset": {"type": "ConcatDataset", "datasets": [inner, dataset_config(tmp_path, "val")]},
    }
    assert [leaf["data_root"] for leaf in leaf_datasets(wrapped)] == [str(tmp_path / s) for s in ("train", "val")]
    report = check_data(Config({"default_scope": "mmseg", "train_dataloader": {"dataset": wrapped}}))
    assert len(report.splits["train"]) == 2
    (line,) = lines(report)
    assert "b.png" in line


def test_mmsegmentations_own_data_sets_are_looked_at(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    dataset = {
        "type": "mmseg.BaseSegDataset",
        "data_root": str(tmp_path / "train"),
        "data_prefix": {"img_path": "images", "seg_map_path": "masks"},
        "metainfo": {"classes": ("sky", "road")},
    }
    report = check_data(Config({"default_scope": "mmseg", "train_dataloader": {"dataset": dataset}}))
    (line,) = lines(report)
    assert line.startswith("error train: 3 masks hold 2, which is no class; allowed are 0..1 or ignored 255")
    (tmp_path / "train" / "masks" / "c.png").unlink()
    report = check_data(Config({"default_scope": "mmseg", "train_dataloader": {"dataset": dataset}}))
    assert "1 file is missing: mask" in lines(report)[0]


def test_other_data_sets_check_themselves(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    report = check_data(config)
    assert lines(report) == []
    assert report.splits["train"][0].summary == "checked 16 samples"
    config.val_dataloader.dataset.bad_label = True
    assert lines(check_data(config)) == ["error val: sample 3 has label 7, allowed are 0..1"]


def test_a_limit_looks_at_evenly_spaced_samples(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "train" / "masks" / "b.png").write_bytes(b"")
    report = check_data(run_config(tmp_path), limit=2)
    assert lines(report) == []
    assert report.splits["train"][0].summary == "checked the labels and sizes of 2 of 3 masks, evenly spaced"


def test_what_is_looked_at_is_tracked(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    seen: list[tuple[str, int]] = []

    def track(split: str) -> Any:
        def shown(items: Any, total: int) -> Any:
            for item in items:
                seen.append((split, total))
                yield item

        return shown

    check_data(run_config(tmp_path), track=track)
    assert seen == [("train", 3)] * 3 + [("val", 3)] * 3


def test_duplicates_between_what_is_evaluated_by_equal_paths_are_meant(tmp_path: Path) -> None:
    for name, content in (("a", b"1234"), ("b", b"1235"), ("c", b"1234"), ("d", b"12345")):
        (tmp_path / name).write_bytes(content)
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    assert duplicate_inputs({"val": [a, b], "test": [a, b]}) == []
    assert duplicate_inputs({"train": [a, c], "val": [b, d]}) == []
    ((split, finding),) = duplicate_inputs({"train": [a, b], "val": [a, d]})
    assert (split, finding.level, finding.cases) == ("train, val", "error", (a,))
    ((split, finding),) = duplicate_inputs({"train": [a, b], "val": [d, c]})
    assert (split, finding.level, finding.cases) == ("train, val", "error", (f"{a} = {c}",))
    ((split, finding),) = duplicate_inputs({"val": [a], "test": [c]})
    assert (split, finding.level) == ("val, test", "warning")
    assert duplicate_inputs({"train": [str(tmp_path / "none")], "val": [a]}) == []
