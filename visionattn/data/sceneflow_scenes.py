"""Made-up stereo scenes in the layout of Scene Flow's FlyingThings3D."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from visionattn.data.made_up_folder import make_folder, whole_number
from visionattn.data.pfm import write_pfm
from visionattn.data.stereo_camera import final_pass
from visionattn.data.stereo_drawing import StereoViews, render_stereo
from visionattn.data.stereo_scenes import SMALLEST_SIDE

RENDERER = 1
"""Raised when the same numbers make other pictures."""

_SPLITS = (("TRAIN", 0), ("TEST", 1))
_MASK = (cv2.IMWRITE_PNG_COMPRESSION, 1)
# Pictures: differences along the rows, and no search for what repeats. As small as with _MASK's, in half the time.
# Older versions of OpenCV have no such option and try every filter.
_BY_ROWS = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB) if hasattr(cv2, "IMWRITE_PNG_FILTER") else ()
_PICTURE = (*_MASK, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY, *_BY_ROWS)


def stereo_views(
    seed: int, index: int, size: tuple[int, int], max_disparity: float, split: int = 0, crowd: float = 1.0
) -> StereoViews:
    """Both views of the scene with this number, without noise or blur. Scenes of another split are others."""
    return render_stereo(np.random.default_rng([seed, split, index]), size, max_disparity, crowd)


def in_final_pass(views: StereoViews, seed: int, index: int, asymmetry: float, split: int = 0) -> StereoViews:
    """The scene with this number as two cameras see it; `final_pass` says what `asymmetry` is."""
    left, right = final_pass(np.random.default_rng([seed, split, index, 1]), views, asymmetry)
    return views._replace(left=left, right=right)


def write_sceneflow(
    out: Path | str,
    *,
    scenes: int = 200,
    test: int = 20,
    seed: int = 0,
    size: tuple[int, int] = (540, 960),
    max_disparity: float = 192.0,
    asymmetry: float = 0.3,
) -> Path:
    """The folder `out`, filled with made-up pairs as Scene Flow is with rendered ones.

        out/FlyingThings3D/frames_cleanpass/TRAIN/A/0000/left/0006.png       (8 bits, RGB; right/ beside left/)
        out/FlyingThings3D/frames_finalpass/TRAIN/A/0000/left/0006.png       (with haze, glare, blur, exposure, noise)
        out/FlyingThings3D/disparity/TRAIN/A/0000/left/0006.pfm              (pixels, positive in both views)
        out/FlyingThings3D/disparity_occlusions/TRAIN/A/0000/left/0006.png   (255: the other view does not see it)

    One folder a scene, with one frame; TEST likewise. A scene depends on seed, split, number, size and max_disparity
    alone: more scenes leave the first ones as they are. The folder appears when it is complete; one that was made with
    the same arguments is left as it is.

    Args:
        out: made with its parents; may exist and be empty.
        scenes, test: pairs in TRAIN and in TEST.
        seed: 0 or more.
        size: height and width of each view in pixels.
        max_disparity: all disparities are below it.
        asymmetry: how far the two cameras of the final pass differ, 0 to 1.
    Raises:
        ValueError: an argument's value.
        FileExistsError: `out` holds something else.
        OSError: `out` cannot be written.
    """
    counts = whole_number("scenes", scenes, 1), whole_number("test", test, 0)
    whole_number("seed", seed, 0)
    check_scene(size, max_disparity, asymmetry)
    record = {
        "layout": "sceneflow", "renderer": RENDERER, "scenes": scenes, "test": test, "seed": seed, "size": list(size),
        "max_disparity": max_disparity, "asymmetry": asymmetry,
    }  # fmt: skip

    def write(root: Path) -> None:
        root.mkdir(parents=True)
        for (split, code), count in zip(_SPLITS, counts, strict=True):
            for index in range(count):
                views = stereo_views(seed, index, size, max_disparity, code)
                final = in_final_pass(views, seed, index, asymmetry, code)
                _write_scene(root / "FlyingThings3D", f"{split}/A/{index:04d}", views, final)

    return make_folder(out, record, write)


def check_scene(size: tuple[int, int], max_disparity: float, asymmetry: float) -> None:
    """Refuses what no scene can be made of.

    Raises:
        ValueError: a value.
    """
    sides = tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or any(not isinstance(side, int) or side < SMALLEST_SIDE for side in sides):
        raise ValueError(f"size={size!r} must be (height, width) of {SMALLEST_SIDE} pixels or more; 540, 960 is usual")
    if not 4 <= max_disparity <= sides[1]:
        raise ValueError(f"max_disparity={max_disparity!r} must be from 4 to the width, {sides[1]} pixels")
    if not 0 <= asymmetry <= 1:
        raise ValueError(f"asymmetry={asymmetry!r} must be from 0 (both cameras alike) to 1")


def _write_scene(root: Path, scene: str, clean: StereoViews, final: StereoViews) -> None:
    views = (
        ("left", clean.left, final.left, clean.disparity, clean.hidden),
        ("right", clean.right, final.right, clean.right_disparity, clean.right_hidden),
    )
    for side, image, pictured, disparity, hidden in views:
        inside = f"{scene}/{side}/0006"  # FlyingThings3D's frames begin with 6
        _write_png(root / "frames_cleanpass" / f"{inside}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _PICTURE)
        _write_png(root / "frames_finalpass" / f"{inside}.png", cv2.cvtColor(pictured, cv2.COLOR_RGB2BGR), _PICTURE)
        _write_png(root / "disparity_occlusions" / f"{inside}.png", hidden.astype(np.uint8) * 255, _MASK)
        path = root / "disparity" / f"{inside}.pfm"
        path.parent.mkdir(parents=True)
        write_pfm(path, disparity)


def _write_png(path: Path, image: np.ndarray, options: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True)
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f"{path} could not be written; is the disk full?")
