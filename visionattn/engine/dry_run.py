"""What a training would cost, from two of its steps: memory, parameters by part, what each group of them learns by."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from visionattn.attention.base import TokenMixer
from visionattn.engine.borrowed_run import borrow_run, endless_batches
from visionattn.engine.compile import CompileHook
from visionattn.engine.runner import Runner

# Attention of other packages, by their classes' names.
_ATTENTION = re.compile(r"attention|attn|msa$|nonlocal", re.IGNORECASE)


def dry_run(config: Config) -> list[str]:
    """The report's lines, from two training steps (the optimiser's memory is there from the second on)."""
    return borrow_run(config, _report)


def parameter_lines(model: nn.Module) -> list[str]:
    """Parameters of the model's parts, and how many of each are attention's."""
    lines = [f"parameters   {_count(model)}"]
    for name, part in model.named_children():
        if any(True for _ in part.parameters()):
            lines.append(f"  {name:<18} {_count(part)}")
            inside = sum(_numel(module) for module in _attention(part))
            if inside:
                lines.append(f"    {'attention':<16} {inside:,}")
    return lines


def group_lines(optim_wrapper: OptimWrapper, model: nn.Module) -> list[str]:
    """Each learning rate and weight decay, with the parameters that have it, and the rate that a schedule begins with.

    Some schedules (OneCycleLR) give every group one rate, whatever was configured.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups: dict[tuple[float, float, float | None], list[nn.Parameter]] = {}
    for group in optim_wrapper.param_groups:
        # mmengine's wrapper adds a group without a parameter of the model, for its log.
        if id(group["params"][0]) in names:
            key = (group.get("configured_lr", group["lr"]), group["lr"], group.get("weight_decay"))
            groups.setdefault(key, []).extend(group["params"])
    lines = []
    for (rate, first, decay), members in sorted(groups.items(), key=lambda item: (-item[0][0], -(item[0][2] or 0))):
        count = sum(parameter.numel() for parameter in members)
        lines.append(
            f"  lr {rate:<9.3g} first step {first:<9.3g} weight decay {'-' if decay is None else f'{decay:g}':<7}"
            f"{count:>13,} in {len(members)} tensors: {names[id(members[0])]}" + (", ..." if len(members) > 1 else "")
        )
    return lines


def _report(runner: Runner) -> list[str]:
    model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for hook in runner.hooks:
        if isinstance(hook, CompileHook):
            hook.before_train(runner)
    cuda = next(model.parameters()).is_cuda
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    batches = endless_batches(runner)
    groups = group_lines(runner.optim_wrapper, model)
    seconds = losses = None
    for _ in range(2):
        began = time.perf_counter()
        for _ in range(runner.optim_wrapper._accumulative_counts):
            losses = runner.model.train_step(next(batches), optim_wrapper=runner.optim_wrapper)
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    assert losses is not None
    wrapper = runner.optim_wrapper
    name = type(wrapper.optimizer).__name__
    return [
        *parameter_lines(model),
        f"optimiser    {name} by {type(wrapper).__name__}",
        *groups,
        f"loss         {float(losses['loss'].detach()):.4f}",
        f"step         {seconds:.3f} s with its data, loaded by this process",
        f"peak memory  {_peak_memory(cuda)}",
    ]


def _peak_memory(cuda: bool) -> str:
    if cuda:
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU"
    # Linux counts in KiB.
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, of the whole process"


def _numel(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _count(module: nn.Module) -> str:
    frozen = sum(parameter.numel() for parameter in module.parameters() if not parameter.requires_grad)
    return f"{_numel(module):,}" + (f", {frozen:,} of them frozen" if frozen else "")


def _attention(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that attend."""
    if isinstance(module, TokenMixer) or _ATTENTION.search(type(module).__name__):
        yield module
        return
    for child in module.children():
        yield from _attention(child)
