"""Checkpoints that each process writes its part of: the same run, whoever goes on with it, and nobody has it whole."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dist import is_main_process
from random_run import RandomModel, differences, log_lines, random_config, without_times
from ranks import in_ranks
from tiny_run import tiny_config
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visionattn.engine import sharded_checkpoint
from visionattn.engine.checkpoint import latest_checkpoint, saved_checkpoints
from visionattn.engine.fsdp import FullyShardedModel, whole
from visionattn.engine.launch import join_processes, leave_processes
from visionattn.engine.report import write_report
from visionattn.engine.runner import Runner
from visionattn.engine.sharded_checkpoint import write_sharded
from visionattn.weights.durable import MANIFEST, read_manifest
from visionattn.weights.loading import load_checkpoint
from visionattn.weights.reading import read_checkpoint
from visionattn.weights.sharded import INDEX, is_sharded, open_sharded, put_together

WHOLE = {"type": "visionattn.FullyShardedModel", "units": ["Linear"]}
SHARDED = {**WHOLE, "sharded_checkpoints": True}
ITERATIONS = 14
CUT = 7  # in the middle of a step of three batches


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laying out a config's text is most of so short a run."""
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _config(folder: Path, wrapper: dict[str, Any] | None, resume: Path | str | None = None, **saving: Any) -> Any:
    config = random_config(folder, feature="accumulation")
    config.train_cfg.max_iters = config.param_scheduler[1].end = ITERATIONS
    config.default_hooks.checkpoint.update({"interval": CUT, **saving})
    config.launcher = "pytorch"
    config.model.width = 5  # which two processes cannot share equally
    config.model_wrapper_cfg = wrapper
    config.resume, config.load_from = resume is not None, str(resume) if resume not in (None, "auto") else None
    return config


def _train(*args: Any, **saving: Any) -> Runner:
    runner = Runner.from_cfg(_config(*args, **saving))
    runner.train()
    return runner


