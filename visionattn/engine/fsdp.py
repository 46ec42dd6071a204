"""FSDP2: a model whose parameters, gradients and optimiser state are spread over the processes.

For what outgrows one card; below that DDP is faster. A checkpoint has the names and layout of a plain model's: it does
not matter how many processes wrote it, and with which wrapper. It is put together and written by the first process, or
with `sharded_checkpoints` written by each in its part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import broadcast, is_main_process
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed import get_world_size, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from visionattn.registry import MODEL_WRAPPERS
from visionattn.weights.sharded import Box, Key, StoredTensor, mapped, put_together

_DTYPES = {None: None, "bfloat16": torch.bfloat16}


@MODEL_WRAPPERS.register_module()
class FullyShardedModel(nn.Module):
    """A model sharded by torch's fully_shard; in the place of DDP.

        model_wrapper_cfg = dict(type="visionattn.FullyShardedModel", units=["SwinBlock"])

    A unit's parameters are gathered together when it runs, and freed after. What is in no unit forms one of its own.
    Weights are initialised before they are sharded; EMAHook, which copies the model, does not go with it.

    Args:
        module: the model, not yet on a GPU: it is moved a unit at a time.
        units: class names of the units, most often a backbone's blocks.
        param_dtype: "bfloat16" gathers and computes in it, and reduces gradients in float32; None leaves all as it is.
        reshard_after_forward: frees a unit's parameters between forward and backward: less memory, one gather more.
        sharded_checkpoints: each process writes its own part, into a folder `iter_N.sharded` instead of a file
            `iter_N.pth`: for what one process's memory does not hold.
    Raises:
        ValueError: a unit's class that the model lacks, or another param_dtype.
    """

    def __init__(
        self,
        module: nn.Module,
        units: Sequence[str],
        param_dtype: str | None = None,
        reshard_after_forward: bool = True,
        sharded_checkpoints: bool = False,
    ) -> None:
        super().__init__()
        self.sharded_checkpoints = sharded_checkpoints
        if param_dtype not in _DTYPES:
            raise ValueError(f'param_dtype={param_dtype!r} must be "bfloat16" or None')
        found = [part for part in module.modules() if type(part).__name__ in units]
        missing = sorted(set(units) - {type(part).__name__ for part in found})
        if missing:
            parts = sorted({type(p).__name__ for p in module.modules() if any(True for _ in p.parameters())})
            raise ValueError(f"units: the model has no {', '.join(missing)}; its classes are {', '.join(parts)}")
        _initialise(module)
        device = get_device()
        if hasattr(module, "_set_device"):  # tells mmengine's data preprocessor where its batches go
            module._set_device(torch.device(device))  # type: ignore[operator]
        mesh = init_device_mesh(device, (get_world_size(),))
        dtype = _DTYPES[param_dtype]
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)
        for part in [*reversed(found), module]:  # inner units first
            fully_shard(part, mesh=mesh, reshard_after_forward=reshard_after_forward, mp_policy=policy)
            for name in ("loss", "predict"):  # by which mmseg calls its heads
                if part is not module and hasattr(part, name):
                    register_fsdp_forward_method(part, name)
        self.module: Any = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.module.train_step(data, optim_wrapper)
        return losses

    def val_step(self, data: Any) -> Any:
        return self.module.val_step(data)

    def test_step(self, data: Any) -> Any:
        return self.module.test_step(data)


def _initialise(module: nn.Module) -> None:
    """mmengine's initialisation, which comes after the wrapping where it is DDP."""
    if hasattr(module, "init_weights"):
        module.init_weights()  # type: ignore[operator]
        for value in module.state_dict().values():
            broadcast(value)


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def box_of(tensor: DTensor) -> Box:
    """Where this process's part of a sharded tensor lies in the whole one."""
    (chunk,) = tensor.__create_chunk_list__()
    return Box(tuple(chunk.offsets), tuple(chunk.sizes))


def whole(state: Any) -> Any:
    """A nest of dicts and lists with every sharded tensor put together; on the CPU, and in the first process only.

    Every process must call it: it is theirs that are put together, one tensor at a time.
    """

    def gathered(value: Any, key: Key) -> Any:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if is_main_process() else None

    return mapped(state, gathered)


def like(tensor: Tensor | StoredTensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor, if the parameter of its shape is sharded; else the tensor.

    Of one in a sharded checkpoint no more than that part is read.
    """
    if not isinstance(parameter, DTensor) or isinstance(tensor, DTensor) or tensor.shape != parameter.shape:
        return tensor.whole() if isinstance(tensor, StoredTensor) else tensor
    mesh, placements = parameter.device_mesh, parameter.placements
    if isinstance(tensor, StoredTensor):
        part = tensor.region(box_of(parameter)).to(parameter.device)
        return DTensor.from_local(part, mesh, placements, shape=parameter.shape, stride=parameter.stride())
    # Every process has read all: nothing is sent.
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)


def like_model(state: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """A state dict of whole tensors, those sharded that the model has sharded."""
    own = {name: value for name, value in model.state_dict().items() if isinstance(value, DTensor)}
    made: Mapping[str, Any] = _placed(state, own) if own else put_together(state)
    return made


def like_optimizer(state: Mapping[str, Any], wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Any]:
    """An optimiser's state dict of whole tensors, those sharded whose parameters are."""
    if isinstance(wrapper, OptimWrapperDict):
        return {name: like_optimizer(one, wrapper[name]) for name, one in state.items()}
    names = [name for group in state["param_groups"] for name in group["params"]]
    parameters = [parameter for group in wrapper.param_groups for parameter in group["params"]]
    found = dict(zip(names, parameters, strict=True)) if len(names) == len(parameters) else {}
    return {**state, "state": _placed(state["state"], found)}


def _placed(state: Mapping[Any, Any], parameters: Mapping[Any, Tensor]) -> Any:
    """A nest of tensors, each like the parameter that its name or number in the state stands for."""

    def placed(value: Any, key: Key) -> Any:
        parameter = parameters.get(key[0])
        return value if parameter is None or not isinstance(value, Tensor | StoredTensor) else like(value, parameter)

    return put_together(mapped(state, placed))
