from __future__ import annotations

import pytest
from mmengine.config import Config
from tiny_run import tiny_config

from visionattn.engine.plugin_check import check_plugins
from visionattn.engine.preflight import check_config


def plugin(position, stages=None):
    return {"cfg": {"type": "visionattn.AttentionPlugin"}, "position": position} | (
        {"stages": stages} if stages else {}
    )


def model(*plugins, kind="mmseg.ResNetV1c"):
    return Config({"model": {"backbone": {"type": kind, "plugins": list(plugins)}}}).model


def test_two_at_one_position_of_a_stage_are_refused():
    message = r"^model\.backbone\.plugins 0 and 2 are both at 'after_conv3': .* use visionattn\.InsertedBackbone$"
    with pytest.raises(ValueError, match=message):
        check_plugins(
            model(plugin("after_conv3"), plugin("after_conv2"), plugin("after_conv3", (False,) * 3 + (True,)))
        )


def test_what_is_kept_is_accepted():
    check_plugins(model(plugin("after_conv2"), plugin("after_conv3")))
    check_plugins(model(plugin("after_conv3", (True, False)), plugin("after_conv3", (False, True))))
    check_plugins(model(plugin("after_conv3"), plugin("after_conv3"), kind="Other"))
    check_plugins({"backbone": {"type": "mmseg.ResNet", "plugins": None}})


def test_a_run_is_refused_before_it_begins(tmp_path):
    config = tiny_config(tmp_path, model={"type": "TinyModel", "parts": [model(plugin("a"), plugin("a"))]})
    with pytest.raises(ValueError, match=r"^model\.parts\.0\.backbone\.plugins 0 and 1"):
        check_config(config, parts=())
