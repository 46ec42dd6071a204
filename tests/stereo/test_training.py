"""A small stereo network through Runner and command line: figures, pictures, resuming, processes, export."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from random_run import differences, log_lines, without_times
from ranks import in_ranks
from stereo_bands import write_stereo

from visionattn.cli.main import main
from visionattn.engine.config import load_config
from visionattn.engine.runner import Runner
from visionattn.registry import MODELS
from visionattn.weights.loading import load_checkpoint
from visionattn.weights.reading import read_checkpoint


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Laying out a config's text is most of so short a run.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def config(folder: Path, work_dir: str, **changes: Any) -> Config:
    path = folder / "bands.py"
    loaded = Config.fromfile(str(path if path.is_file() else write_stereo(folder)))
    loaded.update(work_dir=str(folder / work_dir), runner_type="visionattn.Runner", **changes)
    return loaded


def trained(cfg: Config) -> Runner:
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_training_leaves_table_baseline_pictures_and_report(tmp_path: Path) -> None:
    runner = trained(config(tmp_path, "run"))
    run = tmp_path / "run"
    log = next(run.rglob("*.log")).read_text()
    assert "protocol visionattn: known, 0 < d < 192" in log
    assert "| all, by image " in log
    lines = log.splitlines()
    baseline = next(line for line in lines if "best constant disparity EPE " in line)
    last = lines[lines.index(baseline) + 1]
    metrics = runner.test()
    assert last == f"EPE {metrics['visionattn/EPE']:.4f}  (protocol visionattn)"
    # Two shifts of each pair, known exactly: the best constant is the median of their ten bands' pixels.
    constant = float(baseline.partition("EPE ")[2].split()[0])
    shifts = [sample["data_samples"].disparity for sample in runner.val_dataloader.dataset]
    pixels = torch.stack(shifts)
    assert constant == pytest.approx((pixels - pixels.median()).abs().mean().item(), abs=1e-3)
    content = json.loads((run / "evaluation" / "disparity_visionattn.json").read_text())
    assert content["figures"]["all"]["EPE"] == metrics["visionattn/EPE"]
    assert [one["name"] for one in content["evaluated"]] == [f"{number}_left" for number in range(5)]
    assert len(list((run / "pictures").glob("*.png"))) == 2
    assert "Disparity, protocol visionattn" in (run / "report.html").read_text()
    assert list(run.glob("best_visionattn_EPE_iter_*.pth"))


def test_a_perfect_prediction_scores_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way from the files to the figures; truths beyond the limit and unknown ones too."""
    runner = Runner.from_cfg(config(tmp_path, "perfect", load_from=None))

    def truth(inputs: Any, data_samples: Any) -> Any:
        for sample in data_samples:
            sample.predicted = sample.disparity.clone()
        return data_samples

    monkeypatch.setattr(runner.model, "predict", truth)
    metrics = runner.test()
    assert metrics.keys() >= {"visionattn/EPE", "visionattn/D1", "visionattn/bad-0.5", "visionattn/EPE-pixels"}
    assert {value for name, value in metrics.items() if name.startswith("visionattn/")} == {0.0}


def test_a_resumed_run_ends_as_the_uncut_one(tmp_path: Path) -> None:
    """With new made-up scenes and random crops in every draw, to the last bit."""
    transforms = [{"type": "visionattn.StereoRandomCrop", "size": (48, 64)}, {"type": "visionattn.PackStereo"}]
    dataset = {
        "type": "visionattn.FreshMadeUpStereo",
        "scenes": 5,
        "height": 64,
        "width": 80,
        "max_disparity": 16.0,
        "transforms": transforms,
    }

    def run(work_dir: str, **changes: Any) -> Path:
        cfg = config(tmp_path, work_dir, custom_hooks=[], **changes)
        cfg.train_dataloader.dataset = dataset
        cfg.train_cfg.update(max_iters=4, val_interval=4)
        cfg.default_hooks.checkpoint.interval = 2
        trained(cfg)
        return tmp_path / work_dir

    uncut = run("uncut")
    random.seed(99)
    cut = run("cut", resume=True, load_from=str(uncut / "iter_2.pth"))
    ends = [without_times(read_checkpoint(folder / "iter_4.pth")) for folder in (uncut, cut)]
    assert differences(*ends) == []
    assert log_lines(cut, after=2) == log_lines(uncut, after=2) != []


