"""Mistakes in a config are told with key, file and line, before anything runs and while it is built."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import HOOKS, METRICS, MODELS
from tiny_run import tiny_config
from tiny_segmentation import write_segmentation

from visionattn.engine.config import load_config, parse_options
from visionattn.engine.config_check import check_notes, check_types
from visionattn.engine.config_mistakes import ConfigMistake, named_in
from visionattn.engine.config_text import differences, explain_key, flat_values
from visionattn.engine.registered import keywords, nearest
from visionattn.engine.runner import Runner


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmentation(tmp_path_factory.mktemp("bands"), images=2)


@pytest.fixture(autouse=True)
def _beside(bands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bands.parent)


def _problems(bands: Path, *pairs: str) -> list[str]:
    options = parse_options(pairs)
    return check_types(load_config(bands, options), options)


def test_a_good_config_has_no_problem(bands: Path) -> None:
    assert _problems(bands) == []
    assert check_notes(load_config(bands)) == []


MISTAKES = {
    "model.backbone.type=ResNot": "model.backbone.type (--cfg-options): ResNot is not in the mmseg::model registry; "
    "nearest: ResNet, ResNeSt, ResNeXt; a type of your own",
    "model.backbone.type=TimmBackbon": "nearest: visionattn.TimmBackbone, ",
    "train_dataloader.dataset.type=ImageMaskFolder": "; write visionattn.ImageMaskFolder",
    "model.backbone.norm_cfg.type=BNN": "model.backbone.norm_cfg.type (--cfg-options): BNN is not in",
    "model.decode_head.loss_decode.type=mmdet.FocalLoss": "the package mmdet is not installed",
    "model.type=zoo_of_mine.Net": "the package zoo_of_mine is not installed",
    "model.backbone.widht=3": "model.backbone.widht (--cfg-options): mmseg's ResNet takes no 'widht'; nearest: ",
    "model.decode_head.dropout=0.1": "mmseg's FCNHead takes no 'dropout'; nearest: dropout_ratio, ",
    "train_dataloader.bath_size=3": "torch's DataLoader takes no 'bath_size'; nearest: batch_size, ",
    "train_dataloader.sampler.suffle=True": "mmengine's InfiniteSampler takes no 'suffle'; nearest: shuffle, ",
    "optim_wrapper.optimizer.type=Adamw": "optim_wrapper.optimizer.type (--cfg-options): Adamw is not in the "
    "mmseg::optimizer registry; nearest: AdamW, ",
    "optim_wrapper.optimizer.type=Lion": "Lion needs its package: pip install lion-pytorch",
    "optim_wrapper.constructor=Default": "nearest: DefaultOptimWrapperConstructor",
    "optim_wrapper.accumulate=2": "OptimWrapper takes no 'accumulate'; nearest: accumulative_counts",
    "train_cfg.max_iter=3": "takes no 'max_iter'; nearest: max_iters, ",
    "val_evaluator.type=IoU": "nearest: visionattn.IoUMetric, IoUMetric",
    "log_processor.window=3": "LogProcessor takes no 'window'; nearest: window_size",
    "load_from=nowhere.pth": "load_from (--cfg-options): no file nowhere.pth",
    "model.backbone.depth=19": "model.backbone.depth (--cfg-options), in model.backbone (bands.py:8): invalid depth 19",
}


@pytest.mark.parametrize("option", list(MISTAKES))
def test_a_mistake_is_told_without_data(option: str, bands: Path) -> None:
    (problem,) = _problems(bands, option, "data_root=/nowhere")
    assert MISTAKES[option] in problem


def test_a_failing_part_is_named_without_options_too(bands: Path) -> None:
    deep = bands.with_name("deep.py")
    deep.write_text(bands.read_text().replace("depth=18", "depth=19"))
    assert _problems(deep) == ["model.backbone (deep.py:8): invalid depth 19 for resnet"]


def test_of_many_options_that_is_named_which_the_error_names(bands: Path) -> None:
    (problem,) = _problems(bands, "model.backbone.depth=19", "model.backbone.base_channels=8", "train_cfg.max_iters=2")
    assert problem.startswith("model.backbone.depth (--cfg-options), in model.backbone (bands.py:8): invalid depth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train_cfg": {"by_epoch": False, "maxiters": 6}},
            "train_cfg.maxiters: visionattn's IterBasedTrainLoop takes",
        ),
        ({"val_cfg": {"fp": True}}, "val_cfg.fp: mmengine's ValLoop takes no 'fp'; nearest: fp16"),
    ],
)
def test_a_loops_keyword_is_told(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **changes)
    with pytest.raises(ConfigMistake, match=re.escape(message)), named_in(config):
        Runner.from_cfg(config).train()


def test_missing_data_is_a_note(bands: Path) -> None:
    (note,) = check_notes(load_config(bands, {"data_root": "/nowhere"}))
    assert note.startswith("train_dataloader.dataset.data_root: /nowhere is not here")


def test_the_line_is_the_one_that_says_it(bands: Path) -> None:
    text = bands.read_text().replace('type="FCNHead"', 'type="FCNHed"')
    number = next(n for n, line in enumerate(text.splitlines(), 1) if "FCNHed" in line)
    wrong = bands.with_name("wrong.py")
    wrong.write_text(text)
    (problem,) = _problems(wrong)
    assert problem.startswith(f"model.decode_head.type (wrong.py:{number}): FCNHed is not in")
    assert "nearest: FCNHead, " in problem


def test_the_module_that_defines_a_type_is_found(bands: Path) -> None:
    (bands.parent / "mine").mkdir(exist_ok=True)
    (bands.parent / "mine" / "nets.py").write_text("class VerySpecialNet:\n    pass\n")
    (problem,) = _problems(bands, "model.backbone.type=VerySpecialNet")
    assert 'mine.nets defines it and is not imported: custom_imports=dict(imports=["mine.nets"])' in problem


@MODELS.register_module()
class Outer:
    """Hands what it does not know to the class above.

    Args:
        width: how wide it is. More about it.
    """

    def __init__(self, width: int, **rest: Any) -> None: ...


@MODELS.register_module()
class Inner(Outer):
    def __init__(self, depth: int = 3, *, closed: bool = False, **rest: Any) -> None: ...


def test_keywords_are_followed_upwards() -> None:
    taken, open_ended = keywords(Inner)
    assert list(taken) == ["depth", "closed", "width"]
    assert open_ended
    assert not keywords(HOOKS.get("CheckpointHook"))[1] or "interval" in keywords(HOOKS.get("CheckpointHook"))[0]


def test_nearest_looks_past_scopes_and_case() -> None:
    assert nearest("resnot", ["mmseg.ResNet", "VGG", "visionattn.ResNeSt"])[0] == "mmseg.ResNet"
    assert nearest("IterBased", ["TestLoop", "IterBasedTrainLoop"])[0] == "IterBasedTrainLoop"
    for tied in permutations(["IoUMetric", "visionattn.IoUMetric"]):
        assert nearest("IoU", tied) == ["visionattn.IoUMetric", "IoUMetric"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "TinyModle"}}, "model.type: TinyModle is not in the visionattn::model registry; nearest: "),
        ({"model": {"type": "TinyModel", "wide": 3}}, "model.wide: tiny_run's TinyModel takes no 'wide'; nearest: wid"),
        ({"custom_hooks": [{"type": "EMAHok"}]}, "custom_hooks.0.type: EMAHok is not in the visionattn::hook"),
        ({"custom_hooks": [{"type": "EarlyStoppingHook"}]}, "EarlyStoppingHook needs 'monitor'"),
        ({"custom_hooks": [{"type": "EMAHook", "ema_type": "Mean"}]}, "custom_hooks.0.ema_type: Mean is not in"),
        ({"param_scheduler": [{"type": "PolyLr"}]}, "param_scheduler.0.type: PolyLr is not in"),
        ({"val_evaluator": {"type": "TinyAcuracy"}}, "val_evaluator.type: TinyAcuracy is not in"),
        ({"optim_wrapper": {"optimizer": {"type": "SGD", "rl": 1}}}, "optim_wrapper.optimizer.rl: torch's SGD takes"),
        ({"visualizer": {"type": "Visualiser"}}, "visualizer.type: Visualiser is not in the visionattn::visualizer"),
    ],
)
def test_a_mistake_is_told_while_a_run_is_built(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **changes)
    with pytest.raises(ConfigMistake, match=re.escape(message)), named_in(config):
        Runner.from_cfg(config).train()


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="elsewhere"), named_in(tiny_config(tmp_path)):
        raise KeyError("elsewhere")


def test_the_metric_of_this_test_is_registered() -> None:
    assert METRICS.get("TinyAccuracy") is not None


def test_differences_are_told_by_key(bands: Path) -> None:
    one = load_config(bands)
    other = load_config(bands, {"model.backbone.depth": 34, "resume": True, "train_cfg.max_iters": 30.0})
    assert differences(one, one) == []
    assert differences(one, other) == [
        ("-", "model.backbone.depth = 18"),
        ("+", "model.backbone.depth = 34"),
        ("+", "resume = True"),
        ("-", "train_cfg.max_iters = 30"),
        ("+", "train_cfg.max_iters = 30.0"),
    ]
    assert flat_values(one)["pipeline.0.type"] == "visionattn.LoadImage"


def test_a_value_is_explained(bands: Path) -> None:
    rows = dict(explain_key(load_config(bands), "model.backbone.depth"))
    assert rows == {
        "value": "18",
        "type": "int",
        "set": "bands.py:8",
        "of": "depth of mmseg's ResNet",
        "default": "none: it must be given",
        "meaning": "Depth of resnet, from {18, 34, 50, 101, 152}",
    }
    unset = dict(explain_key(load_config(bands), "train_dataloader.dataset.reduce_zero_label"))
    assert unset["value"] == "not set"
    assert unset["expects"] == "bool"
    assert unset["default"] == "False"
    assert unset["meaning"] == "0 in the masks is left out and 1 is the first class"
    options = {"optim_wrapper.optimizer.lr": 0.5}
    changed = explain_key(load_config(bands, options), "optim_wrapper.optimizer.lr", options)
    assert ("set", "bands.py:23") in changed
    assert ("then", "--cfg-options") in changed
    assert ("of", "lr of torch's AdamW") in changed
    with pytest.raises(KeyError, match=r"has no model\.backbone\.deepth; nearest: model\.backbone\.depth"):
        explain_key(load_config(bands), "model.backbone.deepth")
