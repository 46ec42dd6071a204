"""What a run needs beside weights and optimiser to go on as if it had never stopped, as plain data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from visionattn.engine.fsdp import like
from visionattn.engine.sampler import seeds, set_seeds

_STOPPING = ("best_score", "wait_count")


def run_state(runner: Any) -> dict[str, Any]:
    """The states of generators and buffers of every process; of data, loop, early stopping; gradients not yet applied.

    Every process must call it. Gradients that are sharded are left so.
    """
    accumulating = is_accumulating(runner.optim_wrapper)
    generators = {name: all_gather(state) for name, state in generator_states().items()}
    loop = runner.train_loop
    return {
        "generators": [{name: states[rank].cpu() for name, states in generators.items()} for rank in range(_size())],
        "gradients": _gradients(runner.model) if accumulating else None,
        "sharded_gradients": _sharded_gradients(runner.model) if accumulating else {},
        "buffers": _buffers(runner.model),
        "data": [seeds(loader) for loader in _loaders(runner)],
        "loop": {"validation_due": getattr(loop, "validation_due", False), "stop_training": loop.stop_training},
        "early_stopping": [{name: getattr(hook, name) for name in _STOPPING} for hook in _stopping_hooks(runner)],
    }


def restore_run_state(runner: Any, state: Mapping[str, Any]) -> None:
    """Brings back all of `run_state` but the generators, which `set_generators` does last of all."""
    for loader, found in zip(_loaders(runner), state["data"], strict=False):
        set_seeds(loader, found)
    for name, value in state["loop"].items():
        setattr(runner.train_loop, name, value)
    for hook, found in zip(_stopping_hooks(runner), state["early_stopping"], strict=False):
        for name in _STOPPING:
            setattr(hook, name, found[name])
    if len(state["buffers"]) == _size():
        _plain(runner.model).load_state_dict(state["buffers"][get_rank()], strict=False)
    if state["gradients"] is not None:
        if len(state["gradients"]) != _size():
            print_log(
                f"the checkpoint's {len(state['gradients'])} processes were within a gradient accumulation, this run "
                f"has {_size()}: that step begins anew",
                logger="current",
            )
            return
        found = {**state["gradients"][get_rank()], **state.get("sharded_gradients", {})}
        for name, parameter in _plain(runner.model).named_parameters():
            if name in found:
                gradient = like(found[name], parameter)
                parameter.grad = gradient.to(parameter.device, copy=True)


def generators_of_this_process(state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Of `run_state`'s generators those of this process; None, and said so, if another number of processes saved."""
    if len(state["generators"]) == _size():
        found: dict[str, Tensor] = state["generators"][get_rank()]
        return found
    print_log(
        f"{len(state['generators'])} processes wrote the checkpoint, {_size()} resume it: the data goes on where it "
        "stopped, dropout draws other numbers",
        logger="current",
    )
    return None


def generator_states() -> dict[str, Tensor]:
    """The states of python's, numpy's, torch's and the current GPU's generators, of fixed shapes."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state())
    states = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([gauss is not None, gauss or 0.0], dtype=torch.float64),
        "numpy": torch.tensor([*keys.tolist(), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: Mapping[str, Tensor]) -> None:
    """Puts the generators where `generator_states` found them."""
    has_gauss, gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss if has_gauss else None))
    *keys, position, cached = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, cached, states["numpy_gauss"].item()))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def is_accumulating(wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Whether gradients wait for the rest of their step."""
    wrappers = wrapper.optim_wrappers.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return any(one._inner_count > 0 and not one.should_update() for one in wrappers)


def _sharded_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Those that are spread over the processes, by the parameters' names: already the sums over the processes."""
    gradients = ((name, parameter.grad) for name, parameter in _plain(model).named_parameters())
    return {name: gradient for name, gradient in gradients if isinstance(gradient, DTensor)}


def _gradients(model: nn.Module) -> list[dict[str, Tensor]]:
    """Of every process the other gradients by the parameters' names."""
    found: list[dict[str, Tensor]] = [{} for _ in range(_size())]
    named = _plain(model).named_parameters()
    parameters = [(name, p) for name, p in named if p.requires_grad and not isinstance(p, DTensor)]
    if not parameters:
        return found
    mine = torch.tensor([p.grad is not None for _, p in parameters], dtype=torch.int64)
    theirs = [flags.cpu() for flags in all_gather(mine)]
    anywhere = mine.clone()
    all_reduce(anywhere, "max")
    for index, (name, parameter) in enumerate(parameters):
        if not anywhere[index]:
            continue
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for rank, part in enumerate(all_gather(gradient)):
            if theirs[rank][index]:
                found[rank][name] = part.cpu().clone()
    return found


def _buffers(model: nn.Module) -> list[dict[str, Tensor]]:
    """Of every process the buffers that differ from the first one's: running statistics that nothing averages."""
    found: list[dict[str, Tensor]] = [{} for _ in range(_size())]
    if _size() > 1:
        for name, buffer in _plain(model).named_buffers():
            first, *others = all_gather(buffer)
            for rank, other in enumerate(others, 1):
                if not torch.equal(first, other):
                    found[rank][name] = other.cpu()
    return found


def _plain(model: Any) -> nn.Module:
    module: nn.Module = getattr(model, "module", model)
    return module


def _stopping_hooks(runner: Any) -> list[EarlyStoppingHook]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def _loaders(runner: Any) -> list[DataLoader[Any]]:
    return [runner.train_dataloader, *([runner.val_dataloader] if runner.val_loop is not None else [])]


def _size() -> int:
    size: int = get_world_size()
    return size
