"""What `visionattn predict` writes of the objects in images."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionattn.cli.predict_names import free_path

if TYPE_CHECKING:
    from mmengine.config import Config


def predict_objects(config: Config, args: Namespace) -> None:
    """Writes a picture of every image with what was found, and objects.json with all of it."""
    from visionattn.data.images import read_image
    from visionattn.detection.coco_report import replace_file
    from visionattn.detection.pictures import detection_panel
    from visionattn.engine.inference import expand_inputs
    from visionattn.engine.object_inference import ObjectPredictor
    from visionattn.visualization.picture_file import write_picture

    files = [Path(str(file)) for file in expand_inputs(args.images)]
    predictor = ObjectPredictor(config, args.checkpoint, args.device)
    out, taken, found = Path(args.out), set[Path](), []
    for file in files:
        sample = predictor(file).cpu()
        path = free_path(out / f"{file.stem}.png", taken)
        write_picture(detection_panel(sample, read_image(file), predictor.classes), path)
        found.append({"file": str(file), "picture": path.name, **_objects(sample, predictor.classes)})
        print(path)
    replace_file(out / "objects.json", json.dumps(found, ensure_ascii=False))
    print(out / "objects.json")


def _objects(sample: Any, classes: Any) -> dict[str, Any]:
    """What was found in an image, the best first, boxes and masks as in COCO's json."""
    from visionattn.detection.coco_results import run_lengths

    predicted = sample.predicted
    boxes = predicted.boxes.clone()
    boxes[:, 2:] -= boxes[:, :2]
    objects = [
        {"name": classes[label], "label": label, "score": score, "bbox": box}
        for label, score, box in zip(predicted.labels.tolist(), predicted.scores.tolist(), boxes.tolist(), strict=True)
    ]
    if "masks" in predicted:
        for one, mask in zip(objects, run_lengths(predicted.masks), strict=True):
            one["segmentation"] = mask
    height, width = sample.ori_shape
    return {"height": height, "width": width, "objects": objects}
