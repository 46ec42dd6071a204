"""The part of a run's report that shows pictures of its last evaluation."""

from __future__ import annotations

import cv2
import numpy as np

from visionattn.engine.run_record import RunRecord
from visionattn.visualization.page import Html, card, element, joined, picture, section

_PICTURES = 12
_WIDTH = 1100  # of a picture, pixels


def picture_sections(record: RunRecord, title: str) -> list[Html]:
    """The pictures of the run's folder under this title; nothing where there are none."""
    cards = []
    for file in record.pictures[:_PICTURES]:
        pixels = cv2.imread(str(file))
        if pixels is not None:  # else it was cut off in the middle
            shown = picture(np.asarray(pixels[..., ::-1], np.uint8), f"evaluation of {file.stem}", width=_WIDTH)
            cards.append(card([(title, shown)], element("b", file.stem)))
    if not cards:
        return []
    more = max(len(record.pictures) - _PICTURES, 0)
    note = element("p", f"{more} more lie in the folder pictures.", class_="note") if more else Html()
    return [section("Pictures", joined(cards, "\n"), note)]