def _state(runner: Runner) -> Any:
    """Weights and optimiser of a run, whole, in the first process."""
    return whole({"state_dict": runner._plain_model().state_dict(), "optimizer": runner.optim_wrapper.state_dict()})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs: one saved whole, one in parts, one resumed from a part in the middle, one that keeps two."""
    folder = tmp_path_factory.mktemp("sharded")

    def rank(number: int) -> None:
        _train(folder / "whole", WHOLE)
        _train(folder / "parts", SHARDED)
        _train(folder / "cut", SHARDED, folder / "parts" / f"iter_{CUT}.sharded")
        _train(folder / "few", SHARDED, interval=3, max_keep_ckpts=2)
        leave_processes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))
        in_ranks(rank, folder / "ranks")
    return folder


def _plain(path: Path) -> dict[str, Any]:
    """A checkpoint without the names that differ by their suffix."""
    found = without_times(read_checkpoint(path))
    for name in ("last_ckpt", "best_ckpt"):
        found["message_hub"]["runtime_info"].pop(name, None)
    return found


@pytest.mark.parametrize("iteration", [CUT, ITERATIONS])
def test_put_together_it_is_what_one_process_writes(iteration: int, runs: Path) -> None:
    found = _plain(runs / "parts" / f"iter_{iteration}.sharded")
    expected = _plain(runs / "whole" / f"iter_{iteration}.pth")
    assert differences(found, expected) == []
    assert sorted(found["run_state"]["sharded_gradients"]) == ([] if iteration % 3 == 2 else _sharded_names())


def _sharded_names() -> list[str]:
    return sorted(name for name, _ in RandomModel(width=5).named_parameters())


def test_a_cut_does_nothing(runs: Path) -> None:
    one, other = (runs / name / f"iter_{ITERATIONS}.sharded" for name in ("cut", "parts"))
    assert differences(_plain(one), _plain(other)) == []
    assert log_lines(runs / "cut", CUT) == log_lines(runs / "parts", CUT)


def test_each_process_wrote_its_rows(runs: Path) -> None:
    stored = open_sharded(runs / "parts" / f"iter_{ITERATIONS}.sharded")
    for tensor in (stored["state_dict"]["hidden.weight"], stored["optimizer"]["state"][0]["exp_avg_sq"]):
        boxes = {file.name: (box.offset, box.shape) for box, file in tensor.pieces.items()}
        number = next(iter(boxes)).split(".")[1]
        assert boxes == {
            f"part-0-of-2.{number}.safetensors": ((0, 0), (3, 3)),
            f"part-1-of-2.{number}.safetensors": ((3, 0), (2, 3)),
        }


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "wrapper"), [(3, SHARDED), (2, None), (1, None)])
def test_others_go_on_with_it(processes: int, wrapper: dict[str, Any] | None, runs: Path, tmp_path: Path) -> None:
    """Another number of processes, DDP, one process alone: they hold what was saved."""
    path = runs / "parts" / f"iter_{ITERATIONS}.sharded"

    def rank(number: int) -> bool:
        config = _config(tmp_path / "other", wrapper, path)
        if processes == 1:
            config.launcher = "none"
        runner = Runner.from_cfg(config)
        runner.train()
        found, expected = _state(runner), read_checkpoint(path)
        if processes > 1:
            leave_processes()
        return number > 0 or all(differences(found[key], expected[key]) == [] for key in found)

    assert all(one.result for one in in_ranks(rank, tmp_path / "ranks", size=processes))


def test_a_plain_model_loads_it(runs: Path, tmp_path: Path) -> None:
    model, path = RandomModel(width=5), runs / "parts" / f"iter_{ITERATIONS}.sharded"
    assert load_checkpoint(model, path).complete
    assert torch.equal(model.hidden.weight, read_checkpoint(path)["state_dict"]["hidden.weight"])
    config = tiny_config(tmp_path, model={"type": "RandomModel", "width": 5}, load_from=str(path))
    found, expected = Runner.from_cfg(config).test(), log_lines(runs / "parts")[-1]
    assert found["tiny/accuracy"] == pytest.approx(expected["tiny/accuracy"], abs=20)  # of other data


def test_whole_folders_are_kept_and_deleted(runs: Path) -> None:
    best = [path.name for path in (runs / "few").glob("best_*")]
    assert len(best) == 1
    assert [path.name for path in saved_checkpoints(runs / "few")] == [*best, "iter_12.sharded", "iter_14.sharded"]
    assert {path.name for path in (runs / "few").glob("*.sharded")} == {*best, "iter_12.sharded", "iter_14.sharded"}
    assert set(read_manifest(runs / "few")) == {
        f"{name}/{INDEX}" for name in [*best, "iter_12.sharded", "iter_14.sharded"]
    }
    assert not list((runs / "few").glob("*.pth"))
    assert "optimizer" not in read_checkpoint(runs / "few" / best[0])
    assert latest_checkpoint(runs / "few") == str(runs / "few" / "iter_14.sharded")
    assert re.search(r"iter_14\.sharded, 0\.\d MB", write_report(runs / "few", runs / "few.html").read_text())


def test_a_damaged_part_is_passed_over(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("visionattn.engine.checkpoint.print_log", lambda message, **_: said.append(message))
    copy = Path(shutil.copytree(runs / "few", tmp_path / "copy"))
    (part,) = (copy / "iter_14.sharded").glob("part-1-*")
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert latest_checkpoint(copy) == str(copy / "iter_12.sharded")
    assert said[0].startswith(f"passed over: {part} is damaged: its sha256 is")
    (copy / MANIFEST).unlink()
    (copy / "last_checkpoint").write_text(str(copy / "iter_12.sharded"))
    assert latest_checkpoint(copy) == str(copy / "iter_12.sharded")


class Gathered(TorchDispatchMode):
    """Counts the bytes that collectives have put into this process's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace in ("c10d", "_c10d_functional"):
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def test_no_process_ever_has_the_optimisers_state(tmp_path: Path) -> None:
    """Bytes that come from the others while saving, and what each writes; against a file that is put together."""

    def rank(number: int) -> list[int]:
        join_processes("pytorch")
        model = FullyShardedModel(nn.Sequential(nn.Linear(256, 255), nn.Linear(255, 256)), ["Linear"])
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(2, 256)).sum().backward()
        optimizer.step()
        content = {"state_dict": model.module.state_dict(), "optimizer": optimizer.state_dict()}
        with Gathered() as sharded:
            write_sharded(content, tmp_path / "a.sharded")
        with Gathered() as gathered:
            together = whole(content)
        same = not is_main_process() or differences(put_together(open_sharded(tmp_path / "a.sharded")), together) == []
        leave_processes()
        return [sharded.bytes, gathered.bytes, int(same)]

    everything = 3 * 4 * (2 * 256 * 255 + 511)  # weights and two averages, float32
    for found in in_ranks(rank, tmp_path / "ranks"):
        sharded, gathered, same = found.result
        assert same
        assert gathered >= everything
        assert 0 < sharded < everything / 20
    for number in range(2):
        (part,) = (tmp_path / "a.sharded").glob(f"part-{number}-*")
        assert 0.49 * everything < part.stat().st_size < 0.51 * everything
    (rest,) = (tmp_path / "a.sharded").glob("rest*")
    assert rest.stat().st_size < everything / 20


