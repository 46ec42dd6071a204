"""The long-range tasks as data sets and configs; that their network is local but for its attention."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope

from visionattn.engine.config import load_config
from visionattn.engine.config_check import refuse_unknown
from visionattn.registry import DATASETS, MODELS

SMALL = {"train": 4, "val": 2, "size": (48, 64)}


@pytest.mark.parametrize(
    ("kind", "options"), [("MadeUpPathfinder", {"curves": 2}), ("MadeUpMajority", {"discs": 2, "marks": 4})]
)
def test_a_missing_folder_is_written_first(tmp_path, kind, options):
    config = {"type": f"visionattn.{kind}", "data_root": str(tmp_path / "data"), **SMALL, **options}
    pipeline = [
        {"type": "visionattn.LoadImage"},
        {"type": "visionattn.LoadLabels"},
        {"type": "mmseg.PackSegInputs"},
    ]
    with DefaultScope.overwrite_default_scope("mmseg"):
        training = DATASETS.build({**config, "split": "training", "pipeline": pipeline})
        validation = DATASETS.build({**config, "split": "validation", "pipeline": pipeline, "test_mode": True})
        assert (len(training), len(validation)) == (4, 2)
        sample = training[0]
        with pytest.raises(FileExistsError, match="made with other arguments"):
            DATASETS.build({**config, "seed": 3, "split": "training"})
    assert sample["inputs"].shape == (3, 48, 64)
    assert set(sample["data_samples"].gt_sem_seg.data.unique().tolist()) <= {0, 1, 2, 255}


def network(name, **options):
    config = load_config(f"longrange/{name}", options)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        torch.manual_seed(0)
        return MODELS.build(config.model).double().eval()


def reach(model, side=96):
    """How far from its middle a pixel's answer depends on the picture."""
    picture = torch.randn(4, 3, side, side, dtype=torch.float64, requires_grad=True)
    logits = torch.nn.functional.interpolate(model(picture), (side, side), mode="bilinear")
    (gradient,) = torch.autograd.grad(logits[..., side // 2, side // 2].square().sum(), picture)
    rows = (gradient.abs().amax(dim=(0, 1, 3)) > 0).nonzero()
    return max(side // 2 - int(rows.min()), int(rows.max()) - side // 2)


def test_the_network_is_local_but_for_its_attention():
    assert reach(network("pathfinder", **{"model.backbone.attention": None})) <= 14
    assert reach(network("pathfinder")) >= 47
    local = {"model.backbone.attention.1.attention": {"type": "NeighborhoodAttention", "kernel": 3, "num_heads": 4}}
    assert reach(network("pathfinder", **local)) <= 18


@pytest.mark.parametrize("name", ["pathfinder", "majority", "pathfinder_full", "majority_full"])
def test_configs_hold_nothing_unknown(name):
    config = load_config(f"longrange/{name}")
    refuse_unknown(config, {})


def test_an_unknown_mechanism_behind_the_plugin_is_named():
    config = load_config(
        "longrange/pathfinder", {"model.backbone.attention.1.attention": {"type": "SoftmacsAttention"}}
    )
    with pytest.raises((KeyError, ValueError), match=r"SoftmacsAttention.*nearest: .*SoftmaxAttention"):
        refuse_unknown(config, {})
