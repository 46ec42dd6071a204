"""What can be known of a config without its data: types, keywords, files, and that its model can be built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from visionattn.engine.config import import_scope
from visionattn.engine.config_kinds import Key, dicts_of, keywords_of_the_builder, kind_of, registry_name
from visionattn.engine.config_mistakes import ConfigMistake, Entries, explain_error
from visionattn.engine.registered import find_type, is_registered_anywhere, keywords, root_registry, unknown_keyword
from visionattn.registry import MODELS, TRANSFORMS

_OF_ALBUMENTATIONS = ("Albumentations", "Albu", "StereoColour", "DetectionAugment")
_FILES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")


def check_types(config: Config, options: Mapping[str, Any] | None = None) -> list[str]:
    """What is wrong with the config, one line each with key, file and line; nothing is read but weights' names.

    Args:
        options: those put over the config file.
    """
    import_scope(config)
    entries = Entries(config, options)
    problems = [*_unknown(config, entries), *_missing_files(config, entries)]
    return problems or list(_unbuildable(config, options))


def refuse_unknown(config: Config, options: Mapping[str, Any] | None = None) -> None:
    """Looks at types and keywords alone, in a moment: nothing is built and no file is read.

    Raises:
        ConfigMistake: the first that is unknown, and how many more are.
    """
    import_scope(config)
    problems = list(_unknown(config, Entries(config, options)))
    if problems:
        more = f" (and {len(problems) - 1} more; `visionattn config check` lists all)" if problems[1:] else ""
        raise ConfigMistake(f"{problems[0]}{more}")


def check_notes(config: Config) -> list[str]:
    """What is no mistake and worth knowing: data that is not here."""
    notes: dict[str, str] = {}
    for key, entry in dicts_of(config):
        root = entry.get("data_root")
        if registry_name(key) == "dataset" and isinstance(root, str) and root and not Path(root).is_dir():
            notes.setdefault(root, f"{'.'.join(key)}.data_root: {root} is not here, so its data is not looked at")
    return list(notes.values())


def _unknown(config: Config, entries: Entries) -> Iterator[str]:
    skipped: list[Key] = []
    for key, entry in dicts_of(config):
        if any(key[: len(outer)] == outer for outer in skipped):
            continue
        name = registry_name(key)
        registry = root_registry(name) if name else None
        kind = kind_of(config, key, entry)
        named = entry.get("type")
        if kind is None and isinstance(named, str) and registry is not None:
            if is_registered_anywhere(named, entries.scope):
                continue
            yield f"{entries.label((*key, 'type'))}: {entries.sentence(named, registry)}"
            skipped.append(key)
        elif kind is not None:
            taken, open_ended = keywords(kind)
            for keyword in entry:
                if not open_ended and keyword not in taken and keyword not in keywords_of_the_builder(key):
                    yield f"{entries.label((*key, str(keyword)))}: {unknown_keyword(str(keyword), kind)}"
            if str(named).rpartition(".")[2] in _OF_ALBUMENTATIONS:
                skipped.append((*key, "transforms"))  # types of another registry; building, below, checks them
        constructor = entry.get("constructor")
        if key == ("optim_wrapper",) and isinstance(constructor, str):
            constructors = root_registry("optimizer wrapper constructor")
            if constructors is not None and find_type(constructor, constructors, entries.scope) is None:
                yield f"{entries.label((*key, 'constructor'))}: {entries.sentence(constructor, constructors)}"


def _missing_files(config: Config, entries: Entries) -> Iterator[str]:
    for key, entry in [((), config._cfg_dict.to_dict()), *dicts_of(config)]:
        for name, value in entry.items():
            if not isinstance(value, str) or "://" in value or not value.endswith(_FILES):
                continue
            if name in ("load_from", "checkpoint", "pretrained") and not Path(value).expanduser().is_file():
                yield f"{entries.label((*key, str(name)))}: no file {value}"


def _unbuildable(config: Config, options: Mapping[str, Any] | None) -> Iterator[str]:
    """The pipelines and the model, built."""
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmengine")):
        seen = []
        for key, entry in dicts_of(config):
            listed = key[-2:-1] == ("pipeline",) or key[-3:-1] == ("dataset", "transforms")
            step = registry_name(key) == "transform" and listed and "type" in entry
            if step and entry not in seen:
                seen.append(entry)
                yield from _failure(TRANSFORMS, entry, config, options)
        if config.get("model"):
            yield from _failure(MODELS, config.model, config, options)


def _failure(
    registry: Any, entry: Mapping[str, Any], config: Config, options: Mapping[str, Any] | None
) -> Iterator[str]:
    try:
        registry.build(dict(entry))
    except Exception as error:  # whatever a constructor raises
        answer = explain_error(error, config, options)
        yield answer or f"{entry.get('type')}: {type(error).__name__}: {' '.join(str(error).split())}"
