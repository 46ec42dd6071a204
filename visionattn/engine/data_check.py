"""All that is wrong with the data that a config names: each split by itself, against the heads, against the others."""

from __future__ import annotations

import hashlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from visionattn.data.findings import DataReport, Finding, Track, check_files, untracked
from visionattn.engine.config import import_scope
from visionattn.engine.config_mistakes import explain_error
from visionattn.registry import DATASETS

SPLITS = ("train", "val", "test")


@dataclass
class ConfigReport:
    """What was found in a config's data.

    Attributes:
        splits: "train", "val", "test" or "val+test" where they are one -> a report of each of its data sets.
        findings: (split or splits, what was found), in the order in which a reader wants them.
    """

    splits: dict[str, list[DataReport]] = field(default_factory=dict)
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    def count(self, level: str) -> int:
        return sum(finding.level == level for _, finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        splits = {
            name: [
                {
                    "dataset": report.dataset,
                    "samples": report.samples,
                    "checked": report.checked,
                    "histogram": asdict(report.histogram) if report.histogram else None,
                    "measured": report.measured,
                }
                for report in reports
            ]
            for name, reports in self.splits.items()
        }
        findings = [{"split": split, **asdict(finding)} for split, finding in self.findings]
        return {
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "splits": splits,
            "findings": findings,
        }


def check_data(
    config: Config,
    *,
    decode: bool = False,
    limit: int | None = None,
    track: Callable[[str], Track] = lambda split: untracked,
    options: Mapping[str, Any] | None = None,
) -> ConfigReport:
    """Looks at all data that the config's loaders name; nothing that is wrong with it raises.

    Args:
        decode: decodes every input, not the headers alone.
        limit: samples looked at in a data set, at most; None looks at all.
        track: given a split's name, what its samples are handed through as they are looked at.
        options: those put over the config file, for the place of what cannot be built.
    """
    import_scope(config)
    report = ConfigReport()
    metainfo: dict[str, Mapping[str, Any]] = {}
    with DefaultScope.overwrite_default_scope(config.get("default_scope", "mmengine")):
        for split, dataset_config in _distinct_splits(config):
            report.splits[split] = []
            for leaf in leaf_datasets(dataset_config):
                try:
                    dataset = build_to_look_at(leaf)
                except (OSError, ValueError, TypeError, KeyError) as error:
                    line = explain_error(error, config, options)
                    line = line or str(error.args[0] if isinstance(error, KeyError) and error.args else error)
                    report.findings.append((split, Finding("error", "dataset", " ".join(line.split()))))
                    continue
                found = check_files(dataset, decode=decode, limit=limit, track=track(split))
                report.splits[split].append(found)
                heads = head_class_findings(config.get("model") or {}, dataset)
                report.findings += [(split, finding) for finding in (*found.findings, *heads)]
                metainfo.setdefault(split, getattr(dataset, "metainfo", None) or {})
    report.findings = _merged(report.findings)
    report.findings += _class_names(metainfo)
    report.findings += duplicate_inputs(
        {split: [path for found in reports for path in found.inputs] for split, reports in report.splits.items()}
    )
    report.findings.sort(key=lambda item: item[1].level)  # "error" before "warning"; else as found
    return report


def leaf_datasets(config: Any) -> Iterator[Mapping[str, Any]]:
    """The data sets that a config is made of, without wrappers such as RepeatDataset and ConcatDataset."""
    if isinstance(config, list | tuple):
        for item in config:
            yield from leaf_datasets(item)
    elif isinstance(config, Mapping):
        inner = [config[key] for key in ("dataset", "datasets") if key in config]
        if inner:
            yield from leaf_datasets(inner)
        else:
            yield config


def build_to_look_at(config: Mapping[str, Any]) -> Any:
    """The data set, its files left alone until something asks for them where its class can (`lazy_init`)."""
    cls = DATASETS.get(config["type"]) if isinstance(config.get("type"), str) else config.get("type")
    if inspect.isclass(cls) and issubclass(cls, BaseDataset):
        parameters = inspect.signature(cls).parameters.values()
        if any(p.name == "lazy_init" or p.kind is p.VAR_KEYWORD for p in parameters):
            config = {**config, "lazy_init": True}
    return DATASETS.build(config)


def head_class_findings(model: Mapping[str, Any], dataset: Any) -> list[Finding]:
    """An error for each head of the model's config that has not as many classes as the data set."""
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    if classes is None:
        return []
    findings = []
    for key, number in _head_classes(model, "model"):
        if number != len(classes):
            names = ", ".join(map(str, classes[:3])) + (", ..." if len(classes) > 3 else "")
            message = f"{key}={number}, but {type(dataset).__name__} has {len(classes)} classes ({names})"
            findings.append(Finding("error", "num_classes", message, advice=f"set --cfg-options {key}={len(classes)}"))
    return findings


def duplicate_inputs(files: Mapping[str, Sequence[str]]) -> list[tuple[str, Finding]]:
    """Files that two splits share, by path or by content, for each pair of splits.

    What is trained on and evaluated on is an error. Of two splits that are only evaluated, equal paths are taken as
    meant and equal contents are a warning.

    Args:
        files: those of each split; they need not exist.
    """
    paths = {split: dict.fromkeys(str(Path(file).resolve()) for file in some) for split, some in files.items()}
    by_content = _by_content(paths)
    findings = []
    for one, other in combinations(paths, 2):
        trained = one == "train" or other == "train"
        same_path = {path: (path,) for path in paths[one] if path in paths[other] and trained}
        same_content = {
            group[one][0]: (group[one][0], group[other][0])
            for group in by_content
            if one in group and other in group and not set(group[one]) & set(group[other])
        }
        pairs = {**same_path, **same_content}
        if pairs:
            number = f"{len(pairs)} input{'s' if len(pairs) > 1 else ''} of {one} "
            message = number + ("are" if len(pairs) > 1 else "is") + f" in {other} too"
            cases = tuple(" = ".join(pair) for pair in pairs.values())
            advice = "what is evaluated on must not be trained on" if trained else "their figures are not independent"
            findings.append(
                (f"{one}, {other}", Finding("error" if trained else "warning", "duplicate", message, cases, advice))
            )
    return findings


def _by_content(paths: Mapping[str, Mapping[str, Any]]) -> list[dict[str, list[str]]]:
    """Groups of files in more than one split whose contents are equal: split -> files; hashed only where sizes are."""
    by_size: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for split, some in paths.items():
        for path in some:
            if Path(path).is_file():
                by_size[Path(path).stat().st_size][path].add(split)
    groups: list[dict[str, list[str]]] = []
    for alike in by_size.values():
        if len(alike) < 2 or len({split for splits in alike.values() for split in splits}) < 2:
            continue
        by_hash: dict[bytes, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for path, splits in alike.items():
            content = hashlib.sha256(Path(path).read_bytes()).digest()
            for split in splits:
                by_hash[content][split].append(path)
        groups += [group for group in by_hash.values() if len(group) > 1]
    return groups


def _distinct_splits(config: Config) -> Iterator[tuple[str, Any]]:
    """(name, data set's config) of each split; splits that evaluate on the same are one: "val+test"."""
    named = {split: (config.get(f"{split}_dataloader") or {}).get("dataset") for split in SPLITS}
    if named["val"] and named["val"] == named["test"]:
        named = {"train": named["train"], "val+test": named["val"]}
    yield from ((split, dataset) for split, dataset in named.items() if dataset)


def _merged(findings: Sequence[tuple[str, Finding]]) -> list[tuple[str, Finding]]:
    """Equal findings of several splits as one."""
    splits: dict[Finding, list[str]] = {}
    for split, finding in findings:
        splits.setdefault(finding, [])
        if split not in splits[finding]:
            splits[finding].append(split)
    return [(", ".join(names), finding) for finding, names in splits.items()]


def _class_names(metainfo: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Finding]]:
    """An error where two splits do not mean the same classes by the same numbers."""
    known = {split: tuple(map(str, info["classes"])) for split, info in metainfo.items() if info.get("classes")}
    findings = []
    for one, other in combinations(known, 2):
        if known[one] != known[other]:
            first = next(
                f"{index} is {a!r} in {one}, {b!r} in {other}"
                for index, (a, b) in enumerate(zip((*known[one], None), (*known[other], None), strict=False))
                if a != b
            )
            message = f"{one} and {other} have different classes: {first}"
            advice = "name the same classes in the same order"
            findings.append((f"{one}, {other}", Finding("error", "num_classes", message, advice=advice)))
    return findings


def _head_classes(config: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(config, Mapping):
        if "head" in key and isinstance(config.get("num_classes"), int):
            yield f"{key}.num_classes", config["num_classes"]
        for name, value in config.items():
            yield from _head_classes(value, f"{key}.{name}")
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from _head_classes(value, f"{key}.{index}")
