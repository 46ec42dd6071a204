"""Whatever way mmengine comes to a file, the file executes nothing."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mmengine.runner
import pytest
import torch
from hostile_files import watch, write_hostile_files, write_refused_files
from mmengine.runner import CheckpointLoader, checkpoint
from tiny_run import TinyModel, tiny_config
from tiny_segmentation import write_segmentation

from visionattn.engine import reading
from visionattn.engine.runner import Runner

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {path.stem: path for path in write_hostile_files(folder, folder / "canary")}


@pytest.fixture
def canary(hostile: dict[str, Path]) -> Iterator[Path]:
    folder = next(iter(hostile.values())).parent / "canary"
    assert list(folder.iterdir()) == []
    yield folder
    assert list(folder.iterdir()) == []


def _load_from(path: Path, work_dir: Path) -> None:
    Runner.from_cfg(tiny_config(work_dir, load_from=str(path))).train()


def _resume(path: Path, work_dir: Path) -> None:
    Runner.from_cfg(tiny_config(work_dir, load_from=str(path), resume=True)).train()


def _resume_latest(path: Path, work_dir: Path) -> None:
    work_dir.mkdir()
    (work_dir / "last_checkpoint").write_text(str(path))
    Runner.from_cfg(tiny_config(work_dir, resume=True)).train()


def _test(path: Path, work_dir: Path) -> None:
    Runner.from_cfg(tiny_config(work_dir, load_from=str(path))).test()


def _pretrained(path: Path, work_dir: Path) -> None:
    init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
    Runner.from_cfg(tiny_config(work_dir, model={"type": "TinyModel", "init_cfg": init_cfg})).train()


def _pretrained_part(path: Path, work_dir: Path) -> None:
    init_cfg = {"type": "Pretrained", "checkpoint": str(path), "prefix": "backbone."}
    TinyModel(init_cfg=init_cfg).init_weights()


def _mmengine_load_checkpoint(path: Path, work_dir: Path) -> None:
    mmengine.runner.load_checkpoint(TinyModel(), str(path))


def _mmengine_loader(path: Path, work_dir: Path) -> None:
    CheckpointLoader.load_checkpoint(str(path))


WAYS = [
    _load_from,
    _resume,
    _resume_latest,
    _test,
    _pretrained,
    _pretrained_part,
    _mmengine_load_checkpoint,
    _mmengine_loader,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["inside_weights", "legacy", "bare_pickle"])
def test_no_way_executes_a_hostile_file(
    way: Callable[[Path, Path], None], name: str, hostile: dict[str, Path], canary: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"\S*{name}\.pth holds \S+, and reading it would run code") as refused:
        way(hostile[name], tmp_path / "run")
    assert "\n" not in str(refused.value)


_RUNNER = """
import sys
sys.path.insert(0, {tests!r})
from visionattn.engine.runner import Runner
from tiny_run import tiny_config
runner = Runner.from_cfg(tiny_config({work_dir!r}))
runner.train_loop, runner.optim_wrapper
"""

_PREDICTOR = """
from visionattn.engine.config import load_config
from visionattn.engine.inference import Predictor
config = load_config({config!r})
def read(path):
    Predictor(config, path)
"""


def test_every_kind_of_hostile_file_is_refused_unexecuted_however_it_is_given(tmp_path: Path) -> None:
    """As load_from, as what is resumed, and to a Predictor; Python itself says what happens meanwhile."""
    canary = tmp_path / "canary"
    hostile = write_hostile_files(tmp_path / "hostile", canary)
    refused = write_refused_files(tmp_path / "refused")
    assert len(hostile) >= 20
    torch.save({"state_dict": TinyModel().state_dict()}, tmp_path / "good.pth")
    runner = _RUNNER.format(tests=str(TESTS), work_dir=str(tmp_path / "run"))
    readers = [
        f"{runner}\nread = runner.load_checkpoint",
        f"{runner}\nread = runner.resume",
        _PREDICTOR.format(config=str(write_segmentation(tmp_path / "bands"))),
        "from mmengine.runner import CheckpointLoader\nread = CheckpointLoader.load_checkpoint",
    ]
    for seen in watch(readers, [*hostile, *refused], tmp_path / "good.pth", canary):
        assert len(seen) == len(hostile) + len(refused)
        for path, (outcome, events, made) in seen.items():
            assert outcome.startswith(f"ValueError: {path}"), f"{path}: {outcome}"
            assert "\n" not in outcome
            assert events == [], path
            assert made == [], path


_MMENGINE = """
import sys
sys.path.insert(0, {tests!r})
from mmengine.runner import Runner
from tiny_run import tiny_config
for path, resume in {files!r}:
    config = tiny_config({work_dir!r}, load_from=path, resume=resume, default_scope="mmengine")
    try:
        Runner.from_cfg(config).train()
    except Exception as error:
        print(type(error))
