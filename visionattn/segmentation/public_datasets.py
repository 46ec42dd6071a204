"""Public data sets as their makers, or mmseg's converters, lay them out; classes and palettes are mmseg's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmseg.datasets import (
    ADE20KDataset,
    CityscapesDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)

from visionattn.registry import DATASETS
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.labels import IGNORE


@dataclass(frozen=True)
class Layout:
    """Where a data set's files are, `{split}` being replaced, and what the numbers in its masks mean.

    The names are those of `ImageMaskFolder`'s arguments.
    """

    image_dir: str
    mask_dir: str
    ann_file: str = ""
    image_suffix: str = ".jpg"
    mask_suffix: str = ".png"
    ignore_index: int = IGNORE
    reduce_zero_label: bool = False
    label_map: Mapping[int, int | str] = field(default_factory=dict)
    converter: str = ""
    """The script of mmseg's tools/dataset_converters that writes the masks or lists, where the download lacks them."""


class PublicDataset(ImageMaskFolder):
    """A data set with a layout and classes of its own: a subclass says LAYOUT and METAINFO.

    Args:
        split: which part, by the names that the data set itself uses.
        image_suffix: of a copy of the images in another format.
        The others: as of `ImageMaskFolder`.
    """

    LAYOUT: Layout

    def __init__(
        self,
        data_root: str,
        split: str,
        *,
        classes: Sequence[str] | None = None,
        image_suffix: str | None = None,
        pipeline: Sequence[dict[str, Any] | Callable[..., Any]] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        layout = self.LAYOUT
        super().__init__(
            data_root,
            layout.image_dir.format(split=split),
            layout.mask_dir.format(split=split),
            classes=classes,
            image_suffix=image_suffix or layout.image_suffix,
            mask_suffix=layout.mask_suffix,
            ignore_index=layout.ignore_index,
            reduce_zero_label=layout.reduce_zero_label,
            label_map=layout.label_map,
            ann_file=layout.ann_file.format(split=split),
            pipeline=pipeline,
            test_mode=test_mode,
            indices=indices,
            lazy_init=lazy_init,
        )

    def find_pairs(self) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        try:
            return super().find_pairs()
        except (FileNotFoundError, ValueError) as error:
            if not self.LAYOUT.converter:
                raise
            script = f"mmseg's tools/dataset_converters/{self.LAYOUT.converter}"
            raise type(error)(f"{error}; {type(self).__name__} needs what {script} writes") from error


@DATASETS.register_module()
class ADE20K(PublicDataset):
    """ADE20K as ADEChallengeData2016 has it: 150 classes, 0 in a mask is ignored.

    data_root/images/{training,validation}/*.jpg     data_root/annotations/{training,validation}/*.png
    """

    METAINFO = ADE20KDataset.METAINFO
    LAYOUT = Layout("images/{split}", "annotations/{split}", reduce_zero_label=True)
    _STAND_IN = ", or make one without any download: visionattn data synth ade20k OUT"


@DATASETS.register_module()
class CamVid(PublicDataset):
    """CamVid in the SegNet split: 11 classes, 480x360, 11 = void (ignored).

    data_root/images/{train,val,test}/*.jpg     data_root/annotations/{train,val,test}/*.png
    data_root/{train,val,test}.txt              one stem a line
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
    LAYOUT = Layout("images/{split}", "annotations/{split}", "{split}.txt", ignore_index=11)


@DATASETS.register_module()
class Cityscapes(PublicDataset):
    """Cityscapes, fine annotations, 19 classes, as downloaded: the masks with the 34 ids of all labels.

    data_root/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png     data_root/gtFine/{train,val}/CITY/*_gtFine_labelIds.png
    """

    METAINFO = CityscapesDataset.METAINFO
    LAYOUT = Layout(
        "leftImg8bit/{split}",
        "gtFine/{split}",
        image_suffix="_leftImg8bit.png",
        mask_suffix="_gtFine_labelIds.png",
        label_map=dict.fromkeys(range(34), "ignore")
        | {
            7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
            20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
            27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
        },
    )  # fmt: skip


@DATASETS.register_module()
class CityscapesTrainIds(PublicDataset):
    """Cityscapes, fine annotations, after mmseg's cityscapes.py wrote the masks with the 19 ids of the classes.

    data_root/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
    data_root/gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png
    """

    METAINFO = CityscapesDataset.METAINFO
    LAYOUT = Layout(
        "leftImg8bit/{split}",
        "gtFine/{split}",
        image_suffix="_leftImg8bit.png",
        mask_suffix="_gtFine_labelTrainIds.png",
        converter="cityscapes.py",
    )


@DATASETS.register_module()
class COCOStuff164k(PublicDataset):
    """COCO-Stuff 164k, 171 classes, after mmseg's coco_stuff164k.py.

    data_root/images/{train2017,val2017}/*.jpg     data_root/annotations/{train2017,val2017}/*_labelTrainIds.png
    """

    METAINFO = COCOStuffDataset.METAINFO
    LAYOUT = Layout(
        "images/{split}", "annotations/{split}", mask_suffix="_labelTrainIds.png", converter="coco_stuff164k.py"
    )


@DATASETS.register_module()
class COCOStuff10k(PublicDataset):
    """COCO-Stuff 10k, 171 classes, 0 in a mask is ignored, after mmseg's coco_stuff10k.py.

    data_root/images/{train2014,test2014}/*.jpg     data_root/annotations/{train2014,test2014}/*_labelTrainIds.png
    """

    METAINFO = COCOStuffDataset.METAINFO
    LAYOUT = Layout(
        "images/{split}",
        "annotations/{split}",
        mask_suffix="_labelTrainIds.png",
        reduce_zero_label=True,
        converter="coco_stuff10k.py",
    )


@DATASETS.register_module()
class PascalVOC2012(PublicDataset):
    """Pascal VOC 2012 as VOCdevkit/VOC2012 has it: background and 20 classes, 255 = the objects' outlines (ignored).

    data_root/JPEGImages/*.jpg     data_root/SegmentationClass/*.png (colour palette)
    data_root/ImageSets/Segmentation/{train,val,trainval}.txt
    """

    METAINFO = PascalVOCDataset.METAINFO
    LAYOUT = Layout("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/{split}.txt")


@DATASETS.register_module()
class PascalVOC2012Aug(PascalVOC2012):
    """Pascal VOC 2012 and behind it the images that SBD labels (10,582 for training), as mmseg concatenates them.

    Beside what `PascalVOC2012` has, after mmseg's voc_aug.py:
    data_root/SegmentationClassAug/*.png     data_root/ImageSets/Segmentation/aug.txt

    Raises:
        ValueError: split is "val", which SBD's images, made for training, would change.
    """

    LAYOUT = replace(PascalVOC2012.LAYOUT, converter="voc_aug.py")

    def find_pairs(self) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        if Path(self.ann_file).stem == "val":
            raise ValueError('PascalVOC2012Aug is for training; split="val" is PascalVOC2012\'s')
        return super().find_pairs()

    def _pairs_in(self, mask_dir: str, ann_file: str) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
        infos, unpaired = super()._pairs_in(mask_dir, ann_file)
        masks, listed = "SegmentationClassAug", "ImageSets/Segmentation/aug.txt"
        more, more_unpaired = super()._pairs_in(str(Path(self.data_root, masks)), str(Path(self.data_root, listed)))
        return infos + more, unpaired | more_unpaired


@DATASETS.register_module()
class PascalContext59(PublicDataset):
    """Pascal Context, the 59 most frequent classes, 0 = the others (ignored), after mmseg's pascal_context.py.

    data_root/JPEGImages/*.jpg     data_root/SegmentationClassContext/*.png
    data_root/ImageSets/SegmentationContext/{train,val}.txt
    """

    METAINFO = PascalContextDataset59.METAINFO
    LAYOUT = Layout(
        "JPEGImages",
        "SegmentationClassContext",
        "ImageSets/SegmentationContext/{split}.txt",
        reduce_zero_label=True,
        converter="pascal_context.py",
    )


@DATASETS.register_module()
class PascalContext60(PublicDataset):
    """Pascal Context with the other classes as a 60th, `background`; files as of `PascalContext59`."""

    METAINFO = PascalContextDataset.METAINFO
    LAYOUT = replace(PascalContext59.LAYOUT, reduce_zero_label=False)