def _model() -> FullyShardedModel:
    return FullyShardedModel(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)), ["Linear"])


def test_a_process_that_cannot_write_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "a.sharded"

    def rank(number: int) -> list[str]:
        join_processes("pytorch")
        content = {"state_dict": _model().module.state_dict(), "number": 1}
        write_sharded(content, folder)
        keep = sharded_checkpoint.write_part

        def full(*args: Any) -> Any:
            if number == 1:
                raise OSError(28, "No space left on device; not written, what was there before is as it was", "part-1")
            return keep(*args)

        sharded_checkpoint.write_part = full
        with pytest.raises(OSError, match="No space left on device") as caught:
            write_sharded({**content, "number": 2}, folder)
        leave_processes()
        return [str(caught.value)]

    first, second = in_ranks(rank, tmp_path / "ranks")
    assert first.result[0].startswith("[Errno 28] process 1: No space left on device; not written")
    assert second.result[0].startswith("[Errno 28] No space left on device; not written")
    assert read_checkpoint(folder)["number"] == 1
    assert len(list(folder.iterdir())) == 4


def test_a_process_that_dies_while_it_writes_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "a.sharded"

    def rank(number: int) -> None:
        join_processes("pytorch")
        content = {"state_dict": _model().module.state_dict(), "number": 1}
        write_sharded(content, folder)
        if number == 1:
            sharded_checkpoint.write_part = lambda *args: os._exit(9)  # type: ignore[assignment]
        write_sharded({**content, "number": 2}, folder)

    first, second = in_ranks(rank, tmp_path / "ranks", expect=None)
    assert second.code == 9
    assert first.code != 0
    assert read_checkpoint(folder)["number"] == 1


def test_a_folder_that_is_not_shared_is_an_error(tmp_path: Path) -> None:
    def rank(number: int) -> str:
        join_processes("pytorch")
        content = {"state_dict": _model().module.state_dict()}
        try:
            write_sharded(content, tmp_path / f"machine_{number}" / "a.sharded")
        except FileNotFoundError as error:
            return str(error)
        return ""

    ranks = in_ranks(rank, tmp_path / "ranks", expect=None)
    said = (
        r"the processes do not all see .*a\.sharded: a sharded checkpoint needs a work dir on a file system that they"
    )
    assert re.fullmatch(said + " share", ranks[1].result)
    assert ranks[0].code != 0
    assert not is_sharded(tmp_path / "machine_0" / "a.sharded")


def test_elsewhere_than_on_a_disk_it_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config.default_hooks.checkpoint.out_dir = "s3://bucket/run"
    runner = Runner.from_cfg(config)
    runner.model.sharded_checkpoints = True
    with pytest.raises(
        ValueError, match=r"out_dir='s3://bucket/run': sharded checkpoints are written to a local folder"
    ):
        runner.train()
