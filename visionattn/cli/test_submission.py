"""`visionattn test --submission`: files for a benchmark's server in place of scores."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

SUBMISSIONS = {
    "kitti2012": "visionattn.KITTI2012Submission",
    "kitti2015": "visionattn.KITTI2015Submission",
    "middlebury": "visionattn.MiddleburySubmission",
    "eth3d": "visionattn.ETH3DSubmission",
}


def add_submission_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--submission",
        choices=SUBMISSIONS,
        metavar="BENCHMARK",
        help=f"stereo: write the archive for a benchmark's server, no scores: {', '.join(SUBMISSIONS)}",
    )
    parser.add_argument("--method", metavar="NAME", help="of a submission to Middlebury; visionattn if not given")


def submitting(config: Config, benchmark: str, method: str | None) -> Config:
    """The config whose test writes a submission, and needs no truth.

    Raises:
        ValueError: no stereo config, or a method's name where there is no place for it.
    """
    from visionattn.engine.inference import takes_pairs

    if not takes_pairs(config):
        raise ValueError(f"--submission {benchmark} is for stereo, {config.filename} is no stereo config")
    evaluator: dict[str, Any] = {"type": SUBMISSIONS[benchmark]}
    if method is not None:
        if benchmark != "middlebury":
            raise ValueError(f"--method is a name in Middlebury's files; {benchmark} has none in them")
        evaluator["method"] = method
    config.test_evaluator = evaluator
    return config
