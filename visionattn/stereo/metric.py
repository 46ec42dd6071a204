"""Errors of disparities, summed up image by image and turned into figures as a named protocol says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather, get_rank, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from visionattn.data.dealing import all_lists, dealt, repeated
from visionattn.registry import METRICS
from visionattn.stereo import protocols
from visionattn.stereo.errors import FIELDS, error_sums
from visionattn.stereo.matcher import pair_name
from visionattn.stereo.score_table import REGIONS, score_table

_NAMED = 5  # images without a pixel that counts, in the log


@METRICS.register_module()
class DisparityMetric(BaseMetric):
    """EPE in pixels, D1 and bad-0.5 to bad-5 in percent by a named protocol, which stands beside every one of them.

    What is kept of an image is a row of sums over its pixels, so neither the batch size nor the number of processes
    changes a figure. Where samples know what is non-occluded or foreground, figures of these pixels are added:
    "visionattn/EPE-noc", "kitti/D1-fg", "kitti/D1-bg". Several metrics may evaluate by several protocols at once.

    File in `out`, written anew by each evaluation: disparity_<protocol>.json

        {"protocol", "pixels": which count, in words, "published_on": what its authors evaluate, "images": number,
         "without_pixels": names of images in which no pixel counts,
         "figures": {"all": {"EPE", "D1", "bad-1", ...: pixels and percent or null}, "noc": ..., "fg": ..., "bg": ...},
         "evaluated": [{"name", "EPE", "D1", "bad-1", ...: by itself, or null, "pixels": counted}, ...]}

    Args:
        protocol: a name in `visionattn.stereo.protocols.PROTOCOLS`.
        out: folder for the file; None writes none, except in a run of visionattn's Runner: work_dir/evaluation.
        prefix: goes before the names; the protocol's name if None.
    Attributes:
        printed: figures that stand in the table alone, not in the evaluation's line.
    Raises:
        KeyError: no protocol is called so; the message has the nearest name.
    """

    def __init__(self, protocol: str = "visionattn", out: str | Path | None = None, prefix: str | None = None) -> None:
        self.protocol = protocols.protocol(protocol)
        super().__init__(prefix=self.protocol.name if prefix is None else prefix)
        self.out = out  # a Runner puts its own folder where there is None
        self.printed: tuple[str, ...] = ()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Adds a row for each region of every sample.

        Args:
            data_samples: dicts of `StereoSample`'s fields, with `predicted`.
        Raises:
            ValueError: no truth, or one of another size than the prediction; names the sample.
        """
        for sample in data_samples:
            rows = {region: sums.tolist() for region, sums in self._rows(sample)}
            self.results.append({"name": str(sample.get("name") or pair_name(sample)), "rows": rows})

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures over all processes, and a fresh start.

        Args:
            size: samples in the data set.
        Raises:
            ValueError: a process has seen more than one sample too many, which no sampler of mmengine makes.
        """
        numbers = [int(number) for number in all_gather(torch.tensor(len(self.results)))]
        repetitions = repeated(numbers, size)
        if max(repetitions) > 1:
            raise ValueError(
                f"{sum(numbers)} pairs were evaluated of a data set of {size}; evaluate each once: "
                'sampler=dict(type="DefaultSampler", shuffle=False)'
            )
        kept = self.results[: len(self.results) - repetitions[get_rank()]]
        figures = self.compute_metrics(dealt(all_lists(kept, all_gather)))
        self.results.clear()
        return {f"{self.prefix}/{name}" if self.prefix else name: value for name, value in figures.items()}

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """The figures of all samples, in the order of the data set; mmengine's name."""
        rows = {region: _table(results, region) for region in REGIONS}
        figures = {region: self.protocol.reduce(rows[region]) for region in _known(rows)}
        named = {
            name if region == "all" else f"{name}-{region}": value
            for region, some in figures.items()
            for name, value in some.items()
            if region == "all" or not name.endswith("-pixels")
        }
        self.printed = tuple(name for name in named if name not in ("EPE", "D1"))
        if is_main_process():
            self._tell(results, rows, figures)
        return named

    def _rows(self, sample: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        missing = "true disparity" if sample.get("disparity") is None else "prediction"
        if sample.get("disparity") is None or sample.get("predicted") is None:
            raise ValueError(f"{pair_name(sample)} has no {missing}: there is nothing to evaluate")
        predicted = sample["predicted"]
        truth, valid = (sample[key].to(predicted.device) for key in ("disparity", "valid"))
        counted = self.protocol.counted(truth, valid)
        regions = {"all": None, "noc": sample.get("nonoccluded"), "fg": sample.get("foreground")}
        regions["bg"] = None if regions["fg"] is None else ~regions["fg"]
        for region, mask in regions.items():
            if mask is None and region != "all":
                continue
            inside = torch.ones_like(valid) if mask is None else mask.to(predicted.device)
            try:
                yield region, error_sums(predicted, truth, counted & inside, valid & inside)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{pair_name(sample)}: {error}") from error

    def _tell(
        self, results: list[dict[str, Any]], rows: dict[str, Tensor], figures: dict[str, dict[str, float]]
    ) -> None:
        counted = {region: int((rows[region][:, 0] > 0).sum()) for region in figures}
        empty = [result["name"] for result in results if result["rows"]["all"][0] == 0]
        lines = [
            f"protocol {self.protocol.name}: {self.protocol.pixels}",
            "EPE in pixels, others in %",
            score_table(figures, counted),
        ]
        if empty:
            named = ", ".join(empty[:_NAMED]) + (", ..." if len(empty) > _NAMED else "")
            lines.append(f"{len(empty)} of {len(results):,} images have no pixel that counts: {named}")
        lines.append(f"EPE {figures['all']['EPE']:.4f}  (protocol {self.protocol.name}, {len(results):,} images)")
        print_log("\n".join(lines), logger="current")
        if self.out is not None:
            self._write(Path(self.out), results, figures, empty)

    def _write(
        self, out: Path, results: list[dict[str, Any]], figures: dict[str, dict[str, float]], empty: list[str]
    ) -> None:
        content = {
            "protocol": self.protocol.name,
            "pixels": self.protocol.pixels,
            "published_on": self.protocol.images,
            "images": len(results),
            "without_pixels": empty,
            "figures": {region: _for_json(some) for region, some in figures.items()},
            "evaluated": [{"name": result["name"], **_of_image(result["rows"]["all"])} for result in results],
        }
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"disparity_{self.protocol.name}.json"
        beside = path.with_name(f".{path.name}.{os.getpid()}")  # who reads meanwhile sees the old one or the new one
        beside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        beside.replace(path)


def _table(results: list[dict[str, Any]], region: str) -> Tensor:
    """[images, len(FIELDS)] of those images that have the region, in their order."""
    rows = [result["rows"][region] for result in results if region in result["rows"]]
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), len(FIELDS))


def _known(rows: dict[str, Tensor]) -> list[str]:
    return [region for region, table in rows.items() if region == "all" or len(table)]


def _of_image(sums: list[float]) -> dict[str, float | int | None]:
    """One image's own figures, whatever the protocol's way to average them."""
    figures = protocols.by_image(torch.tensor([sums], dtype=torch.float64))
    return {**_for_json(figures), "pixels": int(sums[0])}


def _for_json(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON has no nan."""
    return {name: value if isfinite(value) else None for name, value in figures.items()}
