"""Faults put into clean data, one at a time and several at once: each is found and named, and nothing else is."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

import visionattn.segmentation  # noqa: F401
from visionattn.engine.data_check import ConfigReport, check_data

CLASSES = ("sky", "road", "tree")
SPLITS = ("train", "val", "test")
STEMS = ("a", "b", "c", "d")
SEEDS = range(5)


@dataclass
class Expected:
    """A finding: its level and kind, and what its first line has to name."""

    level: str
    kind: str
    names: tuple[str, ...]
    split: str = "train"


@dataclass
class Place:
    """A clean tree, and where in it the fault goes."""

    root: Path
    split: str
    stem: str
    random: np.random.Generator
    config: Config

    @property
    def image(self) -> Path:
        return self.root / self.split / "images" / f"{self.stem}.jpg"

    @property
    def mask(self) -> Path:
        return self.root / self.split / "masks" / f"{self.stem}.png"

    def labels(self) -> np.ndarray:
        return cv2.imread(str(self.mask), cv2.IMREAD_UNCHANGED)

    def pixel(self, labels: np.ndarray) -> tuple[int, int]:
        return int(self.random.integers(labels.shape[0])), int(self.random.integers(labels.shape[1]))


def write_tree(root: Path, random: np.random.Generator) -> None:
    for split in SPLITS:
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for stem in STEMS:
            size = tuple(random.integers(17, 40, 2))
            image, mask = random.integers(0, 256, (*size, 3), np.uint8), random.choice([0, 1, 2, 255], size)
            cv2.imwrite(str(root / split / "images" / f"{stem}.jpg"), image)
            cv2.imwrite(str(root / split / "masks" / f"{stem}.png"), mask.astype(np.uint8))
        (root / f"{split}.txt").write_text("\n".join(STEMS) + "\n")


def config_of(root: Path) -> Config:
    loaders = {
        f"{split}_dataloader": {
            "dataset": {
                "type": "visionattn.ImageMaskFolder",
                "data_root": str(root),
                "image_dir": f"{split}/images",
                "mask_dir": f"{split}/masks",
                "ann_file": f"{split}.txt",
                "classes": CLASSES,
            }
        }
        for split in SPLITS
    }
    model = {"decode_head": {"num_classes": 3}, "auxiliary_head": [{"num_classes": 3}, {"num_classes": 3}]}
    return Config({"default_scope": "mmseg", "model": model, **loaders})


def image_gone(place: Place) -> Expected:
    place.image.unlink()
    return Expected("error", "missing", (place.stem, "have no image"))


def mask_gone(place: Place) -> Expected:
    place.mask.unlink()
    return Expected("error", "missing", (place.stem, "have no mask"))


def link_leads_nowhere(place: Place) -> Expected:
    place.image.unlink()
    place.image.symlink_to(place.root / "gone.jpg")
    return Expected("error", "missing", (place.stem,))


def image_empty(place: Place) -> Expected:
    place.image.write_bytes(b"")
    return Expected("error", "undecodable", (str(place.image),))


def mask_empty(place: Place) -> Expected:
    place.mask.write_bytes(b"")
    return Expected("error", "undecodable", (str(place.mask),))


def image_cut(place: Place) -> Expected:
    content = place.image.read_bytes()
    place.image.write_bytes(content[: int(len(content) * place.random.uniform(0.5, 0.9))])
    return Expected("error", "undecodable", (str(place.image),))


def mask_cut(place: Place) -> Expected:
    content = place.mask.read_bytes()
    place.mask.write_bytes(content[: int(len(content) * place.random.uniform(0.3, 0.9))])
    return Expected("error", "undecodable", (str(place.mask),))


def mask_damaged(place: Place) -> Expected:
    content = bytearray(place.mask.read_bytes())
    middle = content.index(b"IDAT") + 6
    content[middle : middle + 8] = b"\xff" * 8
    place.mask.write_bytes(bytes(content))
    return Expected("error", "undecodable", (str(place.mask),))


def image_is_text(place: Place) -> Expected:
    place.image.write_text("<html>404</html>")
    return Expected("error", "undecodable", (str(place.image),))


def mask_is_text(place: Place) -> Expected:
    place.mask.write_text("<html>404</html>")
    return Expected("error", "undecodable", (str(place.mask),))


def mask_in_colours(place: Place) -> Expected:
    cv2.imwrite(str(place.mask), place.labels()[..., None].repeat(3, axis=2))
    return Expected("error", "undecodable", (str(place.mask), "RGB"))


def mask_with_alpha(place: Place) -> Expected:
    cv2.imwrite(str(place.mask), place.labels()[..., None].repeat(4, axis=2))
    return Expected("error", "undecodable", (str(place.mask), "RGBA"))


def mask_of_fractions(place: Place) -> Expected:
    Image.fromarray(place.labels().astype(np.float32)).save(place.mask, format="TIFF")
    return Expected("error", "undecodable", (str(place.mask), "mode F"))


def _number(place: Place, number: int, dtype: type) -> Expected:
    labels = place.labels().astype(dtype)
    row, column = place.pixel(labels)
    labels[row, column] = number
    Image.fromarray(labels).save(place.mask, format="TIFF" if dtype is np.int32 else "PNG")
    return Expected("error", "label", (str(place.mask), f"{number},", f"row {row}, column {column}"))


def number_one_too_high(place: Place) -> Expected:
    return _number(place, 3, np.uint8)


def number_of_8_bits(place: Place) -> Expected:
    return _number(place, int(place.random.integers(4, 255)), np.uint8)


def number_that_wraps_to_a_class(place: Place) -> Expected:
    return _number(place, 256 + int(place.random.integers(3)), np.uint16)


def number_of_16_bits(place: Place) -> Expected:
    return _number(place, int(place.random.integers(260, 65536)), np.uint16)


def number_below_zero(place: Place) -> Expected:
    return _number(place, -int(place.random.integers(1, 1000)), np.int32)


def number_of_32_bits(place: Place) -> Expected:
    return _number(place, 65536 + int(place.random.integers(3)), np.int32)


def mask_resampled_smoothly(place: Place) -> Expected:
    labels = place.labels()
    labels[:3, :3] = [[0, 120, 255], [0, 120, 255], [0, 120, 255]]
    cv2.imwrite(str(place.mask), labels)
    return Expected("error", "label", (str(place.mask), "120,", "row 0, column 1 and 2 more pixels"))


def mask_wider(place: Place) -> Expected:
    labels = np.pad(place.labels(), ((0, 0), (0, 1)))
    cv2.imwrite(str(place.mask), labels)
    return Expected("error", "size", (str(place.image), str(place.mask), f"{labels.shape[0]} x {labels.shape[1]}"))


def mask_turned(place: Place) -> Expected:
    labels = np.pad(place.labels(), ((0, 9), (0, 0)))
    cv2.imwrite(str(place.image), place.random.integers(0, 256, (*labels.shape, 3), np.uint8))
    if labels.shape[0] == labels.shape[1]:
        labels = labels[:-1]
    cv2.imwrite(str(place.mask), labels.T)
    return Expected("error", "size", (str(place.image), str(place.mask)))


def image_turned_by_its_camera(place: Place) -> Expected:
    size = place.labels().shape
    labels = np.pad(place.labels(), ((0, 3 if size[0] == size[1] else 0), (0, 0)))
    cv2.imwrite(str(place.mask), labels)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = place.random.integers(0, 256, (*labels.shape, 3), np.uint8)
    Image.fromarray(pixels).save(place.image, exif=exif)
    return Expected("error", "size", (str(place.image), str(place.mask)))


def class_never_occurs(place: Place) -> Expected:
    absent = int(place.random.integers(3))
    for path in (place.root / place.split / "masks").iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == absent, 255, labels))
    return Expected("warning", "class", (CLASSES[absent],))


def every_pixel_ignored(place: Place) -> Expected:
    for path in (place.root / place.split / "masks").iterdir():
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 255))
    return Expected("error", "class", ("every pixel is ignored",))


def head_for_other_data(place: Place) -> Expected:
    place.config.model.decode_head.num_classes = 150
    message = ("model.decode_head.num_classes=150", "3 classes (sky, road, tree)")
    return Expected("error", "num_classes", message, "train, val, test")


def auxiliary_head_for_other_data(place: Place) -> Expected:
    place.config.model.auxiliary_head[1].num_classes = 2
    return Expected("error", "num_classes", ("model.auxiliary_head.1.num_classes=2",), "train, val, test")


def evaluated_image_trained_on(place: Place) -> Expected:
    other = "val" if place.split == "train" else place.split
    shutil.copy(place.root / other / "images" / f"{place.stem}.jpg", place.root / "train" / "images" / "z.jpg")
    shutil.copy(place.root / other / "masks" / f"{place.stem}.png", place.root / "train" / "masks" / "z.png")
    with (place.root / "train.txt").open("a") as file:
        file.write("z\n")
    names = ("train/images/z.jpg", f"{other}/images/{place.stem}.jpg")
    return Expected("error", "duplicate", names, f"train, {other}")


def evaluated_twice(place: Place) -> Expected:
    for folder, suffix in (("images", "jpg"), ("masks", "png")):
        source = place.root / "val" / folder / f"{place.stem}.{suffix}"
        shutil.copy(source, place.root / "test" / folder / f"{place.stem}.{suffix}")
    names = (f"val/images/{place.stem}.jpg", f"test/images/{place.stem}.jpg")
    return Expected("warning", "duplicate", names, "val, test")


def listed_twice(place: Place) -> Expected:
    with (place.root / f"{place.split}.txt").open("a") as file:
        file.write(f"{place.stem}\n")
    return Expected("warning", "duplicate", (str(place.image), "2 times"))


def listed_but_nowhere(place: Place) -> Expected:
    with (place.root / f"{place.split}.txt").open("a") as file:
        file.write("elsewhere\n")
    return Expected("error", "missing", ("elsewhere", "have no image"))


def list_empty(place: Place) -> Expected:
    (place.root / f"{place.split}.txt").write_text("\n")
    return Expected("error", "dataset", (f"{place.split}.txt names no sample",))


def list_gone(place: Place) -> Expected:
    (place.root / f"{place.split}.txt").unlink()
    return Expected("error", "missing", (f"{place.split}.txt",))


def folder_gone(place: Place) -> Expected:
    shutil.rmtree(place.root / place.split / "masks")
    return Expected("error", "missing", (f"{place.split}/masks",))


def suffix_that_no_file_has(place: Place) -> Expected:
    place.config[f"{place.split}_dataloader"].dataset.image_suffix = ".jpeg"
    return Expected("error", "dataset", ("'.jpeg'", "4 .jpg"))


def classes_in_another_order(place: Place) -> Expected:
    other = place.split if place.split != "train" else "val"
    place.config[f"{other}_dataloader"].dataset.classes = ("road", "sky", "tree")
    return Expected("error", "num_classes", ("different classes", "'sky'", "'road'"), f"train, {other}")


def option_that_nothing_knows(place: Place) -> Expected:
    place.config[f"{place.split}_dataloader"].dataset.ignore = 7
    return Expected("error", "dataset", ("dataset.ignore", "takes no 'ignore'; nearest: ignore_index"))


FAULTS: list[Callable[[Place], Expected]] = [
    image_gone, mask_gone, link_leads_nowhere, image_empty, mask_empty, image_cut, mask_cut, mask_damaged,
    image_is_text, mask_is_text, mask_in_colours, mask_with_alpha, mask_of_fractions, number_one_too_high,
    number_of_8_bits, number_that_wraps_to_a_class, number_of_16_bits, number_below_zero, number_of_32_bits,
    mask_resampled_smoothly, mask_wider, mask_turned, image_turned_by_its_camera, class_never_occurs,
    every_pixel_ignored, head_for_other_data, auxiliary_head_for_other_data, evaluated_image_trained_on,
    evaluated_twice, listed_twice, listed_but_nowhere, list_empty, list_gone, folder_gone, suffix_that_no_file_has,
    classes_in_another_order, option_that_nothing_knows,
]  # fmt: skip
DECODED = {image_cut}  # found by --decode alone
FOLLOWED = {  # what else the fault means: a class order that differs also differs from test's, ...
    classes_in_another_order: {("error", "num_classes")},
    listed_but_nowhere: {("error", "missing")},  # its mask is missing as well
}


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """mmengine collects garbage at every data set that it opens: not among all that torch consists of."""
    gc.freeze()
    yield
    gc.unfreeze()


def found_by(report: ConfigReport, expected: Expected) -> bool:
    return any(
        (finding.level, finding.kind) == (expected.level, expected.kind)
        and split == expected.split
        and all(name in f"{finding} {' '.join(finding.cases)}" for name in expected.names)
        for split, finding in report.findings
    )


def shown(report: ConfigReport) -> str:
    return "\n".join(f"{finding.level} {finding.kind} {split}: {finding}" for split, finding in report.findings)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_nothing_else(fault: Callable[[Place], Expected], tmp_path: Path) -> None:
    _find(fault, SEEDS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_wherever_it_lies(fault: Callable[[Place], Expected], tmp_path: Path) -> None:
    _find(fault, range(len(SEEDS), 20), tmp_path)


def _find(fault: Callable[[Place], Expected], seeds: range, tmp_path: Path) -> None:
    for seed in seeds:
        random = np.random.default_rng(seed)
        root = tmp_path / str(seed)
        write_tree(root, random)
        place = Place(root, SPLITS[seed % 3], STEMS[random.integers(4)], random, config_of(root))
        expected = fault(place)
        if expected.split == "train":
            expected.split = place.split
        report = check_data(place.config, decode=fault in DECODED or seed % 2 == 0)
        assert found_by(report, expected), f"seed {seed}: {expected} is not in\n{shown(report)}"
        kinds = {(finding.level, finding.kind) for _, finding in report.findings}
        assert kinds == {(expected.level, expected.kind), *FOLLOWED.get(fault, set())}, shown(report)
        others = [split for split, _ in report.findings if split != expected.split]
        assert not others or fault in FOLLOWED, shown(report)


def test_faults_were_counted() -> None:
    assert len(FAULTS) * 20 >= 500
    assert len({fault.__name__ for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("seed", range(10))
def test_many_faults_at_once_are_all_found(seed: int, tmp_path: Path) -> None:
    """A fault a sample, in all three splits: one does not hide another."""
    of_one_pair = [fault for fault in FAULTS if fault.__name__.startswith(("image_", "mask_", "number_"))]
    random = np.random.default_rng(seed)
    write_tree(tmp_path / "data", random)
    config = config_of(tmp_path / "data")
    expected = []
    for split in SPLITS:
        for stem in STEMS[:3]:
            fault = of_one_pair[random.integers(len(of_one_pair))]
            expected.append(fault(Place(tmp_path / "data", split, stem, random, config)))
            expected[-1].split = split
    report = check_data(config, decode=True)
    for one in expected:
        assert found_by(report, one), f"{one} is not in\n{shown(report)}"
    files = {name for one in expected for name in one.names if name.startswith("/")}
    named = " ".join(case for _, finding in report.findings for case in finding.cases)
    clean = [f"{split}/masks/d.png" for split in SPLITS]
    assert all(name in named for name in files)
    assert not any(name in named for name in clean)
