"""Images with label masks: mmseg's dataset, whose files are looked for and whose labels are checked before training."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets import BaseSegDataset

from visionattn.registry import DATASETS
from visionattn.segmentation.labels import (
    IGNORE,
    LabelCheck,
    check_labels,
    label_map_items,
    label_table,
    resolve_label_map,
)


@DATASETS.register_module()
class ImageMaskFolder(BaseSegDataset):
    """A folder of images and a folder of masks; a pair has one stem, `stem + suffix` in either (also in sub-folders).

    Args:
        data_root: the folder that `image_dir`, `mask_dir` and `ann_file` are relative to.
        image_dir, mask_dir: the two folders.
        classes: names, in the order of the numbers in the masks; of a subclass with names of its own: a choice of them
            (the others are ignored).
        palette: an RGB triple a class; random if None.
        image_suffix, mask_suffix: how the files' names end.
        ignore_index: the number in the masks that is left out. Once loaded, an ignored pixel is always 255, as mmseg's
            heads and metric expect.
        reduce_zero_label: 0 in the masks is left out and 1 is the first class.
        label_map: what numbers in the masks mean that are not their class's: a class's name or number, or "ignore", as
            `{0: "ignore", 255: "person"}`. A number that is not in it keeps its meaning.
        ann_file: a text file with one stem a line; every image of the folder if "".
        pipeline: transforms, as config dicts.
        test_mode: evaluation; never replaces a sample.
        indices: the first n samples, or those of these positions.
        lazy_init: leaves the files alone until the first access.
    Raises:
        FileNotFoundError: a folder, or the partner of a file, is missing.
        ValueError: no file ends in the suffix; the ignored number is also a class; the label map names no class.
    """

    _STAND_IN = ""  # ends the error about a missing folder: where a data set of the same layout comes from

    def __init__(
        self,
        data_root: str,
        image_dir: str = "images",
        mask_dir: str = "masks",
        *,
        classes: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        image_suffix: str = ".jpg",
        mask_suffix: str = ".png",
        ignore_index: int = IGNORE,
        reduce_zero_label: bool = False,
        label_map: Mapping[int, int | str] | None = None,
        ann_file: str = "",
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        metainfo = {key: value for key, value in (("classes", classes), ("palette", palette)) if value is not None}
        if not (classes or self.METAINFO.get("classes")):
            raise ValueError(f'{type(self).__name__} needs the names of its classes: classes=("wall", "door", ...)')
        if label_map and reduce_zero_label:
            raise ValueError(
                "label_map and reduce_zero_label=True exclude each other; "
                'write the whole map: {0: "ignore", 1: 0, 2: 1, ...}'
            )
        self.file_ignore_index = ignore_index
        self.file_meanings = resolve_label_map(label_map, self.METAINFO.get("classes") or classes)
        super().__init__(
            data_root=data_root,
            data_prefix={"img_path": image_dir, "seg_map_path": mask_dir},
            metainfo=metainfo,
            img_suffix=image_suffix,
            seg_map_suffix=mask_suffix,
            ignore_index=IGNORE,
            reduce_zero_label=reduce_zero_label,
            ann_file=ann_file,
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )

    @property
    def classes(self) -> Sequence[str]:
        return self._metainfo["classes"]

    def file_label_map(self) -> dict[int, int]:
        """(number after reduce_zero_label -> label) where they differ."""
        names = self.METAINFO.get("classes") or self.classes
        ignored = self.file_ignore_index
        given = self.file_meanings
        if ignored != IGNORE and given.get(ignored, IGNORE) != IGNORE:
            raise ValueError(
                f"label_map sends {ignored} to {names[given[ignored]]!r}, and ignore_index={ignored}; drop one"
            )
        if ignored in range(len(names)) and ignored not in given and not self.reduce_zero_label:
            raise ValueError(
                f"ignore_index={ignored} is also the class {names[ignored]!r}; use reduce_zero_label=True where 0 is "
                "left out and 1 is the first class, a label_map that says where its class is, else another number"
            )
        chosen = self.label_map or {}  # class -> label, where there is a choice of classes
        return {
            **chosen,
            ignored - self.reduce_zero_label: IGNORE,
            **{number: chosen.get(meaning, meaning) for number, meaning in given.items()},
        }

    def label_table(self) -> np.ndarray:
        """[65536]: the label of each number in the files; see `labels.label_table`."""
        return label_table(len(self.classes), self.reduce_zero_label, label_map_items(self.file_label_map()))

    def load_data_list(self) -> list[dict[str, Any]]:
        """mmseg's data list, plus `num_classes` for the loader's check."""
        infos, unpaired = self.find_pairs()
        if unpaired:
            raise FileNotFoundError(next(iter(unpaired)))
        return infos

    def find_pairs(self) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        """The data list of the complete pairs; and lines that say which are not, with all files that are missing.

        Raises:
            FileNotFoundError: a folder or the list is missing.
            ValueError: no file ends in the suffix, or the list is empty.
        """
        return self._pairs_in(self.data_prefix["seg_map_path"], self.ann_file)

    def _pairs_in(self, mask_dir: str, ann_file: str) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        """`find_pairs` with masks of this folder and, unless "", stems of this list."""
        images, masks = Path(self.data_prefix["img_path"]), Path(mask_dir)
        for folder in (images, masks):
            if not folder.is_dir():
                raise FileNotFoundError(self._missing(folder))
        stems = _stems(images, self.img_suffix, "image_suffix")
        mask_stems = _stems(masks, self.seg_map_suffix, "mask_suffix")
        there, labelled = set(stems), set(mask_stems)
        if ann_file:
            stems, named = self._listed(ann_file), f"named in {ann_file}"
            lacking = [
                (set(stems) - there, self.img_suffix, named, "image", images),
                (set(stems) - labelled, self.seg_map_suffix, named, "mask", masks),
            ]
        else:
            lacking = [
                (there - labelled, self.seg_map_suffix, f"image files of {images}", "mask", masks),
                (labelled - there, self.img_suffix, f"masks of {masks}", "image", images),
            ]
        common = {
            "label_map": self.file_label_map(),
            "reduce_zero_label": self.reduce_zero_label,
            "num_classes": len(self.classes),
        }
        infos = [
            dict(
                img_path=str(images / (stem + self.img_suffix)),
                seg_map_path=str(masks / (stem + self.seg_map_suffix)),
                seg_fields=[],
                **common,
            )
            for stem in stems
            if stem in there and stem in labelled
        ]
        lines = {}
        for lone, suffix, which, partner, folder in lacking:
            gone = sorted(stem + suffix for stem in lone)
            if gone:
                lines[_no_partner(gone, which, partner, folder)] = gone
        return infos, lines

    def pairs(self) -> list[tuple[str, str]]:
        """(image file, mask file) of every sample."""
        infos = (self.get_data_info(i) for i in range(len(self)))
        return [(info["img_path"], info["seg_map_path"]) for info in infos]

    def check(self, limit: int = 2000) -> LabelCheck:
        """Reads up to `limit` masks before training; see `check_labels` for what it refuses."""
        return check_labels(self.pairs(), self.label_table(), limit=limit)

    def _listed(self, ann_file: str) -> list[str]:
        if not Path(ann_file).is_file():
            raise FileNotFoundError(self._missing(Path(ann_file)))
        stems = [line.strip() for line in Path(ann_file).read_text().splitlines() if line.strip()]
        if not stems:
            raise ValueError(f"{ann_file} names no sample; it holds one stem a line")
        return stems

    def _missing(self, path: Path) -> str:
        return (
            f"{type(self).__name__} found no {path} (data_root={self.data_root!r}); name the folder that has it by "
            f"--cfg-options data_root=PATH{self._STAND_IN}"
        )


def _stems(folder: Path, suffix: str, option: str) -> list[str]:
    """Paths below `folder` without the suffix, sorted."""
    files = []
    for parent, _, names in os.walk(folder, followlinks=True):
        inside = Path(parent).relative_to(folder).as_posix()
        files += names if inside == "." else [f"{inside}/{name}" for name in names]
    stems = sorted(name[: len(name) - len(suffix)] for name in files if name.endswith(suffix))
    if not stems:
        there = Counter(Path(name).suffix for name in files).most_common(3)
        has = ", ".join(f"{count} {ending}" for ending, count in there) or "no file at all"
        raise ValueError(f"no file in {folder} ends in {suffix!r} (there are: {has}); set {option}")
    return stems


def _no_partner(gone: list[str], which: str, partner: str, folder: Path) -> str:
    """A line that names the first of the files that are missing; one stem may stand for several kinds of file."""
    named = ", ".join(gone[:5]) + (", ..." if len(gone) > 5 else "")
    return (
        f"{len(gone)} {which} have no {partner}: {folder} lacks {named}; add the files, or list the complete pairs "
        "in a text file (ann_file)"
    )
