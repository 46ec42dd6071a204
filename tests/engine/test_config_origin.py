"""The line that set a value, through bases, variables and options; mmengine's own merge is the truth of the values."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from visionattn.engine.config_kinds import dicts_below
from visionattn.engine.config_origin import find_origin, trace_config

BASE = """\
channels = 8
norm = dict(type="BN", eps=1e-5)
model = dict(
    type="Net",
    backbone=dict(type="ResNet", depth=18, norm=norm),
    heads=[
        dict(channels=channels),
        dict(channels=16, **norm),
    ],
)
steps = ["load", "crop"]
schedule = dict(kind="poly", power=0.9)
"""
CHILD = """\
_base_ = ["base.py"]
width = 4
model = dict(backbone=dict(depth=50), heads=[dict(channels=width)])
schedule = dict(_delete_=True, kind="step")
empty = dict()
first = second = dict(value=width)
model["extra"] = dict(rate=0.1)
model.update(dict(late=3))
copied = _base_.model.backbone
if width > 2:
    computed = 7
numbers = [n * 2 for n in range(3)]
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "child.py").write_text(CHILD)
    return tmp_path / "child.py"


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("model", "base.py:3 child.py:3"),
        ("model.type", "base.py:4"),
        ("model.backbone.depth", "base.py:5 child.py:3"),
        ("model.backbone.norm", "base.py:5"),
        ("model.backbone.norm.eps", "base.py:2"),
        ("model.heads", "base.py:6 child.py:3"),
        ("model.heads.0.channels", "child.py:3"),
        ("steps.1", "base.py:11"),
        ("schedule.kind", "child.py:4"),
        ("first.value", "child.py:6"),
        ("second.value", "child.py:6"),
        ("model.extra.rate", "child.py:7"),
        ("model.late", "child.py:8"),
        ("copied.norm.eps", "base.py:2"),
        ("computed", "child.py:11"),
        ("numbers.2", "child.py:12"),
    ],
)
def test_each_value_has_its_lines(key: str, places: str, child: Path) -> None:
    assert " ".join(str(place) for place in find_origin(trace_config(child), key).places) == places


def test_a_variable_is_named(child: Path) -> None:
    top = trace_config(child)
    assert find_origin(top, "model.backbone.norm").name == "norm"
    assert find_origin(top, "model.heads.0.channels").name == "width"
    assert find_origin(top, "copied").name == "_base_.model.backbone"
    assert find_origin(top, "model.backbone.depth").name == ""


def test_options_come_last(child: Path) -> None:
    top = trace_config(child, {"model.backbone.depth": 34, "new.key": 1})
    depth = find_origin(top, "model.backbone.depth").places
    assert [str(place) for place in depth] == ["base.py:5", "child.py:3", "--cfg-options"]
    assert [str(place) for place in find_origin(top, "new.key").places] == ["--cfg-options"]


def test_what_a_deleted_dict_had_is_gone(child: Path) -> None:
    top = trace_config(child)
    assert find_origin(top, "schedule.power") is find_origin(top, "schedule")
    assert "1" not in find_origin(top, "model.heads").within


ROOT = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in ROOT.rglob("*.py") if not any(part.startswith("_") for part in path.parts))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_of_every_config_is_found_on_a_line_that_says_it(path: Path) -> None:
    config, top = Config.fromfile(path), trace_config(path)
    looked_at = 0
    for key, entry in dicts_below(config._cfg_dict.to_dict(), ()):
        for name, value in entry.items():
            place = find_origin(top, (*key, str(name))).places[-1]
            assert place.file is not None
            line = place.file.read_text().splitlines()[place.line - 1]
            if isinstance(value, str | int | float):
                assert str(name) in line or "{{_base_." in line, f"{'.'.join((*key, str(name)))}: {place}: {line}"
                looked_at += 1
    assert looked_at > 50
