"""What a measured figure must be reported with."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from visionattn.analysis.interleaved import clock_of
from visionattn.version import __version__


def describe_timing(device: torch.device) -> dict[str, Any]:
    """The machine, the clock that `meter_of` reads there, the commit and the version of this package."""
    described = {**describe_machine(device), "clock": clock_of(device), "commit": checkout_commit()}
    return {**described, "visionattn": __version__}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Device, processor, threads and versions, ready for JSON."""
    described: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        described["cuda"] = torch.version.cuda
    return described


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def checkout_commit() -> str:
    """The commit of the checkout that this package runs from, with "+" if its files differ; "unknown" if installed."""
    here = Path(__file__).parent
    try:
        # A package installed below some other repository is none of that repository's files.
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name], cwd=here, capture_output=True, check=True
        )
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
