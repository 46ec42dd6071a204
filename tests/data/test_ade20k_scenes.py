"""Made-up scenes: what is in them, and the folder they are written to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.data import ade20k_scenes, made_up_folder
from visionattn.data.ade20k_scenes import SCENE_CLASSES, SCENE_PALETTE, is_written, render_scene, write_ade20k
from visionattn.data.colour_baseline import colour_classifier_miou
from visionattn.data.made_up_folder import RECORD
from visionattn.data.scene_drawing import draw_scene
from visionattn.data.scenes import Scene, Thing, class_label, compose_scene, thing_class
from visionattn.data.shapes import OUTLINES, cover

Pairs = list[tuple[np.ndarray, np.ndarray]]


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return [render_scene(np.random.default_rng([7, i])) for i in range(120)]


def test_every_class_and_some_ignored_pixels_occur(pairs: Pairs) -> None:
    counts = np.stack([np.bincount(labels.ravel(), minlength=len(SCENE_CLASSES) + 1) for _, labels in pairs])
    assert counts.shape[1] == len(SCENE_CLASSES) + 1, "a label outside the classes"
    shares = counts.sum(axis=0) / counts.sum()
    assert 0.002 < shares[0] < 0.05
    assert (shares[1:] > 0.01).all(), dict(zip(SCENE_CLASSES, shares[1:], strict=True))
    assert ((counts > 0).mean(axis=0)[1:] > 0.1).all(), "a class is in less than a tenth of the pictures"


def test_images_fit_their_labels() -> None:
    image, labels = render_scene(np.random.default_rng(0), (97, 141))
    assert (image.shape, image.dtype, labels.shape, labels.dtype) == ((97, 141, 3), np.uint8, (97, 141), np.uint8)
    assert image.std() > 10


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (130, 217), (256, 300)])
def test_objects_are_whole_visible_and_of_a_sensible_size(size: tuple[int, int]) -> None:
    seen = 0
    for i in range(25):
        scene = compose_scene(np.random.default_rng([1, i]), size)
        hidden = np.zeros(size, bool)
        for thing in reversed(scene.things):  # from the front to the back
            window, mask = cover(thing.polygon(), size)
            body = np.zeros(size, bool)
            body[window] = mask > 0.5
            rows, columns = np.nonzero(body)
            sides = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert min(sides) >= 24 * max(1, min(size) / 128)
            assert max(sides) <= 0.65 * min(size)
            polygon = thing.polygon()
            assert polygon.min() >= 0
            assert (polygon.max(axis=0) <= size[::-1]).all()
            assert (body & ~hidden).sum() >= 0.78 * body.sum()
            hidden |= body
            seen += 1
    assert seen >= (25 if min(size) < 128 else 60)  # no more fit into the smallest scenes


def test_shape_colour_and_ground_decide() -> None:
    table = {
        (outline, warm, ground): thing_class(outline, warm, ground)
        for outline in OUTLINES
        for warm in (False, True)
        for ground in ("meadow", "water", "paving")
    }
    changes = {  # what alone can change the class of a shape
        outline: {
            name
            for position, name in ((1, "colour"), (2, "ground"))
            for a in table
            for b in table
            if a[0] == b[0] == outline and all(a[k] == b[k] for k in (1, 2) if k != position) and table[a] != table[b]
        }
        for outline in OUTLINES
    }
    assert changes == {"disk": {"ground"}, "square": set(), "triangle": {"ground"}, "star": set(), "flower": {"colour"}}
    assert set(table.values()) == set(SCENE_CLASSES[3:])


def _scene(*things: Thing, grounds: tuple[str, ...] = ("meadow",)) -> Scene:
    return Scene((128, 128), grounds, things, seed=3)


def _thing(outline: str, x: float, y: float, extent: float = 30.0) -> Thing:
    return Thing(outline, (0.8, 0.2, 0.3), True, (x, y), extent, 0.0, texture=5)


def test_the_ground_alone_makes_a_triangle_tent_or_sail() -> None:
    triangle = _thing("triangle", 64, 64)
    pictures = [draw_scene(_scene(triangle, grounds=(ground,))) for ground in ("meadow", "water", "paving")]
    images, labels = zip(*pictures, strict=True)
    window, mask = cover(triangle.polygon(), (128, 128))
    inside = mask == 1
    for image in images[1:]:
        np.testing.assert_array_equal(image[window][inside], images[0][window][inside])
        assert not np.array_equal(image, images[0])
    assert [SCENE_CLASSES[label[64, 64] - 1] for label in labels] == ["tent", "sail", "tent"]
    assert [SCENE_CLASSES[label[0, 0] - 1] for label in labels] == ["meadow", "water", "paving"]


def test_an_ignored_kerb_parts_two_grounds() -> None:
    for seed in range(5):
        _, labels = draw_scene(Scene((128, 128), ("meadow", "water"), (), seed))
        for a, b in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
            assert ((a == b) | (a == 0) | (b == 0)).all()
        assert set(np.unique(labels)) == {0, class_label("meadow"), class_label("water")}


def test_colour_alone_is_not_enough(pairs: Pairs) -> None:
    reduced = [(image, labels.astype(np.int64) - 1) for image, labels in pairs]
    reduced = [(image, np.where(labels < 0, 255, labels)) for image, labels in reduced]
    for bins in (8, 16, 32, 64):
        miou, _ = colour_classifier_miou(reduced[:90], reduced[90:], len(SCENE_CLASSES), bins=bins)
        assert 0.1 < miou < 0.5, bins


def test_names_and_colours_are_distinct() -> None:
    assert len(SCENE_CLASSES) >= 6
    assert len(set(SCENE_CLASSES)) == len(SCENE_CLASSES) == len(SCENE_PALETTE) == len(set(SCENE_PALETTE))


def test_the_layout_is_that_of_ade20k(tmp_path: Path) -> None:
    out = write_ade20k(tmp_path / "deep" / "ADEChallengeData2016", train=3, val=2, size=(66, 90))
    names = {
        f"{kind}/{split}/ADE_{prefix}_{number:08d}{suffix}"
        for kind, suffix in (("images", ".jpg"), ("annotations", ".png"))
        for split, prefix, count in (("training", "train", 3), ("validation", "val", 2))
        for number in range(1, count + 1)
    }
    assert set(_tree(out)) == names | {"objectInfo150.txt", "made_up.json"}
    assert [p.name for p in out.parent.iterdir()] == [out.name], "something temporary was left"
    image, labels = render_scene(np.random.default_rng([0, 0, 2]), (66, 90))
    stored = cv2.imread(str(out / "images/training/ADE_train_00000002.jpg"))[..., ::-1]
    assert np.abs(stored.astype(int) - image).mean() < 6  # JPEG; another picture or channel order is 20 and more off
    stored = cv2.imread(str(out / "annotations/training/ADE_train_00000002.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, labels)


def test_object_info_counts_what_was_written(tmp_path: Path) -> None:
    out = write_ade20k(tmp_path / "ade", train=4, val=3)
    header, *rows = [line.split("\t") for line in (out / "objectInfo150.txt").read_text().splitlines()]
    assert header == ["Idx", "Ratio", "Train", "Val", "Name"]
    assert [(int(row[0]), row[4]) for row in rows] == list(enumerate(SCENE_CLASSES, start=1))
    maps = {
        split: [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted((out / "annotations" / split).iterdir())]
        for split in ("training", "validation")
    }
    assert {split: len(m) for split, m in maps.items()} == {"training": 4, "validation": 3}
    for index, ratio, train, val, _ in rows:
        assert float(ratio) == pytest.approx(np.mean([m == int(index) for ms in maps.values() for m in ms]), abs=1e-4)
        assert int(train) == sum((m == int(index)).any() for m in maps["training"])
        assert int(val) == sum((m == int(index)).any() for m in maps["validation"])


def test_a_scene_depends_on_seed_split_and_number_alone(tmp_path: Path) -> None:
    few, many = (_tree(write_ade20k(tmp_path / str(n), train=n, val=2, size=(64, 64))) for n in (2, 5))
    shared = [name for name in few if name.startswith(("images", "annotations"))]
    assert len(shared) == 8
    assert all(few[name] == many[name] for name in shared)
    assert len({few[name] for name in shared if name.startswith("images")}) == 4, "two pictures are the same"
    other = _tree(write_ade20k(tmp_path / "other", train=2, val=2, seed=1, size=(64, 64)))
    assert all(few[name] != other[name] for name in shared)


def test_a_folder_made_alike_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_ade20k(tmp_path / "ade", train=1, val=1, size=(64, 64))
    before = _tree(out)
    monkeypatch.setattr(ade20k_scenes, "render_scene", None)  # would fail if called
    assert write_ade20k(str(out), train=1, val=1, size=(64, 64)) == out
    assert _tree(out) == before
    with pytest.raises(FileExistsError, match=r"made with other arguments \(.*train=1.*\); choose another folder"):
        write_ade20k(out, train=2, val=1, size=(64, 64))
    with pytest.raises(FileExistsError, match="other arguments"):
        write_ade20k(out, train=1, val=1, size=(64, 65))


def test_what_is_not_ours_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.jpg").write_bytes(b"dog")
    (tmp_path / "file").write_bytes(b"x")
    before = _tree(tmp_path)
    with pytest.raises(FileExistsError, match="photos is not empty and was not made here; choose another folder"):
        write_ade20k(tmp_path / "photos", train=1, val=1)
    with pytest.raises(FileExistsError, match="file is a file"):
        write_ade20k(tmp_path / "file", train=1, val=1)
    assert _tree(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "ade").mkdir()
    assert len(_tree(write_ade20k(tmp_path / "ade", train=1, val=1, size=(64, 64)))) == 6


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "ade").symlink_to(tmp_path / "disk")
    assert write_ade20k(tmp_path / "ade", train=1, val=1, size=(64, 64)) == tmp_path / "ade"
    assert len(_tree(tmp_path / "disk")) == 6


def test_nothing_is_left_of_an_interrupted_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ade20k_scenes, "render_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_ade20k(tmp_path / "ade", train=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(root / "images"))

    monkeypatch.setattr(ade20k_scenes, "_write_tree", refuse)
    with pytest.raises(PermissionError, match=rf"^\[Errno 13\] Permission denied: '{tmp_path}/ade'$"):
        write_ade20k(tmp_path / "ade", train=1, val=1)
    monkeypatch.undo()
    monkeypatch.setattr("cv2.imwrite", lambda *arguments: False)
    with pytest.raises(OSError, match=rf"cannot be written; is the disk full\?: '{tmp_path}/ade'$"):
        write_ade20k(tmp_path / "ade", train=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_writers_finds_the_folder_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "ade"
    move = made_up_folder._move

    def late(partial: Path, *rest: object) -> None:
        if not out.exists():  # the other one is done between our last look and our move
            monkeypatch.setattr(made_up_folder, "_move", move)
            write_ade20k(out, train=1, val=1, size=(64, 64))
        move(partial, *rest)

    monkeypatch.setattr(made_up_folder, "_move", late)
    assert write_ade20k(out, train=1, val=1, size=(64, 64)) == out
    assert len(_tree(tmp_path)) == 6


def test_processes_at_once_agree(tmp_path: Path) -> None:
    code = "import sys; from visionattn.data.ade20k_scenes import write_ade20k as w; w(sys.argv[1], train=9, val=2)"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "ade")]) for _ in range(3)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["ade"]
    assert json.loads((tmp_path / "ade" / "made_up.json").read_text())["train"] == 9
    assert _tree(tmp_path / "ade") == _tree(write_ade20k(tmp_path / "alone", train=9, val=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, "train=0 must be a whole number of 1 or more"),
        ({"val": -1}, "val=-1 must be a whole number of 1 or more"),
        ({"train": 2.0}, r"train=2\.0 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number of 0 or more"),
        ({"size": (63, 128)}, r"size=\(63, 128\) must be \(height, width\) of 64 pixels or more"),
        ({"size": (128,)}, r"size=\(128,\) must be \(height, width\)"),
        ({"size": (128, 128, 128)}, "size=.* must be"),
        ({"size": (128, 128.0)}, "size=.* must be"),
        ({"size": 128}, "size=128 must be"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_ade20k(tmp_path / "ade", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_scenes_of_an_earlier_version_are_not_taken_for_these(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    assert not is_written(root)
    write_ade20k(root, train=1, val=1)
    assert is_written(root)
    record = json.loads((root / RECORD).read_text())
    (root / RECORD).write_text(json.dumps(record | {"renderer": record["renderer"] - 1}))
    with pytest.raises(FileExistsError, match="scenes of an earlier version; remove the folder"):
        is_written(root)
