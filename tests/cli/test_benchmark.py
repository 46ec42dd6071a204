"""`visionattn benchmark kernels`."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from visionattn.analysis.kernel_bench.case import Case, Family, Form, Function, normal
from visionattn.cli.main import main

ROOT = Path(__file__).parents[2]
QUICK = ["--quick", "--repeats", "3", "--budget", "0.001"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cases in place of all; in the second a peer is wrong."""
    monkeypatch.setattr("visionattn.analysis.kernel_bench.bandwidth._COPIED", {"cpu": 4096})

    def family(name: str, peer: Form) -> Family:
        ours = Form("ours", Function(torch.mul), own=True)
        case = Case(
            name,
            "3x5 map",
            2,
            torch.float32,
            lambda images, generator: tuple(
                normal(images, 3, 5, generator=generator, dtype=torch.float32) for _ in range(2)
            ),
            lambda device: [ours, peer],
            smallest=True,
        )
        return Family(f"a {name} of maps", lambda kind: [case])

    families = {
        "product": family("product", Form("mirrored", Function(lambda a, b: b * a))),
        "broken": family("broken", Form("wrong", Function(lambda a, b: a * b + 0.1))),
    }
    monkeypatch.setattr("visionattn.cli.benchmark.kernel_families", lambda: families)


@pytest.mark.usefixtures("small")
def test_figures_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "new" / "figures.json", tmp_path / "other" / "ratios.png"
    arguments = ["benchmark", "kernels", "--cases", "product", *QUICK]
    assert main([*arguments, "--json", str(files[0]), "--plot", str(files[1])]) == 0
    printed = capsys.readouterr().out
    report = json.loads(files[0].read_text())
    assert [row["pass"] for row in report["rows"]] == ["forward", "forward + backward"]
    assert all(row["forms"]["mirrored"]["ms"] > 0 for row in report["rows"])
    assert files[1].read_bytes().startswith(b"\x89PNG")
    for part in ("product: 3x5 map, batch 2, float32", "of copying", "mirrored", "GB/s", str(files[0]), str(files[1])):
        assert part in printed
    assert all(line == line.rstrip() for line in printed.splitlines())

    again = ["benchmark", "kernels", "--redraw", str(files[0]), "--docs", str(tmp_path / "docs")]
    assert main(again) == 0
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["kernel_benchmark_cpu.png"]


@pytest.mark.usefixtures("small")
def test_what_is_not_equal_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "kernels", *QUICK, "--docs", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "refused, nothing is reported of broken, 3x5 map, float32: wrong errs by" in error
    report = json.loads((tmp_path / "kernel_benchmark_cpu.json").read_text())
    assert {row["case"] for row in report["rows"]} == {"product"}
    assert list(report["refused"]) == ["broken, 3x5 map, float32"]
    assert (tmp_path / "kernel_benchmark_cpu.png").is_file()


def test_the_cases_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "kernels", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("efficient-attention", "efficient-block", "linear-attention", "performer", "double-attention"),
        *("window-attention", "group-correlation", "first-convolution", "disparity-regression"),
    ]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["--cases", "windw-attention"],
            "there is no such case; did you mean 'window-attention'? there are efficient-",
        ),
        (["--cases", "zzz"], "--cases zzz: there is no such case; there are efficient-attention, "),
        (["--repeats", "0"], "--repeats 0: expected a number above 0"),
        (["--minutes", "-2"], "--minutes -2: expected a number above 0"),
        (["--device", "gpu7"], "--device gpu7: "),
        (["--device", "meta"], "--device meta: the sizes are chosen for cpu and cuda"),
        (["--redraw", "other.json"], "other.json is no report of `visionattn benchmark kernels`"),
        (["--redraw", "broken.json"], "broken.json is no JSON: "),
        (["--redraw", "missing.json"], "No such file or directory: missing.json"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str],
    answer: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text("{}")
    Path("broken.json").write_text("{")
    assert main(["benchmark", "kernels", *arguments]) == 2
    error = capsys.readouterr().err
    assert answer in error
    assert len(error.splitlines()) == 1


def test_no_cuda_device(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["benchmark", "kernels", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "--device cuda: " in error
    assert len(error.splitlines()) == 1


def test_the_script_for_a_gpu_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = ROOT / "tools" / "gpu_check.sh"
    lines = ran(tmp_path, "some folder", {"DRY_RUN": "1"}).stdout.splitlines()
    commands = [line for line in lines if line.startswith("+ ")]
    measured = [line for line in commands if "benchmarks/kernels.py" in line]
    assert len(measured) == 2
    for line in measured:
        # A relative folder is the caller's, who need not stand in the checkout.
        assert f"{tmp_path}/some folder" in line
        arguments = shlex.split(line.partition("kernels.py ")[2].replace("some folder", "somewhere"))
        assert main(["benchmark", "kernels", *arguments, "--list"]) == 0  # every option is known
    assert "efficient-attention" in capsys.readouterr().out
    assert f" --docs {ROOT}/docs" in ran(tmp_path, None, {"DRY_RUN": "1"}).stdout
    # Neither the package nor its command need be installed.
    assert all("python3" in line for line in commands)
    named = re.findall(r"(?:tests|benchmarks)/[\w/.]+", script.read_text())
    assert {"tests/kernels_once.py", "benchmarks/kernels.py"} <= set(named)
    assert all((ROOT / name).exists() for name in named)
    # Under ten minutes whatever hangs: the sanitizer's line stands once and runs two tools.
    seconds = [int(number) for number in re.findall(r"timeout (\d+) (?!compute)", script.read_text())]
    watched = [int(number) for number in re.findall(r"timeout (\d+) compute-sanitizer", script.read_text())]
    assert len(seconds) == 4
    assert len(watched) == 1
    assert sum(seconds) + 2 * sum(watched) < 600


@pytest.mark.parametrize(("code", "measured", "ended"), [(0, 2, 0), (124, 2, 0), (1, 2, 0), (9, 0, 9)])
def test_what_the_sanitizer_does_not_get_through_does_not_end_the_script(
    code: int, measured: int, ended: int, tmp_path: Path
) -> None:
    """Only what it found does: some machines refuse it the device, and it may need more time than there is."""
    programs = {"compute-sanitizer": f"exit {code}", "python3": 'echo "ran $*"', "timeout": 'shift; "$@"'}
    for name, body in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    run = ran(tmp_path, "docs", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert run.returncode == ended
    assert len(re.findall("^ran benchmarks/kernels.py", run.stdout, re.M)) == measured
    assert ("did not get through" in run.stdout) == (code in (1, 124))


def test_a_refused_case_is_the_scripts_failure_and_the_rest_is_measured(tmp_path: Path) -> None:
    refusing = 'echo "ran $*"; case "$*" in benchmarks/*--docs*) exit 1;; esac'
    for name, body in {"python3": refusing, "timeout": 'shift; "$@"', "compute-sanitizer": "exit 0"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    run = ran(tmp_path, "docs", {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert run.returncode == 1
    assert len(re.findall("^ran benchmarks/kernels.py", run.stdout, re.M)) == 2


def ran(folder: Path, target: str | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The script, called from this folder."""
    command = ["sh", str(ROOT / "tools" / "gpu_check.sh"), *([] if target is None else [target])]
    return subprocess.run(command, env={**os.environ, **environment}, cwd=folder, capture_output=True, text=True)