"""


@pytest.mark.slow
def test_mmengine_itself_executes_them(tmp_path: Path) -> None:
    """If this fails, mmengine has become safe: see whether `reading` must still replace it."""
    hostile = {path.stem: path for path in write_hostile_files(tmp_path / "files", tmp_path / "canary")}
    _config_in_meta(tmp_path / "config.pth", tmp_path / "canary" / "config")
    files = [(str(hostile["inside_weights"]), False), (str(tmp_path / "config.pth"), True)]
    script = _MMENGINE.format(tests=str(TESTS), work_dir=str(tmp_path / "run"), files=files)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert {path.name for path in (tmp_path / "canary").iterdir()} == {"inside_weights", "config"}


def _config_in_meta(path: Path, canary: Path) -> None:
    """A checkpoint of plain data whose config would make `canary` where it is executed."""
    meta: dict[str, Any] = {"epoch": 0, "iter": 2, "seed": 3, "config": f"made = open({str(canary)!r}, 'w').close()"}
    meta["cfg"] = meta["config"]
    hub = {"log_scalars": {}, "runtime_info": {}, "resumed_keys": {}}
    model = TinyModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01).state_dict()
    saved = {"meta": meta, "state_dict": model.state_dict(), "message_hub": hub, "optimizer": optimizer}
    torch.save(saved, path)


def test_resuming_executes_no_config(tmp_path: Path) -> None:
    _config_in_meta(tmp_path / "hostile.pth", tmp_path / "canary")
    config = tiny_config(tmp_path / "run", load_from=str(tmp_path / "hostile.pth"), resume=True, param_scheduler=None)
    runner = Runner.from_cfg(config)
    runner.train()
    assert "at epoch 0, iteration 2" in Path(runner.logger.log_file).read_text()
    assert not (tmp_path / "canary").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a server on this machine that hands out `tmp_path/served`; torch's downloads go to tmp_path too."""
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "served"))) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("scheme", ["http", "torchvision", "open-mmlab", "mmcls"])
def test_downloads_are_read_safely(
    scheme: str,
    server: str,
    hostile: dict[str, Path],
    canary: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = tmp_path / "served"
    state = {f"backbone.{name}": value for name, value in TinyModel().state_dict().items()}
    torch.save({"state_dict": state}, served / "good.pth")
    (served / "hostile.pth").write_bytes(hostile["inside_weights"].read_bytes())
    urls = {name: f"{server}/{name}.pth" for name in ("good", "hostile")}
    for tables in ("get_torchvision_models", "get_external_models", "get_mmcls_models"):
        monkeypatch.setattr(checkpoint, tables, lambda: urls)
    named = {name: urls[name] if scheme == "http" else f"{scheme}://{name}" for name in urls}
    good = CheckpointLoader.load_checkpoint(named["good"])["state_dict"]
    assert len(good) == len(state)
    (served / "good.pth").unlink()
    assert len(CheckpointLoader.load_checkpoint(named["good"])["state_dict"]) == len(state)  # downloaded once
    with pytest.raises(ValueError, match=r"hostile\.pth holds"):
        CheckpointLoader.load_checkpoint(named["hostile"])


def test_a_download_must_have_the_hash_in_its_name(server: str, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "served" / "net-0123abcd.pth")
    with pytest.raises(RuntimeError, match="invalid hash value"):
        CheckpointLoader.load_checkpoint(f"{server}/net-0123abcd.pth")
    assert list((tmp_path / "cache" / "hub" / "checkpoints").iterdir()) == []


def test_files_in_mmengines_own_folder_are_read_safely(
    hostile: dict[str, Path], canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    monkeypatch.setattr(checkpoint, "get_external_models", lambda: {"net": "net.pth"})
    (tmp_path / "net.pth").write_bytes(hostile["inside_weights"].read_bytes())
    with pytest.raises(ValueError, match=r"net\.pth holds"):
        CheckpointLoader.load_checkpoint("open-mmlab://net")


def test_an_mmengine_that_reads_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(checkpoint, "_safe_torch_load")
    with pytest.raises(RuntimeError, match=r"no _safe_torch_load: visionattn needs onedl-mmengine 0\.10\.12"):
        reading.make_mmengine_read_safely()
