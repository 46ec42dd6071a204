"""The trees in which Scene Flow is kept: as its makers, PSMNet and GwcNet have it.

    FlyingThings3D/{frames_cleanpass,frames_finalpass,disparity}/{TRAIN,TEST}/{A,B,C}/0000/{left,right}/0006.{png,pfm}
        and, in few copies, disparity_occlusions/... as the subset has them
    Monkaa/{frames_...,disparity}/SCENE/{left,right}/0000.{png,pfm}
    Driving/{frames_...,disparity}/{15,35}mm_focallength/scene_{back,for}wards/{fast,slow}/{left,right}/0001.{png,pfm}

PSMNet has side by side frames_PASS, frames_disparity, monkaa_frames_PASS, monkaa_disparity, driving_frames_PASS and
driving_disparity; GwcNet has one tree, frames_PASS and disparity, with Monkaa's and Driving's scenes below TRAIN.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from visionattn.stereo.layouts import need_folder, view_folders, view_names
from visionattn.stereo.samples import PairFiles

PARTS = ("FlyingThings3D", "Monkaa", "Driving")
_TEST_PART = "FlyingThings3D"  # the only one of the three that has a TEST


def scene_flow_pairs(
    root: Path, split: str, image_pass: str, parts: Sequence[str], right_disparity: bool
) -> dict[str, list[PairFiles]]:
    """The pairs of each part, in one of the trees; files need not exist.

    Args:
        split: "TRAIN" or "TEST".
        image_pass: "cleanpass" or "finalpass".
        parts: of PARTS; "TEST" has but FlyingThings3D.
        right_disparity: names the right images' disparity maps too.
    Raises:
        FileNotFoundError: a folder of a part is missing.
    """
    found: dict[str, list[PairFiles]] = {part: [] for part in parts}
    for part, images, disparity, occlusions, inside in _trees(root, split, image_pass, parts):
        masked = occlusions.is_dir()
        need_folder(images, f"Scene Flow's {part or 'tree'}, {image_pass}", _ADVICE)
        need_folder(disparity, f"Scene Flow's {part or 'tree'}, disparity", _ADVICE)
        for folder in view_folders(images):
            of_part = part or _part_of(folder)
            if of_part not in found:
                continue
            left, right = images / folder / "left", images / folder / "right"
            for name in view_names(left, right):
                stem = os.path.splitext(name)[0]
                found[of_part].append(
                    PairFiles(
                        name="/".join(word for word in (of_part, image_pass, inside, folder, stem) if word != "."),
                        left=str(left / name),
                        right=str(right / name),
                        disparity=str(disparity / folder / "left" / f"{stem}.pfm"),
                        right_disparity=str(disparity / folder / "right" / f"{stem}.pfm") if right_disparity else None,
                        nonoccluded=(str(occlusions / folder / "left" / f"{stem}.png"),) if masked else (),
                    )
                )
    return found


_ADVICE = (
    "data_root is the folder that has FlyingThings3D, Monkaa and Driving, or PSMNet's or GwcNet's tree; "
    'a part of it: parts=["FlyingThings3D"]; other trees: visionattn.PairList'
)


class _Tree(NamedTuple):
    """Where scenes lie.

    Attributes:
        part: theirs; "" where the scenes' own names tell.
        images, disparity: the folders that the scenes begin in.
        occlusions: that of the masks of what is hidden, which few copies have.
        inside: where the three are within the part.
    """

    part: str
    images: Path
    disparity: Path
    occlusions: Path
    inside: str


def _trees(root: Path, split: str, image_pass: str, parts: Sequence[str]) -> Iterator[_Tree]:
    there = {entry.name.lower(): entry for entry in root.iterdir()} if root.is_dir() else {}
    wanted = [part for part in parts if split == "TRAIN" or part == _TEST_PART]
    tree = _frames(root, image_pass)
    if tree is None or any(part.lower() in there for part in PARTS):
        for part in wanted:
            folder = there.get(part.lower(), root / part)
            inside = split if part == _TEST_PART else "."
            images = _frames(folder, image_pass) or folder / f"frames_{image_pass}"
            yield _Tree(
                part, images / inside, folder / "disparity" / inside, folder / "disparity_occlusions" / inside, inside
            )
        return
    disparity, occlusions = there.get("frames_disparity", root / "disparity"), root / "disparity_occlusions"
    beside = [part for part in PARTS[1:] if f"{part.lower()}_disparity" in there]
    if not beside or _TEST_PART in wanted:
        yield _Tree(_TEST_PART if beside else "", tree / split, disparity / split, occlusions / split, split)
    for part in beside:
        if part in wanted:
            prefix = root / part.lower()
            yield _Tree(
                part,
                Path(f"{prefix}_frames_{image_pass}"),
                Path(f"{prefix}_disparity"),
                Path(f"{prefix}_disparity_occlusions"),
                ".",
            )


def _frames(folder: Path, image_pass: str) -> Path | None:
    """The images' folder: of PNG files, or of the smaller WebP ones."""
    for name in (f"frames_{image_pass}", f"frames_{image_pass}_webp"):
        if (folder / name).is_dir():
            return folder / name
    return None


def _part_of(folder: str) -> str:
    """Which part a scene in GwcNet's tree is of, by its first folder: A, B or C; 15mm_focallength; a scene's name."""
    first = folder.partition("/")[0]
    if first in ("A", "B", "C"):
        return "FlyingThings3D"
    return "Driving" if first.endswith("mm_focallength") else "Monkaa"


def subset_pairs(root: Path, split: str, image_pass: str, right_disparity: bool) -> list[PairFiles]:
    """The pairs of FlyingThings3D's subset (FlowNet 2's "DispNet" download); files need not exist.

    {train,val}/{image_clean,image_final,disparity,disparity_occlusions}/{left,right}/0000000.{png,pfm}

    Args:
        split: "TRAIN" or "TEST", which is val or, in some copies, test.
        image_pass: "cleanpass" or "finalpass".
        right_disparity: names the right images' disparity maps too.
    Raises:
        FileNotFoundError: a folder is missing.
    """
    below = root / "FlyingThings3D_subset"
    root = below if below.is_dir() else root
    names = ("train",) if split == "TRAIN" else ("val", "test")
    folder = next((root / name for name in names if (root / name).is_dir()), root / names[0])
    advice = "data_root is the folder that has train and val"
    images = need_folder(folder / f"image_{image_pass.removesuffix('pass')}", "FlyingThings3D's subset", advice)
    maps = need_folder(folder / "disparity", "FlyingThings3D's subset", advice)
    hidden = folder / "disparity_occlusions" / "left"
    pairs = []
    for name in view_names(images / "left", images / "right"):
        stem = os.path.splitext(name)[0]
        pairs.append(
            PairFiles(
                name=f"FlyingThings3D_subset/{image_pass}/{folder.name}/{stem}",
                left=str(images / "left" / name),
                right=str(images / "right" / name),
                disparity=str(maps / "left" / f"{stem}.pfm"),
                right_disparity=str(maps / "right" / f"{stem}.pfm") if right_disparity else None,
                nonoccluded=(str(hidden / f"{stem}.png"),) if hidden.is_dir() else (),
            )
        )
    return pairs
