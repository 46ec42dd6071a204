"""albumentations, imported without its look on PyPI for a newer version."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
from albumentations.core.type_definitions import Targets

__all__ = ["Targets", "albumentations"]
