"""Attention in place of the 3x3 convolution of residual blocks, by the path of a block or of the convolution.

As in Bottleneck Transformers (Srinivas et al., CVPR 2021, arXiv 2101.11605, section 3): the 1x1 convolutions, the norms
and the activations of the block stay, and a strided convolution becomes attention at full resolution, then average
pooling.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from torch import Tensor, nn

from visionattn.backbones.host import called_nowhere, check_host, modules_at
from visionattn.backbones.probe import example_outputs_of, outputs_of
from visionattn.blocks.conv_attention import ConvAttention
from visionattn.typing import AttentionConfig


def replace_convolution(
    model: nn.Module,
    attention: Mapping[str, AttentionConfig],
    *,
    example_input: Tensor | tuple[Tensor, ...] | None = None,
) -> nn.Module:
    """The same model, with attention where 3x3 convolutions were.

    Of a block with two of them (ResNet-18's and -34's) the second is replaced: it keeps width and resolution. The names
    of all other parameters stay; those of a replaced `conv2` become `conv2.attn.*`. Make the optimizer afterwards, and
    load weights that were trained with the convolution before.

    Args:
        attention: path of a residual block, of an nn.Sequential of them (a stage) or of a convolution -> config of a
            mechanism. One that is bound to a grid gives it itself.
        example_input: what the forward takes; if None, zeros of the model's own size or [1, 3, 224, 224].
    Raises:
        KeyError: no module at a path, or no mechanism of a name.
        TypeError: an option that a mechanism does not have.
        ValueError: no 3x3 convolution with as many channels out as in, a mechanism's option that does not fit them, or
            a model that does not run.
        Whatever is raised, the model is as it was.
    """
    check_host(model, "replace convolutions", "a convolution is replaced")
    targets = modules_at(model, attention, "replace_convolution")
    found: dict[str, tuple[nn.Conv2d, AttentionConfig]] = {}
    for path, target in targets.items():
        for where, convolution in _convolutions(path, target):
            if where in found:
                raise ValueError(f"{where!r} is named twice: by {path!r} and by a path above or below it")
            found[where] = convolution, attention[path]

    convolutions = [convolution for convolution, _ in found.values()]
    inputs, before = example_outputs_of(model, convolutions, example_input)
    for where, (convolution, _) in found.items():
        if not before[convolution]:
            raise ValueError(called_nowhere(model, where, convolution))
    replaced = {where: _attention_for(where, convolution, cfg) for where, (convolution, cfg) in found.items()}
    with ExitStack() as undo:
        for where, module in replaced.items():
            _put(model, where, module)
            undo.callback(_put, model, where, found[where][0])
        try:
            after = outputs_of(model, list(replaced.values()), inputs)
        except Exception as error:
            raise ValueError(f"{type(model).__name__} does not run with the attention in it: {error}") from error
        for where, module in replaced.items():
            shapes = [[list(x.shape) for x in outputs] for outputs in (before[found[where][0]], after[module])]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"the convolution {where!r} returns {_shown(shapes[0])} and attention in its place "
                    f"{_shown(shapes[1])}; only one that pads, so that its stride alone makes the map smaller, can be "
                    "replaced"
                )
        undo.pop_all()
    return model


def _convolutions(path: str, target: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The 3x3 convolutions that attention takes the place of, by path.

    Raises:
        ValueError: there is none, or more than a residual block has.
    """
    if isinstance(target, nn.Sequential):
        return [found for name, block in target.named_children() for found in _convolutions(f"{path}.{name}", block)]
    where = f"{path!r} ({type(target).__name__})"
    if isinstance(target, nn.Conv2d):
        if not _is_replaceable(target):
            raise ValueError(
                f"{where} is {_described(target)}; attention takes the place of a 3x3 convolution with as many "
                "channels out as in"
            )
        return [(path, target)]
    branch = {name: m for name, m in target.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in name}
    fitting = [name for name, convolution in branch.items() if _is_replaceable(convolution)]
    if not fitting:
        has = ", ".join(f"{name} is {_described(convolution)}" for name, convolution in branch.items())
        raise ValueError(
            f"{where} has no 3x3 convolution with as many channels out as in"
            f"{f': {has}' if has else ''}; name a residual block that has one, or use insert_attention"
        )
    if len(fitting) > 2 or any(name.count(".") > 1 for name in fitting):
        names = ", ".join(f"{path}.{name}" for name in fitting)
        raise ValueError(f"{where} is no single residual block: it has {names}; name blocks or convolutions in it")
    return [(f"{path}.{fitting[-1]}", branch[fitting[-1]])]


def _is_replaceable(convolution: nn.Conv2d) -> bool:
    return convolution.kernel_size == (3, 3) and convolution.in_channels == convolution.out_channels


def _described(convolution: nn.Conv2d) -> str:
    kernel = "x".join(map(str, convolution.kernel_size))
    return f"{kernel} with {convolution.in_channels} channels in and {convolution.out_channels} out"


def _attention_for(path: str, convolution: nn.Conv2d, cfg: AttentionConfig) -> ConvAttention:
    """On the convolution's device, in its dtype and mode."""
    rows, columns = convolution.stride
    try:
        module = ConvAttention(convolution.in_channels, cfg, stride=(rows, columns))
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"at {path!r}: {error.args[0]}") from error
    weight = convolution.weight
    return module.to(device=weight.device, dtype=weight.dtype).train(convolution.training)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Hangs the module where another one of the path was, in its place among its siblings."""
    parent, _, name = path.rpartition(".")
    model.get_submodule(parent)._modules[name] = module


def _shown(shapes: list[list[int]]) -> str:
    return " and ".join(map(str, shapes))
