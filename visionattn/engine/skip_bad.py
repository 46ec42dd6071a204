"""`--skip-bad`: tells a config's data sets to leave out what cannot be used."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from mmengine.config import Config

from visionattn.engine.config import import_scope
from visionattn.engine.data_check import leaf_datasets
from visionattn.registry import DATASETS


def skip_bad_samples(config: Config, parts: Sequence[str]) -> None:
    """Sets `skip_bad` of every data set that the loaders of these parts are made of.

    Args:
        parts: of "train", "val", "test"; one that the config leaves out is passed over.
    Raises:
        ValueError: a data set cannot leave samples out.
    """
    import_scope(config)
    for part in parts:
        for leaf in leaf_datasets((config.get(f"{part}_dataloader") or {}).get("dataset")):
            cls = DATASETS.get(leaf["type"]) if isinstance(leaf["type"], str) else leaf["type"]
            if cls is not None and "skip_bad" not in inspect.signature(cls).parameters:
                raise ValueError(
                    f"--skip-bad: {cls.__name__} of {part}_dataloader cannot leave samples out, stereo and detection "
                    "data sets can; `visionattn data check` lists what is wrong with it"
                )
            leaf["skip_bad"] = True  # type: ignore[index]
