"""Pairs of versions that do not fit are named, with the way out."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from visionattn.cli import doctor
from visionattn.cli.doctor import broken_imports, mismatches
from visionattn.cli.main import main
from visionattn.ops.kernels import dispatch

FINE = {
    "torch": "2.11.0+cpu",
    "torchvision": "0.26.0+cpu",
    "onedl-mmengine": "0.10.12",
    "onedl-mmcv": "2.3.6",
    "onedl-mmsegmentation": "1.4.2",
    "opencv-python": "5.0.0.93",
    "opencv-python-headless": "5.0.0.93",
}
NEEDS = [
    Requirement(line)
    for line in ("torch>=2.11", "torchvision>=0.26", "onedl-mmengine==0.10.12", "opencv-python>=4.10,<6")
]
PINNED = [Requirement("numpy"), Requirement("torch==2.11.0")]


def test_what_fits_is_no_problem() -> None:
    assert mismatches(FINE, NEEDS, PINNED) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"torch": "2.12.0"}, 'torchvision 0.26.0+cpu requires torch==2.11.0, but torch is 2.12.0: pip install "torch'),
        ({"torch": "2.11.0+cu128"}, "torch is built for cu128 and torchvision for cpu"),
        (
            {"onedl-mmengine": "0.10.11"},
            "onedl-mmengine 0.10.11, but visionattn was tested with ==0.10.12: pip install",
        ),
        ({"onedl-mmengine": None}, 'onedl-mmengine is missing: pip install "onedl-mmengine==0.10.12"'),
        ({"mmcv": "2.1.0"}, "mmcv 2.1.0 overwrites files of onedl-mmcv: pip uninstall -y mmcv onedl-mmcv && pip"),
        ({"mmcv-lite": "2.1.0"}, "mmcv-lite 2.1.0 overwrites files of onedl-mmcv"),
        ({"mmengine": "0.10.7"}, "mmengine 0.10.7 overwrites files of onedl-mmengine"),
        ({"mmsegmentation": "1.2.2"}, "mmsegmentation 1.2.2 overwrites files of onedl-mmsegmentation"),
        (
            {"opencv-python-headless": "4.10.0.84"},
            "opencv-python 5.0.0.93 and opencv-python-headless 4.10.0.84 overwrite each other's cv2",
        ),
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, str | None], expected: str) -> None:
    versions = {name: version for name, version in {**FINE, **changed}.items() if version is not None}
    (problem,) = mismatches(versions, NEEDS, PINNED)
    assert problem.startswith(expected)


def test_modules_that_cannot_be_imported_are_named(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "va_broken.py").write_text("raise OSError('libGL.so.1: cannot\\nopen')")
    (folder / "va_lacking.py").write_text("import va_nothing_of_this_name")
    (folder / "va_chatty.py").write_text("print('hello')")
    monkeypatch.syspath_prepend(str(folder))
    assert broken_imports(["va_broken", "va_lacking", "va_chatty", "va_not_installed"]) == [
        "va_broken cannot be imported: OSError: libGL.so.1: cannot open",
        "va_lacking cannot be imported: ModuleNotFoundError: No module named 'va_nothing_of_this_name'",
    ]


@pytest.mark.parametrize("problems", [[], ["torch 1.0 is old"]])
def test_the_exit_code_tells_whether_all_is_well(
    problems: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "mismatches", lambda *_: problems)
    monkeypatch.setattr(doctor, "broken_imports", list)
    assert main(["doctor"]) == (1 if problems else 0)
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: line.split()[1:] for line in lines if line}
    for name in ("python", "visionattn", "torch", "torchvision", "timm", "onedl-mmcv", "numpy", "device", "kernels"):
        assert name in shown
    assert lines[-1] == ("problem: torch 1.0 is old" if problems else "everything fits together")


@pytest.mark.parametrize("reason", [None, "Triton finds no C compiler"])
def test_each_gpu_is_said_to_be_served_or_why_not(reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(dispatch, "_unready", lambda device: reason if device.index == 1 else None)
    assert list(doctor._kernels()) == [
        "cuda:0 served",
        "cuda:1 served" if reason is None else f"cuda:1 plain PyTorch, because {reason}",
    ]


@pytest.mark.parametrize(
    ("value", "said"), [("on", "no CUDA device"), ("off", "exact forms are off"), ("none", "neither on nor off")]
)
def test_the_switch_of_the_kernels_is_shown(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONATTN_KERNELS", value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (line,) = doctor._kernels()
    assert said in line
