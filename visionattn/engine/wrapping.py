"""What goes around a model that several processes train: synchronised norms, then DDP or FSDP2."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.device import get_device
from mmengine.registry import MODEL_WRAPPERS
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from visionattn.engine.fsdp import FullyShardedModel
from visionattn.engine.launch import wrapper_config
from visionattn.engine.sync_bn import synchronised


def wrap(
    model: nn.Module,
    wrapper: Mapping[str, Any] | None,
    sync_bn: str | None = None,
    find_unused_parameters: bool = False,
) -> nn.Module:
    """The model, wrapped as the config says, on this process's device.

    Args:
        wrapper: the config's model_wrapper_cfg; None is mmengine's MMDistributedDataParallel.
        sync_bn: the config's: "torch" synchronises all batch norms, None those that the config names SyncBN.
        find_unused_parameters: the config's, for the wrapper None.
    Raises:
        ValueError: another sync_bn, or a batch norm that cannot be synchronised.
    """
    if sync_bn not in (None, "torch"):
        raise ValueError(f'sync_bn={sync_bn!r} must be "torch" or left out: mmcv\'s needs its compiled operations')
    device = get_device()
    model = synchronised(model, device) if sync_bn else synchronised(model, device, (nn.SyncBatchNorm,))
    config = wrapper_config(wrapper, find_unused_parameters) or {
        "broadcast_buffers": False,
        "find_unused_parameters": find_unused_parameters,
    }
    kind = config.setdefault("type", "MMDistributedDataParallel")
    kind = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    given: dict[str, Any] = {"module": model}
    if kind is not FullyShardedModel:  # which moves a unit at a time
        model.to(device)
    if isinstance(kind, type) and issubclass(kind, DistributedDataParallel):
        given["device_ids"] = [int(os.environ["LOCAL_RANK"])]
    wrapped: nn.Module = MODEL_WRAPPERS.build(config, default_args=given)
    return wrapped
