"""The commands from end to end, and their answers to mistakes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_segmentation import SIZE, write_segmentation

import visionattn
from visionattn.cli.main import COMMANDS, main
from visionattn.cli.predict_names import free_path

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(config, work dir) of a finished training."""
    folder = tmp_path_factory.mktemp("run")
    config = write_segmentation(folder)
    assert main(["train", str(config), "--work-dir", str(folder / "work")]) == 0
    return config, folder / "work"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Laying out the config's text five times a run is most of a run's second.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _answer(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends in."""
    capsys.readouterr()
    assert main(argv) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("visionattn: error: ")


def test_training_tells_what_it_does_and_where_things_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    assert main(["train", str(config), "--cfg-options", "train_cfg.max_iters=20", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == "train: checked the labels and sizes of 5 of 5 masks"
    assert "work dir  work_dirs/bands" in lines
    assert any(line.startswith("| bright ") for line in lines)
    assert [line[:7] for line in lines if "mIoU" in line] == ["mIoU 0."]  # once, in one unit
    assert any(line.startswith("val  mAcc ") for line in lines)
    assert lines[-2] == "checkpoints  work_dirs/bands: iter_20.pth"
    assert lines[-1] == "pictures     work_dirs/bands/pictures: 2 files"
    assert "OneDL" not in out
    saved = torch.load("work_dirs/bands/iter_20.pth", weights_only=True)
    assert saved["meta"]["seed"] == 5


def test_testing_a_checkpoint(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, work_dir = run
    checkpoint = str(work_dir / "iter_30.pth")
    assert main(["test", str(config), checkpoint, "--work-dir", "tested", "--out", "pictures"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (metric,) = (line for line in lines if "mIoU" in line)
    assert float(metric.removeprefix("mIoU ")) > 0.8
    assert sorted(path.name for path in Path("pictures").iterdir()) == [f"{n}.png" for n in range(5)]
    assert not list(Path("tested").glob("*.pth"))
    assert lines[-2:] == ["pictures     tested/pictures: 2 files", "pictures     pictures: 5 files"]


def test_predicting_images(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, work_dir = run
    images = config.parent / "data" / "images"
    argv = ["predict", str(config), str(work_dir / "iter_30.pth"), str(images), f"{images}/[01].png", "--out", "out"]
    assert main([*argv, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"out/{n}.png" for n in range(5)] + ["out/0_2.png", "out/1_2.png"]
    panel = cv2.imread("out/0.png")
    assert panel is not None
    assert panel.shape[1] > 2 * SIZE[1]


def test_names_stay_apart() -> None:
    taken: set[Path] = set()
    assert [free_path(Path("a.png"), taken).name for _ in range(3)] == ["a.png", "a_2.png", "a_3.png"]


def test_a_run_is_taken_up(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, work_dir = run
    longer = ["--cfg-options", "train_cfg.max_iters=32", "val_dataloader=None", "val_cfg=None", "val_evaluator=None"]
    path = str(work_dir / "iter_30.pth")
    assert main(["train", str(config), "--work-dir", "new", "--resume", path, *longer]) == 0
    assert f"resumed {path} at epoch 0, iteration 30" in capsys.readouterr().out.splitlines()
    longer[1] = "train_cfg.max_iters=34"
    assert main(["train", str(config), "--work-dir", "new", *longer, "--resume"]) == 0
    assert "resumed new/iter_32.pth at epoch 0, iteration 32" in capsys.readouterr().out.splitlines()
    assert main(["train", str(config), "--work-dir", "empty", *longer[:1], "train_cfg.max_iters=1", "--resume"]) == 0
    assert "nothing to resume in empty: beginning" in capsys.readouterr().out.splitlines()
    assert Path("empty/iter_1.pth").is_file()


@pytest.mark.parametrize(("most", "said"), [("30", "the run is finished: 30 of 30"), ("6", "at iteration 30 of 6")])
@pytest.mark.parametrize("how", ["auto", "iter_30.pth"])
def test_a_run_with_nothing_left_says_so(
    how: str, most: str, said: str, run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, work_dir = run
    copy = shutil.copytree(work_dir, "copy")
    resume = how if how == "auto" else f"{copy}/{how}"
    options = [f"train_cfg.max_iters={most}", "val_dataloader=None", "val_cfg=None", "val_evaluator=None"]
    assert main(["train", str(config), "--work-dir", "copy", "--resume", resume, "--cfg-options", *options]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "raise train_cfg.max_iters" in line)
    assert said in line


def test_weights_start_a_run(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, work_dir = run
    path = str(work_dir / "iter_30.pth")
    options = ["train_cfg.max_iters=1", "optim_wrapper.optimizer.lr=0.0"]
    assert main(["train", str(config), "--work-dir", "w", "--load-from", path, "--cfg-options", *options]) == 0
    one, other = (torch.load(file, weights_only=True)["state_dict"] for file in (path, "w/iter_1.pth"))
    assert torch.equal(one["decode_head.conv_seg.weight"], other["decode_head.conv_seg.weight"])
    assert f"loaded {path}" in capsys.readouterr().out.splitlines()


MISTAKES = {
    "unknown type": ("model.backbone.type=ResNot", "ResNot is not in the mmseg::model registry; nearest: ResNet, "),
    "unknown scope": ("model.backbone.type=nothing.Net", "nothing.Net is not in the mmseg::model registry"),
    "unknown keyword": (
        "model.backbone.widht=3",
        "widht (--cfg-options): mmseg's ResNet takes no 'widht'",
    ),
    "refused value": ("model.backbone.depth=19", "bands.py:8): invalid depth 19 for resnet"),
    "unknown optimiser": ("optim_wrapper.optimizer.type=Sdg", "Sdg is not in the mmseg::optimizer registry"),
    "class count": ("model.decode_head.num_classes=9", "set --cfg-options model.decode_head.num_classes=3"),
    "missing data": ("data_root=/nowhere", "ImageMaskFolder found no /nowhere/images"),
    "option without value": ("verbose", "--cfg-options expects KEY=VALUE, got 'verbose'"),
    "misplaced option": ("randomness.seed.x=1", "an option does not fit into"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_answered_in_one_line(
    name: str, run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    option, expected = MISTAKES[name]
    assert expected in _answer(["train", str(run[0]), "--cfg-options", option], capsys)


def test_names_are_looked_at_before_data(run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["train_cfg.maxiters=6", "model.decode_head.chanels=3", "data_root=/nowhere"]
    answer = _answer(["train", str(run[0]), "--cfg-options", *wrong], capsys)
    assert answer.startswith("model.decode_head.chanels (--cfg-options): mmseg's FCNHead takes no 'chanels'; nearest: ")
    assert answer.endswith(" (and 1 more; `visionattn config check` lists all)")
    answer = _answer(["train", str(run[0]), "--cfg-options", *wrong[::2]], capsys)
    assert answer.startswith("train_cfg.maxiters (--cfg-options): mmengine's IterBasedTrainLoop takes no 'maxiters'; n")
    assert not Path("work_dirs").exists()


def test_bad_labels_are_answered_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    mask = np.zeros(SIZE, np.uint8)
    mask[3, 4] = 7
    cv2.imwrite(str(tmp_path / "data" / "masks" / "2.png"), mask)
    answer = _answer(["train", str(config)], capsys)
    assert "masks/2.png" in answer
    assert "7" in answer
    assert not Path("work_dirs").exists()


def test_another_models_checkpoint_is_answered(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, work_dir = run
    path = str(work_dir / "iter_30.pth")
    wide = ["--cfg-options", "model.decode_head.channels=6"]
    for argv in (
        ["test", str(config), path, *wide],
        ["train", str(config), "--resume", path, *wide],
        ["train", str(config), "--load-from", path, *wide],
        ["predict", str(config), path, str(config.parent / "data"), "--out", "o", *wide],
    ):
        answer = _answer(argv, capsys)
        assert answer.startswith(f"{path}: the weights belong to another model than EncoderDecoder: ")


def test_other_answers(run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, work_dir = run
    good = str(work_dir / "iter_30.pth")
    Path("text.pth").write_text("no weights")
    for argv, expected in (
        (["train", "quickstart/segmentaton"], "did you mean quickstart/segmentation"),
        (["train", str(config), "--resume", good, "--load-from", good], "give one of them"),
        (["train", str(config), "--resume", "no.pth"], "checkpoint no.pth does not exist"),
        (["test", str(config), "no.pth"], "checkpoint no.pth does not exist"),
        (["test", str(config), good, "--cfg-options", "test_dataloader=None"], "has no test_dataloader"),
        (["predict", str(config), "text.pth", str(config.parent / "data"), "--out", "o"], "text.pth cannot be read"),
        (["predict", str(config), good, "no.jpg", "--out", "o"], "no image no.jpg"),
        (["data", "synth", "ade20k", "x", "--size", "1", "2", "3"], "--size expects height and width"),
        (["data", "synth", "ade20k", str(work_dir)], str(work_dir)),
    ):
        assert expected in _answer(argv, capsys)


def test_a_label_that_turns_up_in_a_worker_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the check before training did not look, as it does not at every mask of a large data set."""
    config = write_segmentation(tmp_path)
    mask = np.full(SIZE, 7, np.uint8)
    cv2.imwrite(str(tmp_path / "data" / "masks" / "2.png"), mask)
    config.write_text(config.read_text().replace("visionattn.ImageMaskFolder", "Unchecked") + _UNCHECKED)
    (tmp_path / "unchecked.py").write_text(_UNCHECKED_MODULE)
    sys.path.insert(0, str(tmp_path))
    try:
        answer = _answer(["train", str(config), "--cfg-options", "train_dataloader.num_workers=1"], capsys)
    finally:
        sys.path.remove(str(tmp_path))
    assert "masks/2.png" in answer


_UNCHECKED = 'custom_imports = dict(imports=["unchecked"])\n'
_UNCHECKED_MODULE = """
from mmseg.registry import DATASETS
from visionattn.segmentation.datasets import ImageMaskFolder

@DATASETS.register_module(force=True)
class Unchecked(ImageMaskFolder):
    check = lambda self: "not checked"
"""


def test_errors_that_are_no_answers_keep_their_traceback(run: tuple[Path, Path]) -> None:
    with pytest.raises(RuntimeError, match="channels"):
        main(["train", str(run[0]), "--cfg-options", "model.decode_head.in_channels=5"])


@pytest.mark.parametrize("by", ["--debug", "VISIONATTN_DEBUG"])
def test_debugging_shows_the_traceback(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by.startswith("V"):
        monkeypatch.setenv(by, "1")
    with pytest.raises(FileNotFoundError):
        main(["train", "nothing", *([by] if by.startswith("--") else [])])


def test_the_attention_list_has_every_mechanism(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attention", "list"]) == 0
    out = capsys.readouterr().out
    names = visionattn.list_attention()
    assert len(names) >= 3
    rows = {line.split()[0]: line for line in out.splitlines() if line.split()}
    for name in names:
        assert name in rows
    assert rows["EfficientAttention"].split()[1:7] == ["N", "yes", "yes", "1-D", "2-D", "3-D"]
    columns = {heading: rows["mechanism"].index(heading) for heading in ("cross", "causal")}
    for name, can in (("FixedSparseAttention", {"causal"}), ("LinformerPool", {"cross"}), ("GMLP", set())):
        assert {heading for heading, at in columns.items() if rows[name][at:].startswith("yes")} == can
    assert rows["FixedSparseAttention"][columns["cross"] :].startswith("same grid")
    assert "WACV 2021" in rows["EfficientAttention"]


def test_made_up_data_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["data", "synth", "ade20k", "made", "--train", "2", "--val", "1", "--seed", "3", "--size", "64", "96"]
    assert main(argv) == 0
    images = sorted(Path("made").rglob("*.jpg"))
    assert len(images) == 3
    assert cv2.imread(str(images[0])).shape == (64, 96, 3)
    assert capsys.readouterr().out == "made-up scenes in made\n"
    assert "choose another folder" in _answer(["data", "synth", "ade20k", "made", "--train", "3"], capsys)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_no_torch(argv: list[str]) -> None:
    code = (
        "import sys; from visionattn.cli.main import main\n"
        f"try: main({argv!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'mmengine', 'cv2', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "commands = {name.rpartition('.')[2] for name in sys.modules if name.startswith('visionattn.cli.')}\n"
        "commands -= {'main', 'options'}\n"
        f"assert all((name + '_').startswith({argv[0].replace('-', '_') + '_'!r}) for name in commands), commands"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert argv[0] in ("--help", "--version") or f"visionattn {argv[0]}" in done.stdout


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"\n    {name}" in out for name in COMMANDS)


@pytest.mark.parametrize("argv", [[], ["trian"], ["train"], ["train", "a", "--seed", "x"], ["data", "synth"]])
def test_a_wrong_command_line_is_answered_in_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visionattn: error: ")
    assert line.endswith("--help`")


@pytest.mark.parametrize("name", ["train", "test", "predict"])
def test_tools_call_the_command(name: str, tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / f"{name}.py")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*tool, "--help"], capture_output=True, text=True, timeout=60, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"usage: visionattn {name}" in done.stdout


def test_a_training_can_be_tried_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", str(config), "--dry-run", "--amp", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "optimiser    AdamW by AmpOptimWrapper" in lines
    assert [line.split()[0] for line in lines if line.startswith("  ") and "lr" not in line] == [
        "backbone",
        "decode_head",
    ]
    assert lines[-1].startswith("peak memory")
    assert sorted(tmp_path.rglob("*")) == before
    assert "--dry-run looks at one process" in _answer(
        ["train", str(config), "--dry-run", "--launcher", "pytorch"], capsys
    )


def test_options_reach_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    short = ["train_cfg.max_iters=2", "val_dataloader=None", "val_cfg=None", "val_evaluator=None"]
    try:
        assert main(["train", str(config), "--amp", "--seed", "7", "--deterministic", "--cfg-options", *short]) == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    (dumped,) = Path("work_dirs/bands").glob("bands.py")
    text = dumped.read_text()
    assert "visionattn.AmpOptimWrapper" in text
    assert "seed=7" in text.replace(" ", "")
    other = ["--cfg-options", "optim_wrapper.type=ApexOptimWrapper"]
    assert "--amp takes OptimWrapper's place, but the config has" in _answer(
        ["train", str(config), "--amp", *other], capsys
    )


def test_a_learning_rate_is_suggested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_segmentation(tmp_path)
    argv = ["lr-find", str(config), "--out", "sweep", "--steps", "12", "--lowest", "1e-4", "--highest", "0.1"]
    main(argv)
    lines = capsys.readouterr().out.splitlines()
    assert "sweep/lr_find.json" in lines
    assert cv2.imread("sweep/lr_find.png") is not None
    assert lines[-1].startswith(("suggestion: --cfg-options optim_wrapper.optimizer.lr=", "the loss did not fall"))
    assert not Path("work_dirs").exists()


def test_configs_are_shown_checked_compared_and_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_segmentation(tmp_path))
    assert main(["config", "show", config, "--cfg-options", "model.backbone.depth=34"]) == 0
    shown = capsys.readouterr().out
    assert "depth=34" in shown
    assert shown.index("default_scope =") < shown.index("model =") < shown.index("custom_hooks =")
    assert main(["config", "check", config]) == 0
    assert "every type and keyword is known" in capsys.readouterr().out
    assert main(["config", "check", config, "--cfg-options", "model.backbone.widht=3"]) == 1
    assert capsys.readouterr().out.startswith("problem: model.backbone.widht (--cfg-options): mmseg's ResNet takes no")
    assert main(["config", "diff", config, config]) == 0
    assert capsys.readouterr().out == ""
    assert main(["config", "diff", config, "quickstart/segmentation"]) == 1
    assert "- model.backbone.depth = 18" in capsys.readouterr().out.splitlines()
    assert main(["config", "explain", config, "train_cfg.max_iters"]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        "train_cfg.max_iters",
        "  value    30",
        "  type     int",
        "  set      bands.py:21",
    ]
    assert "nearest: train_cfg.max_iters" in _answer(["config", "explain", config, "train_cfg.max_iter"], capsys)


@pytest.mark.parametrize("command", ["test", "predict"])
def test_testing_and_predicting_answer_with_the_line_too(
    command: str, run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config, work_dir = run
    argv = [command, str(config), str(work_dir / "iter_30.pth")]
    argv += [str(config.parent / "data" / "images"), "--out", "o"] if command == "predict" else []
    answer = _answer([*argv, "--cfg-options", "model.backbone.type=ResNot"], capsys)
    assert answer.startswith(
        "model.backbone.type (--cfg-options): ResNot is not in the mmseg::model registry; nearest: "
    )


def test_a_reader_that_has_seen_enough_is_no_mistake(tmp_path: Path) -> None:
    config = write_segmentation(tmp_path)
    with config.open("a") as file:
        file.write('long = "x" * 200_000\n')  # more than a pipe holds
    code = "import sys; from visionattn.cli.main import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "config", "show", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=120) == 0
    assert "error" not in errors.lower()
