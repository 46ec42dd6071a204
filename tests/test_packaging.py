"""What the wheel ships: every package, and the configs."""

from __future__ import annotations

import configparser
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    assert sorted(listed) == sorted([*find_packages(str(ROOT), include=["visionattn*"]), "visionattn.configs"])


def test_configs_are_found_as_package_data() -> None:
    configs = sorted((ROOT / "configs").rglob("*.py"))
    assert any(path.parts[-2:] == ("quickstart", "segmentation.py") for path in configs)
    assert all(path.suffix == ".py" for path in (ROOT / "configs").rglob("*.*") if "__pycache__" not in path.parts)
