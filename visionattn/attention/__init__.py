"""One file per mechanism; every file here is imported and so registers its mechanisms."""

from importlib import import_module
from pkgutil import iter_modules

from visionattn.registry import ATTENTION

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

globals().update(ATTENTION.module_dict)
__all__ = sorted(ATTENTION.module_dict)
