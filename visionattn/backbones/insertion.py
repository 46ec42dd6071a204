"""Attention in any model, by the path of a module: what that module returns goes through an AttentionPlugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from visionattn.backbones.attachment import find_attachment
from visionattn.backbones.layout import map_layout
from visionattn.backbones.probe import default_input, other_sizes, outputs_of
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.registry import SCOPE
from visionattn.typing import AttentionConfig

Inserted: TypeAlias = AttentionConfig | Sequence[AttentionConfig]
"""A mechanism's config, dict(type="AttentionPlugin", attention=..., norm=...), or several to run in turn."""

_TOO_LATE = {
    "OptimizedModule": "torch.compile",
    "ScriptModule": "torch.jit.script",
    "DataParallel": "DataParallel",
    "DistributedDataParallel": "DistributedDataParallel",
    "FullyShardedDataParallel": "FullyShardedDataParallel",
}


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
    _check_model(model)
    targets = _targets(model, attention)
    example = default_input(model) if example_input is None else example_input
    inputs = example if isinstance(example, tuple) else (example,)
    outputs = _run(model, targets, inputs, given=example_input is not None)
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


def _check_model(model: nn.Module) -> None:
    for module in model.modules():
        late = [_TOO_LATE[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in _TOO_LATE]
        if getattr(module, "_compiled_call_impl", None) is not None:
            late.append("compile()")
        if late:
            raise ValueError(f"insert attention before {late[0]}; this {type(module).__name__} would not notice it")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has lazy parameters; run it once before attention is inserted")


def _targets(model: nn.Module, attention: Mapping[str, Inserted]) -> dict[str, nn.Module]:
    """The module at each path."""
    modules = dict(model.named_modules(remove_duplicate=False))
    if not isinstance(attention, Mapping):
        raise TypeError(
            f'insert_attention expects where -> what, as {{"layer3": "EfficientAttention"}}; got {attention!r}'
        )
    targets: dict[str, nn.Module] = {}
    for path in attention:
        if not isinstance(path, str):
            raise TypeError(f'insert_attention expects the paths of modules, as "layer3"; got {path!r}')
        if path not in modules or path == "":
            raise KeyError(_no_such_path(model, modules, path))
        same = [other for other, target in targets.items() if target is modules[path]]
        if same:
            raise ValueError(f"{same[0]!r} and {path!r} are one module; name it once, with a list of configs")
        targets[path] = modules[path]
    return targets


def _no_such_path(model: nn.Module, modules: Mapping[str, nn.Module], path: str) -> str:
    above = path
    while above not in modules:
        above = above.rpartition(".")[0]
    children = [f"{above}.{name}" if above else name for name, _ in modules[above].named_children()]
    names = [name for name in modules if name]
    close = [name for name in names if name.endswith(f".{path}")] + get_close_matches(path, names, n=3)
    hint = f"did you mean {' or '.join(dict.fromkeys(close[:3]))}? " if close else ""
    place = f"under {above!r}" if above else "at its top"
    return f"{type(model).__name__} has no module {path!r}; {hint}{place}: {', '.join(children) or 'nothing'}"


def _run(
    model: nn.Module, targets: Mapping[str, nn.Module], inputs: Sequence[Tensor], given: bool
) -> dict[nn.Module, list[Any]]:
    try:
        return outputs_of(model, list(targets.values()), inputs)
    except Exception as error:
        shapes = " and ".join(str(list(x.shape)) for x in inputs)
        way_out = "example_input must be what its forward takes" if given else "pass an example_input that it takes"
        raise ValueError(f"{type(model).__name__} does not run on {shapes}: {error}; {way_out}") from error


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
        children = ", ".join(f"{path}.{name}" for name, _ in target.named_children())
        holds = f"; it holds {children}" if children else ""
        raise ValueError(f"{where} is never called by the forward of {type(model).__name__}{holds}")
    plugins = []
    for options in _plugin_options(configs):
        declared = _output_format(target) or _output_format(model)
        known = options.pop("channels_last", None)
        try:
            layout = map_layout(outputs, resized, inputs, output_format=declared, channels_last=known)
        except ValueError as error:
            raise ValueError(
                f"{where} {error}; attention goes behind a module that returns one map [B, C, *grid] or [B, *grid, C]"
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
