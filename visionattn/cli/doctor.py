"""`visionattn doctor`: what is installed, and what of it does not fit together."""

from __future__ import annotations

import contextlib
import io
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module, metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# Distributions that install the same import names: whichever came last has overwritten the other's files.
_SAME_FILES = {
    "onedl-mmengine": ("mmengine", "mmengine-lite"),
    "onedl-mmcv": ("mmcv", "mmcv-lite", "mmcv-full"),
    "onedl-mmsegmentation": ("mmsegmentation",),
}
_OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
_IMPORTED = ("torch", "torchvision", "timm", "cv2", "albumentations", "mmengine", "mmcv", "mmseg")


def add_arguments(parser: ArgumentParser) -> None:
    """None: the whole environment is looked at."""


def run(args: Namespace) -> int:
    versions: dict[str, str] = {canonicalize_name(found.name): found.version for found in metadata.distributions()}
    needs = list(_requirements("visionattn"))
    shown = ["visionattn", *(canonicalize_name(need.name) for need in needs), "numpy", *_OPENCV]
    print(f"{'python':<24} {platform.python_version()}")
    for name in dict.fromkeys(shown):
        if name in versions or name not in _OPENCV:
            print(f"{name:<24} {versions.get(name, 'missing')}")
    problems = [*mismatches(versions, needs, list(_requirements("torchvision"))), *broken_imports()]
    for line in _devices():
        print(f"{'device':<24} {line}")
    for line in _kernels():
        print(f"{'kernels':<24} {line}")
    for problem in problems:
        print(f"problem: {problem}")
    if not needs:
        print("visionattn is not installed: its requirements are not known; pip install -e . in the checkout")
    elif not problems:
        print("everything fits together")
    return 1 if problems else 0


def mismatches(
    versions: Mapping[str, str], needs: Iterable[Requirement], torchvision_needs: Iterable[Requirement]
) -> list[str]:
    """What does not fit, one line each, with the way out.

    Args:
        versions: of every installed distribution, by its canonical name.
        needs: what visionattn requires.
        torchvision_needs: what the installed torchvision requires, by its own metadata; it names the torch it fits.
    """
    problems = []
    for need in needs:
        version = versions.get(canonicalize_name(need.name))
        if version is None:
            problems.append(f'{need.name} is missing: pip install "{_bare(need)}"')
        elif not need.specifier.contains(version, prereleases=True):
            problems.append(
                f'{need.name} {version}, but visionattn was tested with {need.specifier}: pip install "{_bare(need)}"'
            )
    for need in torchvision_needs:
        if need.name == "torch" and "torch" in versions:
            problems.extend(_torch_pair(versions["torch"], versions.get("torchvision", "?"), need))
    for ours, originals in _SAME_FILES.items():
        for original in originals:
            if original in versions:
                again = f"pip uninstall -y {original} {ours} && pip install {ours}"
                problems.append(f"{original} {versions[original]} overwrites files of {ours}: {again}")
    opencv = {name: versions[name] for name in _OPENCV if name in versions}
    if len(set(opencv.values())) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in opencv.items())
        problems.append(f"{listed} overwrite each other's cv2: uninstall all of them and install opencv-python alone")
    return problems


def broken_imports(modules: Iterable[str] = _IMPORTED) -> list[str]:
    """What is installed and cannot be imported, one line each."""
    problems = []
    for module in modules:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # a missing distribution is another line's matter
                problems.append(f"{module} cannot be imported: {_one_line(error)}")
        except Exception as error:  # whatever a broken installation raises
            problems.append(f"{module} cannot be imported: {_one_line(error)}")
    return problems


def _torch_pair(torch: str, torchvision: str, need: Requirement) -> Iterator[str]:
    if not need.specifier.contains(torch, prereleases=True):
        yield (
            f"torchvision {torchvision} requires torch{need.specifier}, but torch is {torch}: "
            f'pip install "torch{need.specifier}" torchvision=={Version(torchvision).public}'
        )
        return
    builds = Version(torch).local, Version(torchvision).local
    if all(builds) and builds[0] != builds[1]:
        yield f"torch is built for {builds[0]} and torchvision for {builds[1]}: install both from one index"


def _requirements(distribution: str) -> Iterator[Requirement]:
    """What it requires here, without extras; nothing if it is not installed."""
    try:
        lines = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        need = Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield need


def _bare(need: Requirement) -> str:
    return f"{need.name}{need.specifier}"


def _devices() -> Iterator[str]:
    try:
        import torch
    except Exception:  # named by broken_imports
        return
    yield f"cpu, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
    if torch.backends.mps.is_available():
        yield "mps"


def _kernels() -> Iterator[str]:
    """Whether our kernels serve each CUDA device, and why not; on other devices, whether the exact forms are off."""
    try:
        import torch

        from visionattn.ops.kernels.dispatch import kernels_allowed, why_none

        for index in range(torch.cuda.device_count()):
            reason = why_none(torch.device("cuda", index))
            yield f"cuda:{index} " + ("served" if reason is None else f"plain PyTorch, because {reason}")
        if not torch.cuda.device_count():
            yield "no CUDA device" if kernels_allowed() else "VISIONATTN_KERNELS=off: exact forms are off as well"
    except ValueError as error:  # the variable's
        yield str(error)
    except Exception:  # named by broken_imports
        return


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
