"""Six stereo pairs with ground truth (four real, two rendered): OpenCV's semi-global matching beside trained networks.

    python benchmarks/stereo_pairs.py [--config CONFIG --checkpoint FILE ...] [--pictures DIR] [--json FILE]

The pairs lie in $VISIONATTN_DATA/stereo (or ../shared/data/stereo beside the project) as its README says. Errors are
those of the protocol "visionattn": pixels with 0 < d < 192, each pair by itself, and the mean over the pairs. Every
network gets the pairs as they are, in their own size; `--config` and `--checkpoint` may be given several times, in the
same order.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from visionattn.data.disparity_png import Disparity, read_disparity_png
from visionattn.data.images import read_image
from visionattn.data.pfm import read_pfm
from visionattn.engine.pair_inference import PairPredictor
from visionattn.stereo.errors import error_sums
from visionattn.stereo.protocols import protocol
from visionattn.visualization.disparity_panel import disparity_panel
from visionattn.visualization.picture_file import write_picture

DATA = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[2] / "shared" / "data") / "stereo"
PROTOCOL = protocol("visionattn")
FIGURES = ("EPE", "bad-1", "bad-3", "D1")

Matcher = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Where a pair lies: `steps` are those of an 8-bit disparity map for a pixel, None where it is a PFM."""

    folder: str
    left: str
    right: str
    disparity: str
    steps: float | None = None

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        return read_image(DATA / self.folder / self.left), read_image(DATA / self.folder / self.right)

    def truth(self) -> Disparity:
        path = DATA / self.folder / self.disparity
        if self.steps is not None:
            return read_disparity_png(path, self.steps, bits=8)
        disparity = read_pfm(path)
        valid = np.isfinite(disparity)
        return Disparity(np.where(valid, disparity, np.float32(0)), valid)


PAIRS = {
    "Cones": Pair("middlebury2003_cones", "im2.png", "im6.png", "disp2.png", 4),
    "Cloth3": Pair("middlebury2005-06_Cloth3", "view1.png", "view5.png", "disp1.png", 2),
    "Reindeer": Pair("middlebury2005-06_Reindeer", "view1.png", "view5.png", "disp1.png", 2),
    "Motorcycle": Pair("middlebury2014_trainingQ_Motorcycle", "im0.png", "im1.png", "disp0GT.pfm"),
    "FlyingThings3D": Pair(
        "sceneflow_flyingthings3d_A-0032-0006", "left_cleanpass.png", "right_cleanpass.png", "left_disp.pfm"
    ),
    "Scene Flow": Pair("sceneflow_dmb_0", "left.png", "right.png", "left_disp.pfm"),
}


def semi_global_matching(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Disparity [H, W] of OpenCV's SGBM: 192 disparities, windows of 5, all eight paths, holes filled from the left.

    The images are continued by 192 columns to the left: of the first 192 nothing would be found otherwise.
    """
    most, window = 192, 5
    matcher = cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=most,
        blockSize=window,
        P1=8 * 3 * window**2,
        P2=32 * 3 * window**2,
        disp12MaxDiff=1,
        preFilterCap=63,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    wider = [cv2.copyMakeBorder(view, 0, 0, most, 0, cv2.BORDER_REPLICATE) for view in (left, right)]
    found = matcher.compute(*(cv2.cvtColor(view, cv2.COLOR_RGB2BGR) for view in wider))
    return filled_from_the_left(found[:, most:].astype(np.float32) / 16)


def filled_from_the_left(disparity: np.ndarray) -> np.ndarray:
    """The map with each negative value replaced by the last one to its left that is not, else by the row's first."""
    known = disparity >= 0
    source = np.maximum.accumulate(np.where(known, np.arange(disparity.shape[1]), -1), axis=1)
    source = np.where(source < 0, known.argmax(axis=1)[:, None], source)
    return np.maximum(np.take_along_axis(disparity, source, axis=1), 0)


def figures(disparity: np.ndarray, truth: Disparity) -> dict[str, float]:
    """EPE in pixels and the others in percent, of one pair."""
    wanted, known = torch.from_numpy(truth.disparity), torch.from_numpy(truth.valid)
    sums = error_sums(torch.from_numpy(disparity), wanted, PROTOCOL.counted(wanted, known), known)
    found = PROTOCOL.reduce(sums[None])
    return {name: found[name] for name in FIGURES}


def measure(matchers: Mapping[str, Matcher], pictures: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> pair -> figures."""
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in matchers}
    for title, pair in PAIRS.items():
        left, right = pair.images()
        truth = pair.truth()
        for name, matcher in matchers.items():
            disparity = matcher(left, right)
            results[name][title] = figures(disparity, truth)
            if pictures is not None:
                panel = disparity_panel(left, disparity, truth.disparity, truth.valid)
                write_picture(panel, pictures / name / f"{title.replace(' ', '_')}.png")
    for found in results.values():
        found["mean"] = {figure: mean(of_pair[figure] for of_pair in found.values()) for figure in FIGURES}
    return results


def show(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    for name, found in results.items():
        table = Table(title=f"{name} (protocol {PROTOCOL.name})", title_justify="left")
        table.add_column("pair")
        for figure in FIGURES:
            table.add_column(f"{figure}, {'px' if figure == 'EPE' else '%'}", justify="right")
        for title, of_pair in found.items():
            if title == "mean":
                table.add_section()
            table.add_row(title, *(f"{of_pair[figure]:.2f}" for figure in FIGURES))
        Console().print(table)


def network(config: str, checkpoint: str) -> Matcher:
    predictor = PairPredictor(config, checkpoint)
    return lambda left, right: predictor(left, right).predicted.cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", action="append", default=[], metavar="CONFIG", help="of a trained network")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="of that network")
    parser.add_argument("--without-sgbm", action="store_true", help="the networks alone")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="left | truth | disparity | error of every pair")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if len(args.config) != len(args.checkpoint):
        parser.error(f"{len(args.config)} --config and {len(args.checkpoint)} --checkpoint: give as many of both")
    if not DATA.is_dir():
        parser.error(f"no stereo pairs in {DATA}; set VISIONATTN_DATA to the folder that has stereo/")
    matchers: dict[str, Matcher] = {} if args.without_sgbm else {"SGBM": semi_global_matching}
    for config, checkpoint in zip(args.config, args.checkpoint, strict=True):
        name = Path(config).stem
        matchers[name if name not in matchers else f"{name} {Path(checkpoint).stem}"] = network(config, checkpoint)
    results = measure(matchers, args.pictures)
    show(results)
    if args.json:
        args.json.write_text(json.dumps({"protocol": PROTOCOL.name, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
