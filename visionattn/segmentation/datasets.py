"""Images with label masks: mmseg's dataset, whose files are looked for and whose labels are checked before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmseg.datasets import ADE20KDataset, BaseSegDataset

from visionattn.data.ade20k_scenes import is_written, write_ade20k
from visionattn.data.scenes import SCENE_CLASSES, SCENE_PALETTE
from visionattn.registry import DATASETS
from visionattn.segmentation.labels import IGNORE, LabelCheck, check_labels, label_map_items, label_table


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
        ann_file: a text file with one stem a line; every image of the folder if "".
        pipeline: transforms, as config dicts.
        test_mode: evaluation; never replaces a sample.
        indices: the first n samples, or those of these positions.
        lazy_init: leaves the files alone until the first access.
    Raises:
        FileNotFoundError: a folder, or the partner of a file, is missing.
        ValueError: no file ends in the suffix; the ignored number is also a class.
    """

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
        ann_file: str = "",
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        metainfo = {key: value for key, value in (("classes", classes), ("palette", palette)) if value is not None}
        if not (classes or self.METAINFO.get("classes")):
            raise ValueError(f'{type(self).__name__} needs the names of its classes: classes=("wall", "door", ...)')
        self.file_ignore_index = ignore_index
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
        """(number after reduce_zero_label -> label) where they differ: ignored numbers and classes not chosen."""
        numbers = self.METAINFO.get("classes") or self.classes
        if self.file_ignore_index in range(len(numbers)) and not self.reduce_zero_label:
            raise ValueError(
                f"ignore_index={self.file_ignore_index} is also the class {numbers[self.file_ignore_index]!r}; "
                "use reduce_zero_label=True where 0 is left out and 1 is the first class, else another number"
            )
        return {**(self.label_map or {}), self.file_ignore_index - self.reduce_zero_label: IGNORE}

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
        """The data list of the complete pairs; and lines that say which others are not complete, with all their stems.

        Raises:
            FileNotFoundError: a folder or the list is missing.
            ValueError: no file ends in the suffix, or the list is empty.
        """
        images, masks = (Path(self.data_prefix[key]) for key in ("img_path", "seg_map_path"))
        for folder in (images, masks):
            if not folder.is_dir():
                raise FileNotFoundError(self._missing(folder))
        stems = _stems(images, self.img_suffix, "image_suffix")
        mask_stems = _stems(masks, self.seg_map_suffix, "mask_suffix")
        there, labelled = set(stems), set(mask_stems)
        if self.ann_file:
            stems, named = self._listed(), f"named in {self.ann_file}"
            lacking = [
                (set(stems) - there, named, "image", images),
                (set(stems) - labelled, named, "mask", masks),
            ]
        else:
            lacking = [
                (there - labelled, f"image files of {images}", "mask", masks),
                (labelled - there, f"masks of {masks}", "image", images),
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
        return infos, {_no_partner(*which): sorted(which[0]) for which in lacking if which[0]}

    def pairs(self) -> list[tuple[str, str]]:
        """(image file, mask file) of every sample."""
        infos = (self.get_data_info(i) for i in range(len(self)))
        return [(info["img_path"], info["seg_map_path"]) for info in infos]

    def check(self, limit: int = 2000) -> LabelCheck:
        """Reads up to `limit` masks before training; see `check_labels` for what it refuses."""
        return check_labels(self.pairs(), self.label_table(), limit=limit)

    def _listed(self) -> list[str]:
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(self._missing(Path(self.ann_file)))
        stems = [line.strip() for line in Path(self.ann_file).read_text().splitlines() if line.strip()]
        if not stems:
            raise ValueError(f"{self.ann_file} names no sample; it holds one stem a line")
        return stems

    def _missing(self, path: Path) -> str:
        return (
            f"{type(self).__name__} found no {path} (data_root={self.data_root!r}); name the folder that has it by "
            "--cfg-options data_root=PATH, or make one without any download: visionattn data synth ade20k OUT"
        )


@DATASETS.register_module()
class CamVid(ImageMaskFolder):
    """CamVid in the SegNet split: 11 classes, 480x360, 11 = void (ignored).

        data_root/images/{train,val,test}/*.jpg     data_root/annotations/{train,val,test}/*.png
        data_root/{train,val,test}.txt              one stem a line

    Args:
        split: "train", "val" or "test"; the file `split`.txt and the folders of this name.
        The others: as of `ImageMaskFolder`.
    """

    METAINFO = {
        "classes": (
            "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian",
            "Bicyclist",
        ),
        "palette": [
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
            [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
        ],
    }  # fmt: skip

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        image_suffix: str = ".jpg",
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        super().__init__(
            data_root,
            f"images/{split}",
            f"annotations/{split}",
            classes=classes,
            image_suffix=image_suffix,
            ignore_index=11,
            ann_file=f"{split}.txt",
            pipeline=pipeline,
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )


@DATASETS.register_module()
class ADE20K(ImageMaskFolder):
    """ADE20K as ADEChallengeData2016 has it: 150 classes by mmseg's metadata, 0 in a mask is ignored.

        data_root/images/{training,validation}/*.jpg     data_root/annotations/{training,validation}/*.png

    Args:
        split: "training" or "validation".
        The others: as of `ImageMaskFolder`.
    """

    METAINFO = ADE20KDataset.METAINFO

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        super().__init__(
            data_root,
            f"images/{split}",
            f"annotations/{split}",
            classes=classes,
            reduce_zero_label=True,
            pipeline=pipeline,
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )


@DATASETS.register_module()
class MadeUpADE20K(ADE20K):
    """Made-up scenes in ADE20K's layout; a tree that is missing is written first, at its usual size.

    A tree of another size: `visionattn data synth ade20k OUT`.
    """

    METAINFO = {"classes": SCENE_CLASSES, "palette": [list(color) for color in SCENE_PALETTE]}

    def load_data_list(self) -> list[dict[str, Any]]:
        if not is_written(self.data_root):
            print_log(f"writing made-up scenes to {self.data_root}", logger="current")
            write_ade20k(self.data_root)
        return super().load_data_list()


def _stems(folder: Path, suffix: str, option: str) -> list[str]:
    """Paths below `folder` without the suffix, sorted."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    stems = sorted(name[: len(name) - len(suffix)] for name in files if name.endswith(suffix))
    if not stems:
        there = Counter(Path(name).suffix for name in files).most_common(3)
        has = ", ".join(f"{count} {ending}" for ending, count in there) or "no file at all"
        raise ValueError(f"no file in {folder} ends in {suffix!r} (there are: {has}); set {option}")
    return stems


def _no_partner(stems: set[str], which: str, partner: str, folder: Path) -> str:
    """A line that names the first of such stems."""
    named = ", ".join(sorted(stems)[:5]) + (", ..." if len(stems) > 5 else "")
    return (
        f"{len(stems)} {which} have no {partner} in {folder}: {named}; add the files, or list the complete pairs "
        "in a text file (ann_file)"
    )