@pytest.mark.slow
def test_two_processes_train_alike_and_agree_with_one_on_the_figures(tmp_path: Path) -> None:
    cfg = config(tmp_path, "two", launcher="pytorch", env_cfg={"dist_cfg": {"backend": "gloo"}})
    cfg.train_cfg.update(max_iters=3, val_interval=3)

    def share(rank: int) -> dict[str, Any]:
        runner = trained(cfg)
        state = {name: value.clone() for name, value in runner.model.module.state_dict().items()}
        runner.load_checkpoint(str(tmp_path / "two" / "iter_3.pth"))  # else each has its own norms' running statistics
        return {"state": state, "figures": runner.val_loop.run()}

    first, second = (rank.result for rank in in_ranks(share, tmp_path / "ranks"))
    assert first["figures"] == second["figures"]
    learned = [name for name in first["state"] if "running" not in name and "num_batches" not in name]
    assert differences({n: first["state"][n] for n in learned}, {n: second["state"][n] for n in learned}) == []
    alone = config(tmp_path, "one", load_from=str(tmp_path / "two" / "iter_3.pth"))
    found = Runner.from_cfg(alone).test()
    for name, value in first["figures"].items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert len(list((tmp_path / "two" / "pictures").glob("*.png"))) == 2


@pytest.mark.slow
def test_the_command_line_trains_tests_and_reports_without_mmseg(tmp_path: Path) -> None:
    write_stereo(tmp_path)
    program = """
import sys
from visionattn.cli.main import main
assert main(["train", "bands.py", "--work-dir", "run", "--dry-run"]) == 0
assert main(["train", "bands.py", "--work-dir", "run", "--cfg-options", "train_cfg.max_iters=3"]) == 0
assert main(["test", "bands.py", "run/iter_3.pth", "--work-dir", "tested", "--out", "pictures"]) == 0
assert main(["report", "run"]) == 0
print("IMPORTED", sorted(name for name in sys.modules if name.split(".")[0] == "mmseg"))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "IMPORTED []"
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 5
    assert "\nEPE " in run.stdout


@pytest.mark.slow
def test_an_unknown_protocol_is_answered_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stereo(tmp_path)
    torch.save({}, tmp_path / "none.pth")
    options = ["--cfg-options", "val_evaluator.protocol=gwc", "test_evaluator.protocol=gwc"]
    assert main(["train", "bands.py", "--work-dir", "run", *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "val_evaluator.protocol (--cfg-options)" in error
    assert "no evaluation protocol is called 'gwc'" in error
    assert error.endswith("did you mean 'gwcnet'?")


@pytest.mark.slow
def test_a_trained_backbone_is_the_same_in_timm(tmp_path: Path) -> None:
    path = write_stereo(tmp_path)
    assert main(["train", "bands.py", "--work-dir", "run", "--cfg-options", "train_cfg.max_iters=3"]) == 0
    assert main(["export", "timm", "bands.py", "run/iter_3.pth", "exported"]) == 0
    model = MODELS.build(load_config(path).model).eval()
    load_checkpoint(model, tmp_path / "run" / "iter_3.pth")
    image = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.network.features.body(image)
    torch.save(image, "image.pt")
    program = """
import timm, torch
import visionattn.export.timm
model = timm.create_model("local-dir:exported", pretrained=True, features_only=True).eval()
with torch.no_grad():
    torch.save(model(torch.load("image.pt")), "maps.pt")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    found = torch.load("maps.pt")
    assert [list(m.shape) for m in found] == [[1, 8, 13, 18], [1, 8, 7, 9]]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
