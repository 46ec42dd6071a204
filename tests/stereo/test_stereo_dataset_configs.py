"""Every stereo data set's base config: it loads, finds its layout below data_root, and gives packed samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from stereo_trees import write_map, write_scene_flow_frame, write_views

from visionattn.engine.config import load_config
from visionattn.engine.config_check import refuse_unknown
from visionattn.registry import DATASETS, METRICS
from visionattn.stereo.datasets import StereoPairs

FOLDER = Path(__file__).parents[2] / "configs" / "_base_" / "datasets"


def write_pair(left: Path, right: Path, disparity: Path, scale: float = 256) -> None:
    write_views(left, right, 40)
    write_map(disparity, 10, scale)


def scene_flow(root: Path) -> None:
    for part, folder in (("FlyingThings3D", "TRAIN/A/0000"), ("FlyingThings3D", "TEST/A/0000"), ("Monkaa", "lonetree"),
                         ("Driving", "15mm_focallength/scene_forwards/fast")):  # fmt: skip
        write_scene_flow_frame(root / part / "frames_finalpass", root / part / "disparity", folder, "0006")


def kitti2012(root: Path) -> None:
    training = root / "training"
    for frame in (5, 185):
        name = f"{frame:06}_10.png"
        write_pair(training / "colored_0" / name, training / "colored_1" / name, training / "disp_occ" / name)
        write_map(training / "disp_noc" / name, 10)


def kitti2015(root: Path) -> None:
    training = root / "training"
    for frame in (5, 184):
        name = f"{frame:06}_10.png"
        write_pair(training / "image_2" / name, training / "image_3" / name, training / "disp_occ_0" / name)
        write_map(training / "disp_noc_0" / name, 10)


def middlebury(root: Path) -> None:
    scene = root / "trainingH" / "Piano"
    write_pair(scene / "im0.png", scene / "im1.png", scene / "disp0GT.pfm")


def eth3d(root: Path) -> None:
    scene, truth = root / "two_view_training" / "forest_1s", root / "two_view_training_gt" / "forest_1s"
    write_pair(scene / "im0.png", scene / "im1.png", truth / "disp0GT.pfm")


def instereo2k(root: Path) -> None:
    for split in ("train", "test"):
        scene = root / split / "000040"
        write_pair(scene / "left.png", scene / "right.png", scene / "left_disp.png", 100)


def stereo_lists(root: Path) -> None:
    write_pair(root / "left.png", root / "right.png", root / "disparity.png")
    for name in ("train.txt", "val.txt"):
        (root / name).write_text("left.png right.png disparity.png\n")


TREES: dict[str, tuple[Callable[[Path], None], tuple[int, int]]] = {  # pairs to train and to evaluate on
    "sceneflow": (scene_flow, (3, 1)),
    "kitti2012": (kitti2012, (1, 1)),
    "kitti2015": (kitti2015, (1, 1)),
    "middlebury": (middlebury, (0, 1)),
    "eth3d": (eth3d, (0, 1)),
    "instereo2k": (instereo2k, (1, 1)),
    "stereo_lists": (stereo_lists, (1, 1)),
}


def test_every_stereo_config_has_a_tree() -> None:
    found = {
        path.stem
        for path in FOLDER.glob("*.py")
        if any(f'"visionattn.{cls.__name__}"' in path.read_text() for cls in StereoPairs.__subclasses__())
    }
    assert found == set(TREES)


@pytest.mark.parametrize("name", TREES)
def test_its_data_sets_are_built_and_read(name: str, tmp_path: Path) -> None:
    write, numbers = TREES[name]
    write(tmp_path)
    config = load_config(FOLDER / f"{name}.py", {"data_root": str(tmp_path)})
    config.default_scope = "mmengine"
    refuse_unknown(config)
    with DefaultScope.overwrite_default_scope("mmengine"):
        assert ("train_dataloader" in config) == bool(numbers[0])
        for part, number, size in (("train", numbers[0], (256, 512)), ("val", numbers[1], (5, 8))):
            if number:
                dataset = DATASETS.build(config[f"{part}_dataloader"].dataset)
                assert len(dataset) == number
                packed = dataset[0]
                assert tuple(packed["inputs"]["left"].shape[1:]) == size
                assert packed["data_samples"].valid.any()
        METRICS.build(config.val_evaluator)
    assert config.test_dataloader == config.val_dataloader


@pytest.mark.parametrize(("name", "split"), [("kitti2015", "testing"), ("middlebury", "testQ"), ("eth3d", "test")])
def test_the_benchmarks_pairs_by_one_option(name: str, split: str) -> None:
    config = load_config(FOLDER / f"{name}.py", {"test_dataloader.dataset.split": split})
    assert config.test_dataloader.dataset.split == split
    assert config.val_dataloader.dataset.split != split
