"""Which way a pair matches: whether its disparities lead from the left image into the right one, or away from it."""

from __future__ import annotations

import numpy as np

from visionattn.stereo.samples import RawSample

_MOST_PIXELS = 20000
_LEAST_DISPARITY = 2.0
_LEAST_ERROR = 3.0  # grey levels: below that the match is good whatever the other way round is


def matches_backwards(sample: RawSample) -> bool:
    """Whether the right image looks like the left one at x + disparity rather than at x - disparity.

    So it does where the two images are swapped; a scene that repeats itself may look so by chance, so this is a reason
    to warn, not to refuse. False where there is no truth, or too little of it to say.
    """
    if "disparity" not in sample:
        return False
    forwards, backwards = match_errors(sample)
    return forwards > _LEAST_ERROR and backwards < 0.6 * forwards


def match_errors(sample: RawSample) -> tuple[float, float]:
    """Median difference, grey levels, of left pixels from the right image's at x - disparity and at x + disparity.

    (0, 0) where fewer than a hundred pixels have both within the image.
    """
    disparity = sample["disparity"]
    seen = sample["valid"] & (disparity >= _LEAST_DISPARITY)
    if "nonoccluded" in sample:
        seen = seen & sample["nonoccluded"]
    rows, columns = np.nonzero(seen)
    shift = np.rint(disparity[rows, columns]).astype(np.int64)
    inside = np.flatnonzero((columns >= shift) & (columns + shift < disparity.shape[1]))
    inside = inside[:: max(1, len(inside) // _MOST_PIXELS)]
    if len(inside) < 100:
        return 0.0, 0.0
    rows, columns, shift = rows[inside], columns[inside], shift[inside]
    here = sample["left"][rows, columns].astype(np.int16)
    errors = [
        float(np.median(np.abs(sample["right"][rows, columns + step] - here).mean(axis=1))) for step in (-shift, shift)
    ]
    return errors[0], errors[1]
