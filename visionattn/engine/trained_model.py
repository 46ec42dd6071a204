"""A config's model with a checkpoint's weights, ready to predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.model import BaseTTAModel
from mmengine.registry import DefaultScope

from visionattn.engine.config import import_scope, load_config
from visionattn.registry import MODELS
from visionattn.weights.loading import fitted, load_state_dict
from visionattn.weights.reading import find_state_dict, read_checkpoint


class TrainedModel:
    """A model in evaluation mode, called on one packed sample at a time.

    Args:
        config: a path, a config's name, or a Config.
        checkpoint: read with the allow-list of `visionattn.weights`.
        device: the accelerator if there is one, else the CPU.
    Attributes:
        config, model, device: as built.
        dataset_meta: of the data that it was trained on, where the checkpoint tells; else empty.
    Raises:
        FileNotFoundError: config or checkpoint.
        ValueError: the config has no model, or the checkpoint is another model's.
    """

    def __init__(
        self, config: str | Path | Config, checkpoint: str | Path, device: str | torch.device | None = None
    ) -> None:
        self.config = config if isinstance(config, Config) else load_config(config)
        import_scope(self.config)
        content = read_checkpoint(checkpoint)
        self.device = torch.device(get_device() if device is None else device)
        self.dataset_meta: dict[str, Any] = content.get("meta", {}).get("dataset_meta") or {}
        with self.scope():
            self.model = MODELS.build(_model_config(self.config))
        try:
            plain = self.model.module if isinstance(self.model, BaseTTAModel) else self.model
            load_state_dict(plain, fitted(plain, find_state_dict(content)).state)
        except ValueError as error:
            raise ValueError(f"{checkpoint}: {error}") from error
        self.model.to(self.device).eval()

    def __call__(self, packed: dict[str, Any]) -> Any:
        """The predicted data sample of what a pipeline has packed, on the model's device."""
        with self.scope(), torch.inference_mode():
            return self.model.test_step(pseudo_collate([packed]))[0]

    def scope(self) -> Any:
        """Within it the config's names are looked up as the config means them."""
        return DefaultScope.overwrite_default_scope(self.config.get("default_scope", "mmengine"))


def _model_config(config: Config) -> dict[str, Any]:
    if "model" not in config:
        raise ValueError(f"{config.filename or 'the config'} has no model")
    model = dict(config.model)
    if "data_preprocessor" in config:
        model.setdefault("data_preprocessor", config.data_preprocessor)
    return model
