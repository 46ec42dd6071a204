"""Attention in any model, by the path of a module: what that module returns goes through an AttentionPlugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias, cast

from torch import Tensor, nn

from visionattn.backbones.attachment import find_attachment
from visionattn.backbones.host import called_nowhere, check_host, modules_at
from visionattn.backbones.layout import map_layout
from visionattn.backbones.probe import example_outputs_of, other_sizes, outputs_of
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.registry import SCOPE
from visionattn.typing import AttentionConfig

Inserted: TypeAlias = AttentionConfig | Sequence[AttentionConfig]
"""A mechanism's config, dict(type="AttentionPlugin", attention=..., norm=...), or several to run in turn."""


def insert_attention(
    model: nn.Module, attention: Mapping[str, Inserted], *, example_input: Tensor | tuple[Tensor, ...] | None = None
) -> nn.Module:
    """The same model, with attention behind the modules named by path.

    The host's parameter names, modes and buffers stay. The new parameters are `<path>.attention_plugin.*`, or below
    the last child of a module that runs all its children in a way of its own. Make the optimizer afterwards. Unless
    `zero_init=False`, the model computes what it did before.

    Args:
        model: any module with a forward.
        attention: path of a module as in `model.named_modules()` -> config of a mechanism or of an AttentionPlugin,
            or several of them to run one after another.
        example_input: what the forward takes; if None, zeros of the model's own size or [1, 3, 224, 224]. The model
            runs on it, and on another size that tells the layout of its maps.
    Raises:
        KeyError: no module at a path, or no mechanism of a name.
        TypeError: an option that a mechanism or AttentionPlugin does not have.
        ValueError: the module's output is no feature map, or the model does not run.
        Whatever is raised, the model is as it was.
    """
    check_host(model, "insert attention", "attention is inserted")
    targets = modules_at(model, attention, "insert_attention")
    inputs, outputs = example_outputs_of(model, list(targets.values()), example_input)
    resized = _run_resized(model, targets, inputs)
    plugins = {
        path: _build(model, path, target, attention[path], outputs[target], resized.get(target, ()), inputs)
        for path, target in targets.items()
    }
    how = find_attachment(model, list(targets.values()), inputs)
    with ExitStack() as undo:
        for path, target in targets.items():
            for plugin in plugins[path]:
                undo.callback(how[target](target, plugin, AttentionPlugin._abbr_))
        _check_run(model, {p: len(outputs[targets[path]]) for path in targets for p in plugins[path]}, inputs)
        undo.pop_all()
    return model


def _run_resized(
    model: nn.Module, targets: Mapping[str, nn.Module], inputs: Sequence[Tensor]
) -> dict[nn.Module, list[Any]]:
    """Outputs at the first other size that the model takes; nothing if it is bound to one."""
    for resized in zip(*(other_sizes(x) for x in inputs), strict=True):
        try:
            return outputs_of(model, list(targets.values()), resized)
        except Exception:  # whatever a host says of a size that it does not take
            continue
    return {}


def _build(
    model: nn.Module,
    path: str,
    target: nn.Module,
    configs: Inserted,
    outputs: Sequence[Any],
    resized: Sequence[Any],
    inputs: Sequence[Tensor],
) -> list[AttentionPlugin]:
    """The plug-ins for a module's output: on its device, in its dtype, in the module's mode."""
    where = f"{path!r} ({type(target).__name__})"
    if not outputs:
        raise ValueError(called_nowhere(model, path, target))
    plugins = []
    for options in _plugin_options(configs):
        declared = _output_format(target) or _output_format(model)
        known = options.pop("channels_last", None)
        try:
            layout = map_layout(outputs, resized, inputs, output_format=declared, channels_last=known)
        except ValueError as error:
            raise ValueError(
                f"{where} {error}; attention goes behind a module that returns one map [B, C, *grid] or [B, *grid, C]; "
                "replace_attention changes that inside a transformer's blocks"
            ) from error
        if "in_channels" in options:
            raise TypeError(f"at {path!r}: the model gives in_channels={layout.channels}; remove it from the config")
        try:
            plugin = AttentionPlugin(layout.channels, **options, channels_last=layout.channels_last)
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"at {path!r}: {error.args[0]}") from error
        plugins.append(plugin.to(device=outputs[0].device, dtype=outputs[0].dtype).train(target.training))
    return plugins


def _plugin_options(configs: Inserted) -> list[dict[str, Any]]:
    """The AttentionPlugin's own arguments, for one config or several."""
    if isinstance(configs, list | tuple):
        return [options for config in configs for options in _plugin_options(config)]
    kind = configs.get("type") if isinstance(configs, Mapping) else None
    if kind is not AttentionPlugin and kind not in ("AttentionPlugin", f"{SCOPE}.AttentionPlugin"):
        return [{"attention": configs}]
    return [{name: value for name, value in cast("Mapping[str, Any]", configs).items() if name != "type"}]


def _output_format(module: nn.Module) -> str | None:
    declared = getattr(module, "output_fmt", None)
    return None if declared is None else str(getattr(declared, "value", declared))


def _check_run(model: nn.Module, calls: Mapping[AttentionPlugin, int], inputs: Sequence[Tensor]) -> None:
    """Raises ValueError unless the model runs, with each plug-in as often as the module it stands behind."""
    try:
        outputs = outputs_of(model, list(calls), inputs)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} does not run with the attention in it: {error}") from error
    for plugin, expected in calls.items():
        if len(outputs[plugin]) != expected:
            name = next(name for name, module in model.named_modules() if module is plugin)
            raise ValueError(
                f"{name!r} would run {len(outputs[plugin])} times where attention is wanted {expected} times; "
                "insert it behind another module"
            )
