"""Configs by path and name, options over them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from visionattn.engine import config as module
from visionattn.engine.config import find_config, load_config, parse_options
from visionattn.engine.config_text import python_text


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A checkout's configs and an installed package's; the current folder is elsewhere."""
    for root in ("checkout", "package"):
        for name in ("_base_/runtime", "quickstart/segmentation", "segmentation/upernet_r18_camvid"):
            path = tmp_path / root / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            model = "dict(type='A', depth=18, blocks=[dict(dim=1), dict(dim=2)])"
            path.write_text(f"root = {root!r}\nnew = flag = None\nnone = 1\nmodel = {model}\n")
    (tmp_path / "package" / "only_here.py").write_text("root = 'package'\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = (tmp_path / "checkout", tmp_path / "package")
    monkeypatch.setattr(module, "config_roots", lambda: list(found))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "quickstart/segmentation",
        "quickstart/segmentation.py",
        "configs/quickstart/segmentation.py",
        "configs/quickstart/segmentation",
    ],
)
def test_names_are_found_in_the_checkout_first(name: str, roots: tuple[Path, Path]) -> None:
    assert find_config(name) == roots[0] / "quickstart" / "segmentation.py"
    assert load_config(name).root == "checkout"


def test_the_package_comes_last_and_the_path_given_first(roots: tuple[Path, Path]) -> None:
    assert find_config("only_here") == roots[1] / "only_here.py"
    here = Path("quickstart") / "segmentation.py"
    here.parent.mkdir()
    here.write_text("root = 'here'\n")
    assert load_config("quickstart/segmentation").root == "here"
    assert load_config(here.resolve()).root == "here"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quickstart/segmentaton", "did you mean quickstart/segmentation"),
        ("upernet_r18_camvid", "did you mean segmentation/upernet_r18_camvid"),
        ("zzz", "known: only_here, quickstart/segmentation, segmentation/upernet_r18_camvid"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, message: str, roots: tuple[Path, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=f"no config is called '{name}'; {message}"):
        load_config(name)


def test_this_checkout_is_a_root() -> None:
    assert Path(__file__).parents[2] / "configs" in module.config_roots()


def test_options_replace_values_and_add_new_ones(roots: tuple[Path, Path]) -> None:
    options = parse_options(
        ["model.depth=50", "model.blocks.1.dim=7", "new.list=[1,2.5,a]", "new.pair=(1,2)", "flag=True", "none=None"]
    )
    config = load_config("quickstart/segmentation", options)
    assert config.model == {"type": "A", "depth": 50, "blocks": [{"dim": 1}, {"dim": 7}]}
    assert config.new == {"list": [1, 2.5, "a"], "pair": (1, 2)}
    assert config.flag is True
    assert config.none is None


def test_a_dict_is_a_value(roots: tuple[Path, Path]) -> None:
    options = parse_options(
        ["model.blocks.1={'type':'Window','size':(7, 7),'of':{'a b':[1,{}]}}", "model.depth=[{'a': 1}]"]
    )
    config = load_config("quickstart/segmentation", options)
    assert config.model.blocks == [{"dim": 1}, {"type": "Window", "size": (7, 7), "of": {"a b": [1, {}]}}]
    assert config.model.depth == [{"a": 1}]
    assert load_config("quickstart/segmentation", parse_options(["model.blocks.0=None"])).model.blocks[0] is None


def test_what_has_no_quotes_is_read_too() -> None:
    pairs = ["a=1,2", "b=[x, y]", "c=(3)", "d='two words'", "e=x=y", "f=iter_{}.pth", "g=", "h=[true,None]"]
    read = {"a": [1, 2], "b": ["x", "y"], "c": (3,), "d": "two words", "e": "x=y", "f": "iter_{}.pth", "g": ""}
    assert parse_options(pairs) == {**read, "h": [True, None]}


@pytest.mark.parametrize("value", ["{'type':Window}", "{'type':'Window'", "[{'type':Window}]", "f(1,2)", "[(1,2]"])
def test_a_malformed_value_is_answered(value: str) -> None:
    with pytest.raises(
        ValueError, match=f"^--cfg-options model.x: .*{re.escape(value)}.* is no value; a dict is written"
    ):
        parse_options([f"model.x={value}"])


def test_an_option_that_nothing_reads_is_refused(roots: tuple[Path, Path]) -> None:
    with pytest.raises(
        ValueError, match=r"^trian_cfg\.max_iters \(--cfg-options\): .* has no 'trian_cfg' .*; nearest: train_cfg, "
    ):
        load_config("quickstart/segmentation", {"trian_cfg.max_iters": 6})
    with pytest.raises(ValueError, match="nearest: root"):
        load_config("quickstart/segmentation", {"rooot": 6})


def test_an_option_that_a_run_reads_needs_no_entry(roots: tuple[Path, Path]) -> None:
    keys = ["load_from", "resume", "randomness.seed", "compile", "work_dir", "data_root", "env_cfg.cudnn_benchmark",
            "visualizer.type", "sync_bn", "find_unused_parameters", "load_strict", "train_cfg.max_iters"]  # fmt: skip
    config = load_config("quickstart/segmentation", dict.fromkeys(keys, "x"))
    assert config.randomness == {"seed": "x"}
    assert config.load_strict == "x"


def test_an_option_changes_one_of_the_entries_that_share_a_list(tmp_path: Path) -> None:
    (tmp_path / "shared.py").write_text(
        "steps = [dict(a=1), dict(a=2)]\none = dict(of=steps)\nother = dict(of=steps)\n"
    )
    config = load_config(tmp_path / "shared.py", {"one.of.1.a": 3, "one.of.0": {"b": 1}})
    assert config.one.of == [{"b": 1}, {"a": 3}]
    assert config.other.of == config.steps == [{"a": 1}, {"a": 2}]


def test_data_root_is_every_datasets(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(
        "root = 'old'\n"
        "train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(data_root=root)))\n"
        "val_dataloader = dict(dataset=dict(type='Concat', datasets=[dict(data_root=root), dict(data_root=root)]))\n"
        "test_dataloader = dict(dataset=dict(type='Other'))\n"
    )
    config = load_config(tmp_path / "data.py", {"data_root": "/new"})
    assert config.train_dataloader.dataset.dataset.data_root == "/new"
    assert [part.data_root for part in config.val_dataloader.dataset.datasets] == ["/new", "/new"]
    assert config.test_dataloader.dataset == {"type": "Other"}


@pytest.mark.parametrize("pair", ["depth", "=3"])
def test_an_option_is_key_and_value(pair: str) -> None:
    with pytest.raises(ValueError, match=f"--cfg-options expects KEY=VALUE, got '{pair}'"):
        parse_options(["a=1", pair])


def test_an_option_must_fit(roots: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"an option does not fit into .*segmentation\.py: .*depth"):
        load_config("quickstart/segmentation", {"model.depth.x": 1})
    with pytest.raises(ValueError, match="an option does not fit"):
        load_config("quickstart/segmentation", {"model.blocks.9.dim": 1})


@pytest.mark.parametrize("source", ["model = dict(\n", "model = undefined\n", "_base_ = 'nothing.py'\n"])
def test_a_broken_config_is_named(source: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(ValueError, match=r"broken\.py is no valid config: \w+Error: "):
        load_config(tmp_path / "broken.py")


def test_the_file_is_remembered(roots: tuple[Path, Path]) -> None:
    config = load_config("quickstart/segmentation")
    assert isinstance(config, Config)
    assert config.filename == str(roots[0] / "quickstart" / "segmentation.py")


def test_python_text_is_the_config_in_its_own_order(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("zebra = 1\nmodel = dict(type='A', depth=18, act=None)\n")
    (tmp_path / "mine.py").write_text(
        "_base_ = 'base.py'\n"
        "model = dict(depth=34, neck={'in': 3, 'a b': [dict(kind='x' * 60, n=(1,)), dict(kind='y' * 60, n=())]})\n"
        "apple = [1.5, True, None, 'it\\'s', {}, (), [2, 3]]\nmodel_2 = {0: 'ignore', 255: 'roof'}\n"
    )
    config = load_config(tmp_path / "mine.py")
    text = python_text(config)
    (tmp_path / "shown.py").write_text(text)
    assert Config.fromfile(tmp_path / "shown.py").to_dict() == config.to_dict()
    assert list(Config.fromfile(tmp_path / "shown.py")) == list(config) == ["zebra", "model", "apple", "model_2"]
    assert text.splitlines()[:6] == [
        "zebra = 1",
        "model = dict(",
        "    type='A',",
        "    depth=34,",
        "    act=None,",
        "    neck={",
    ]
    assert text.splitlines()[-1] == "model_2 = {0: 'ignore', 255: 'roof'}"
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", ["quickstart/segmentation", "segmentation/upernet_r18-efficient_camvid"])
def test_python_text_of_our_configs_can_be_loaded(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    (tmp_path / "shown.py").write_text(python_text(config))
    assert Config.fromfile(tmp_path / "shown.py").to_dict() == config.to_dict()
