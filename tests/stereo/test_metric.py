"""DisparityMetric: golden figures, loops, batches, processes, files and what it says."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import ROOT
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from ranks import in_ranks
from stereo_samples import predicted

from visionattn.registry import METRICS
from visionattn.stereo.metric import DisparityMetric
from visionattn.stereo.packing import StereoSample
from visionattn.stereo.protocols import PROTOCOLS

GOLDEN = [ROOT / "stereo" / name for name in ("metrics_inputs.npz", "metrics.json")]
needs_golden = pytest.mark.skipif(
    not all(path.is_file() for path in GOLDEN), reason=f"no golden metrics in {ROOT / 'stereo'}: set VISIONATTN_GOLDEN"
)


@pytest.fixture
def log():
    """What the run's logger was told."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def score(metric: DisparityMetric, *batches: list[dict[str, Any]]) -> dict[str, float]:
    for samples in batches:
        metric.process({}, samples)
    return metric.evaluate(size=sum(len(samples) for samples in batches))


def equal(one: dict[str, float], other: dict[str, float]) -> bool:
    """NaN is NaN."""
    return one.keys() == other.keys() and all(
        a == other[k] or (a != a and other[k] != other[k]) for k, a in one.items()
    )


@pytest.fixture
def recorded():
    with np.load(GOLDEN[0]) as arrays:
        prediction, truth = torch.from_numpy(arrays["pred"]), torch.from_numpy(arrays["gt"])
    samples = [
        {"name": str(index), "disparity": t, "valid": t > 0, "predicted": d}
        for index, (d, t) in enumerate(zip(prediction, truth, strict=True))
    ]
    return samples, json.loads(GOLDEN[1].read_text())


@needs_golden
def test_golden_figures_of_the_official_functions(recorded) -> None:
    samples, wanted = recorded

    def found(protocol: str, some: list[dict[str, Any]], name: str) -> float:
        return score(DisparityMetric(protocol), some)[f"{protocol}/{name}"]

    for ours, theirs in {"D1": "D1", "bad-1": "Thres1", "bad-2": "Thres2", "bad-3": "Thres3"}.items():
        assert found("gwcnet", samples, ours) == pytest.approx(100 * wanted["gwcnet"][theirs], rel=1e-6)
    assert found("gwcnet", samples, "EPE") == pytest.approx(wanted["gwcnet"]["EPE"], rel=1e-6)
    assert found("psmnet", samples, "EPE") == pytest.approx(
        wanted["psmnet_main_test"]["EPE_batch_mean_mask_lt192"], rel=1e-6
    )
    raft = wanted["raftstereo_validate_things"]
    assert found("raft", samples, "EPE") == pytest.approx(raft["EPE_mean_of_image_means"], rel=1e-6)
    assert found("raft", samples, "bad-1") == pytest.approx(raft["D1_all_pixels_gt1px_percent"], rel=1e-6)
    assert found("igev", samples, "EPE") == pytest.approx(raft["EPE_mean_of_image_means"], rel=1e-6)
    pooled = wanted["unimatch_batch_pixel_mean"]
    assert found("visionattn", samples, "EPE-pixels") == pytest.approx(pooled["EPE"], rel=1e-6)
    assert found("visionattn", samples, "D1-pixels") == pytest.approx(100 * pooled["D1"], rel=1e-6)
    outliers = wanted["psmnet_finetune_3px_err"]["value"]
    assert found("kitti", samples, "D1") == pytest.approx(100 * outliers, rel=1e-6)
    by_image = wanted["openstereo_per_image"]
    for name, theirs in (("EPE", "EPE"), ("D1", "D1_percent"), ("bad-1", "bad1_percent"), ("bad-3", "bad3_percent")):
        mean = sum(by_image[theirs]) / len(samples)
        assert found("openstereo", samples, name) == pytest.approx(mean, rel=1e-6)
        assert found("visionattn", samples, name) == pytest.approx(mean, rel=1e-6)  # each image has a pixel that counts


def naive(samples: list[dict[str, Any]], region: str = "all") -> dict[str, float]:
    """The protocol visionattn, pixel by pixel."""
    epes, d1s, everything = [], [], []
    for sample in samples:
        key = {"noc": "nonoccluded", "fg": "foreground", "bg": "foreground"}.get(region)
        if key is not None and key not in sample:
            continue
        pixels = []
        for row in range(6):
            for column in range(9):
                truth = sample["disparity"][row, column].item()
                inside = True if key is None else bool(sample[key][row, column]) == (region != "bg")
                if sample["valid"][row, column] and 0 < truth < 192 and inside:
                    pixels.append((abs(sample["predicted"][row, column].item() - truth), truth))
        everything += pixels
        if pixels:
            epes.append(sum(error for error, _ in pixels) / len(pixels))
            d1s.append(100 * sum(error > 3 and error > 0.05 * truth for error, truth in pixels) / len(pixels))
    pooled = sum(error for error, _ in everything) / len(everything)
    return {"EPE": sum(epes) / len(epes), "D1": sum(d1s) / len(d1s), "EPE-pixels": pooled}


@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_in_every_region(seed: int) -> None:
    samples = predicted(seed, known=False)
    found = score(DisparityMetric(), samples)
    for region in ("all", "noc", "fg", "bg"):
        for name, value in naive(samples, region).items():
            if region == "all":
                assert found[f"visionattn/{name}"] == pytest.approx(value, rel=1e-12)
            elif name != "EPE-pixels":
                assert found[f"visionattn/{name}-{region}"] == pytest.approx(value, rel=1e-12)
    assert "visionattn/EPE-noc" not in score(DisparityMetric(), [samples[1]])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_batches_do_not_matter(protocol: str) -> None:
    samples = predicted(1, number=19, known=False)
    whole = score(DisparityMetric(protocol), samples)
    for size in (1, 2, 8):
        batches = [samples[start : start + size] for start in range(0, len(samples), size)]
        assert equal(score(DisparityMetric(protocol), *batches), whole)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfect_prediction_scores_zero(protocol: str) -> None:
    samples = predicted(2)
    for sample in samples:
        sample["predicted"] = sample["disparity"].clone()
    assert set(score(DisparityMetric(protocol), samples).values()) == {0.0}


