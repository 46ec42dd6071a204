"""Config files by path or by name."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.config.utils import MODULE2PACKAGE

import visionattn

# `_base_ = ["mmseg::pspnet/..."]` asks for a distribution; OneDL's has another name than mmengine knows.
MODULE2PACKAGE["mmseg"] = "onedl-mmsegmentation"


def load_config(name: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The config called `name`, with `options` put over it.

    Args:
        name: a path, or a name in the configs of the checkout or of the installed package, with or without ".py"
            ("quickstart/segmentation").
        options: values by dotted key, as `--cfg-options` gives them; data_root is every dataset's.
    Raises:
        FileNotFoundError: no such config; the message has the nearest names.
        ValueError: the file is no valid config, or an option does not fit into it.
    """
    path = find_config(name)
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config is a program
        raise ValueError(f"{path} is no valid config: {type(error).__name__}: {error}") from error
    if options:
        try:
            config.merge_from_dict(dict(options))
        except (KeyError, TypeError, AssertionError, IndexError) as error:
            raise ValueError(f"an option does not fit into {path}: {error}") from error
        if "data_root" in options:
            for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
                _set_data_root(config.get(loader), options["data_root"])
    return config


def _set_data_root(config: Any, data_root: str) -> None:
    """Wrappers such as RepeatDataset and ConcatDataset hold further datasets."""
    if isinstance(config, list | tuple):
        for item in config:
            _set_data_root(item, data_root)
    elif isinstance(config, Mapping):
        if "data_root" in config:
            config["data_root"] = data_root  # type: ignore[index]
        for key in ("dataset", "datasets"):
            _set_data_root(config.get(key), data_root)


def find_config(name: str | Path) -> Path:
    """The file of the config called `name`: the path given, then the checkout's, then the installed package's.

    Raises:
        FileNotFoundError: no such config; the message has the nearest names.
    """
    given = Path(name).expanduser()
    # "configs/..." is how a checkout's users write it; an installed package has no folder of that name.
    below = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    roots = config_roots()
    for candidate in (given, *(root / below for root in roots)):
        for path in (candidate, candidate.with_name(candidate.name + ".py")):
            if path.is_file():
                return path
    known = sorted({name for root in roots for name in _names(root)})
    wanted = str(below.with_suffix("") if below.suffix == ".py" else below)
    close = get_close_matches(wanted, known, n=3, cutoff=0.4)
    close = close or [full for full in known if Path(full).name == Path(wanted).name]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    raise FileNotFoundError(f"no config is called {str(name)!r}; {hint}")


def import_scope(config: Config) -> None:
    """Imports what the config's default scope stands for.

    mmseg's registry would import mmseg by itself, and mmseg prints lines of no use then; ours imports it silently.
    """
    if config.get("default_scope") == "mmseg":
        import visionattn.segmentation  # noqa: F401


def config_roots() -> list[Path]:
    """Folders with configs: the checkout's, if this is one, and the installed package's."""
    package = Path(visionattn.__file__).parent
    checkout = package.parent
    roots = [checkout / "configs"] if (checkout / "setup.cfg").is_file() else []
    return [root for root in (*roots, package / "configs") if root.is_dir()]


def _names(root: Path) -> Iterator[str]:
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if inside.name != "__init__.py" and not any(part.startswith("_base_") for part in inside.parts):
            yield inside.with_suffix("").as_posix()


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The options that `--cfg-options KEY=VALUE ...` means, values read as Python's numbers, lists, tuples, booleans.

    Raises:
        ValueError: something is not KEY=VALUE.
    """
    for pair in pairs:
        if "=" not in pair.lstrip("="):
            raise ValueError(f"--cfg-options expects KEY=VALUE, got {pair!r}")
    parser = ArgumentParser()
    parser.add_argument("--options", nargs="*", action=DictAction, default={})
    options: dict[str, Any] = parser.parse_args(["--options", *pairs]).options
    return options
