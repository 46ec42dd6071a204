"""Made-up stereo scenes: CPU time of a pair with one thread, and how well warping gives one view from the other.

    python benchmarks/made_up_stereo.py [--pairs 20] [--json FILE]

CPU time is the process's own (time.process_time), the mean over the pairs after one that does not count. "drawn" is a
pair with both disparities and both masks, "final" the second pair of pictures from it, "pairs/s" both of these;
"written" is all of it with the files of a scene. The error is that of the left view against the right one warped by the
disparity, where nothing is hidden, in grey levels of the clean pass: the median over pixels, and of these the median
and the worst of the pairs. "hidden" is the share of such pixels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import cv2
import numpy as np
import torch
from interleaved import machine
from rich.console import Console
from rich.table import Table

from visionattn.data.sceneflow_scenes import in_final_pass, stereo_views, write_sceneflow
from visionattn.data.stereo_drawing import StereoViews

SCENES = (((540, 960), 192.0), ((256, 512), 192.0), ((96, 192), 64.0))  # size, max_disparity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows = [measure(size, max_disparity, args.pairs) for size, max_disparity in SCENES]
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if args.json:
        content = {**machine(torch.device("cpu")), "pairs": args.pairs, "rows": rows}
        args.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(size: tuple[int, int], max_disparity: float, pairs: int) -> dict[str, Any]:
    """The figures of scenes of this size."""
    drawn, final, errors, hidden = [], [], [], []
    stereo_views(1, 0, size, max_disparity)
    for index in range(pairs):
        begin = time.process_time()
        views = stereo_views(0, index, size, max_disparity)
        middle = time.process_time()
        in_final_pass(views, 0, index, 0.3)
        final.append(time.process_time() - middle)
        drawn.append(middle - begin)
        errors.append(photometric_error(views))
        hidden.append(float(views.hidden.mean()))
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        write_sceneflow(Path(folder) / "out", scenes=pairs, test=0, size=size, max_disparity=max_disparity)
        whole = (time.process_time() - begin) / pairs
    return {
        "size": f"{size[0]}x{size[1]}",
        "drawn s": mean(drawn),
        "final s": mean(final),
        "written s": whole,
        "pairs/s": 1 / (mean(drawn) + mean(final)),
        "error": median(errors),
        "worst": max(errors),
        "hidden": mean(hidden),
    }


def photometric_error(views: StereoViews) -> float:
    """The median over what both views see."""
    y, x = np.mgrid[: views.disparity.shape[0], : views.disparity.shape[1]].astype(np.float32)
    warped = cv2.remap(views.right.astype(np.float32), x - views.disparity, y, cv2.INTER_LINEAR)
    return float(np.median(np.abs(warped - views.left).mean(axis=-1)[~views.hidden]))


if __name__ == "__main__":
    main()