def share(rank: int) -> dict[str, float]:
    """In a process of its own: what every protocol says, one sample at a time."""
    torch.distributed.init_process_group("gloo")
    samples = predicted(3, number=19, known=False)
    found = {}
    for protocol in PROTOCOLS:
        metric = DisparityMetric(protocol)
        for index in DefaultSampler(samples, shuffle=False):
            metric.process({}, [samples[index]])
        found |= metric.evaluate(size=len(samples))
    torch.distributed.destroy_process_group()
    return found


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """gloo: nineteen samples, so that one is repeated; psmnet's batches of eight span both processes."""
    whole = {}
    for protocol in PROTOCOLS:
        whole |= score(DisparityMetric(protocol), predicted(3, number=19, known=False))
    for rank in in_ranks(share, tmp_path):
        assert equal(rank.result, whole)


def test_table_line_and_images_without_pixels(log) -> None:
    samples = predicted(4, known=False)
    found = score(DisparityMetric(), samples)
    lines = log[-1].splitlines()
    assert lines[0].startswith("protocol visionattn: known, 0 < d < 192")
    assert lines[-2] == "1 of 5 images have no pixel that counts: A/0002"
    assert lines[-1] == f"EPE {found['visionattn/EPE']:.4f}  (protocol visionattn, 5 images)"
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines if "| " in line}
    regions = ("all", "non-occluded", "foreground", "background")
    assert list(rows) == ["", *(f"{region}, by {unit}" for region in regions for unit in ("image", "pixel"))]
    assert rows[""][:3] == ["EPE", "D1", "bad-0.5"]
    assert rows["all, by image"][0] == f"{found['visionattn/EPE']:.4f}"
    assert rows["all, by image"][-1] == "4"
    assert rows["foreground, by image"][1] == f"{found['visionattn/D1-fg']:.2f}"
    assert rows["non-occluded, by image"][-1] == "2"
    assert log[-1].isascii()


def test_file(tmp_path: Path) -> None:
    samples = predicted(5, known=False)
    found = score(DisparityMetric("gwcnet", out=tmp_path / "deep"), samples)
    content = json.loads((tmp_path / "deep" / "disparity_gwcnet.json").read_text())
    assert content["protocol"] == "gwcnet"
    assert content["images"] == 5
    assert content["without_pixels"] == ["A/0002"]
    assert content["figures"]["all"]["EPE"] == found["gwcnet/EPE"]
    assert [image["name"] for image in content["evaluated"]] == [f"A/{index:04d}" for index in range(5)]
    assert content["evaluated"][2]["EPE"] is None
    assert content["evaluated"][2]["pixels"] == 0
    own = naive(samples[:1])
    assert content["evaluated"][0]["EPE"] == pytest.approx(own["EPE"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["disparity_gwcnet.json"]


def test_evaluator_drives_several_protocols_at_once() -> None:
    metrics = [DisparityMetric("visionattn"), DisparityMetric("psmnet"), DisparityMetric(prefix="half")]
    evaluator = Evaluator(metrics)
    samples = predicted(6)
    for sample in samples:
        element = StereoSample(metainfo={"name": sample["name"]})
        for key, value in sample.items():
            if key != "name":
                setattr(element, key, value)
        evaluator.process([element])
    found = evaluator.evaluate(len(samples))
    assert found["visionattn/EPE"] == score(DisparityMetric(), samples)["visionattn/EPE"] == found["half/EPE"]
    assert found["psmnet/EPE"] != found["visionattn/EPE"]


def test_bad_input_is_named() -> None:
    with pytest.raises(KeyError, match=r"no evaluation protocol is called 'gwc'; there are .* did you mean 'gwcnet'\?"):
        METRICS.build({"type": "visionattn.DisparityMetric", "protocol": "gwc"})
    samples = predicted(0)
    with pytest.raises(ValueError, match=r"^A/0001 has no true disparity: there is nothing to evaluate"):
        score(DisparityMetric(), [{"name": "A/0001", "predicted": samples[1]["predicted"]}])
    with pytest.raises(ValueError, match=r"^A/0001 has no prediction"):
        score(DisparityMetric(), [{**samples[1], "predicted": None} | {"name": "A/0001"}])
    with pytest.raises(ValueError, match=r"^A/0000: the disparity map and its truth differ in shape: .*\[6, 8\]"):
        score(DisparityMetric(), [{**samples[0], "predicted": samples[0]["predicted"][:, 1:]}])
    samples[0]["disparity"] = samples[0]["disparity"] * math.nan
    with pytest.raises(ValueError, match=r"^A/0000: the truth holds NaN or infinity"):
        score(DisparityMetric("middlebury"), samples)
    metric = DisparityMetric()
    metric.process({}, predicted(0) * 2)
    with pytest.raises(ValueError, match="10 pairs were evaluated of a data set of 5; evaluate each once"):
        metric.evaluate(size=5)


def test_every_evaluation_begins_anew() -> None:
    metric = DisparityMetric()
    first = score(metric, predicted(0))
    assert equal(score(metric, predicted(0)), first)
    assert not equal(score(metric, predicted(1)), first)
    assert math.isnan(score(metric)["visionattn/EPE"])  # nothing to evaluate is no error
