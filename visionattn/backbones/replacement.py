"""Another mechanism in the transformer blocks of a model, with the weights that both have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from visionattn.attention.base import TokenMixer
from visionattn.attention.build import build_attention
from visionattn.backbones.depth import Attention, with_host_options
from visionattn.backbones.host import check_host, near
from visionattn.backbones.kept_weights import Replacement, fitted_to_window
from visionattn.backbones.replaceable import ReplaceableBlock
from visionattn.blocks.transformer import ResPostNormTransformerBlock, TransformerBlock
from visionattn.typing import AttentionConfig

_OURS = (TransformerBlock, ResPostNormTransformerBlock)
_KNOWN = "timm's ViT blocks (Block, ResPostBlock) and Swin blocks (V1 and V2), and TransformerBlock and its kin of ours"


def replace_attention(
    model: nn.Module, attention: Attention, *, blocks: str | Sequence[str] | None = None
) -> nn.Module:
    """The same model, with another mechanism in its transformer blocks: timm's ViT and Swin (V1 and V2), and ours.

    Kept are the parameters that the mechanism has by the same name and shape, so for the QKV family qkv and proj;
    `replacements` tells. Kept is also what the config does not name: heads, widths, biases and dropouts, and in a Swin
    the block's window and shift for the mechanisms that have windows. All names in the state dict stay, below `attn`
    as far as the mechanism has them. Make the optimizer afterwards.

    ViT with class, register or distillation tokens: a mechanism that treats all tokens alike gets the whole sequence,
    these tokens included; with `SoftmaxAttention` the output is the model's own. One that goes by where tokens lie
    (windows, sub-sampling, position-bound parameters) gets the map of the patches; each of the other tokens then looks
    at all tokens by softmax with a copy of the model's own weights (`patch_map.prefix`), and the patches do not see
    them. In a VisionTransformer of ours such a mechanism is refused beside these tokens.

    Swin: the block hands the mechanism the whole map in place of its windows. `WindowAttention` (`WindowAttentionV2` in
    V2) without options restores the output.

    Args:
        model: any module that holds such blocks, as a timm model or a backbone around one.
        attention: a mechanism's config, or a list of them that the chosen blocks of one parent take in turn.
        blocks: paths of the blocks as in `model.named_modules()`, or patterns as "blocks.*" or "layers.2.blocks.[0-3]";
            None is all of them.
    Raises:
        KeyError: no block at a path, none that fits a pattern, or no mechanism of a name.
        TypeError: an option that a mechanism does not have.
        ValueError: nothing to replace, attention that computes more than its mechanism could take over (rotary
            positions, norms of q and k, gates), or an option that does not fit the block.
        Whatever is raised, the model is as it was.
    """
    check_host(model, "replace attention", "its attention is replaced")
    found = _blocks(model)
    chosen = _chosen(model, found, blocks)
    configs = _in_turn(attention, chosen)
    installations = [_installation(found[path], configs[path]) for path in chosen]  # before anything changes
    for install in installations:
        install()
    return model


def replacements(model: nn.Module) -> dict[str, Replacement]:
    """Path of every attention that was replaced -> which weights it kept."""
    made = {path: getattr(module, "replacement", None) for path, module in model.named_modules()}
    return {path: replacement for path, replacement in made.items() if isinstance(replacement, Replacement)}


def _blocks(model: nn.Module) -> dict[str, ReplaceableBlock]:
    """By path, in the order of the model."""
    foreign: Callable[[nn.Module, str, nn.Module], ReplaceableBlock | None] | None = None
    if any(type(module).__module__.startswith("timm.") for module in model.modules()):
        from visionattn.backbones.timm_replaceable import timm_replaceable as foreign
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, _OURS):
            found[path] = ReplaceableBlock(model, path, module)
        elif foreign is not None and (host := foreign(model, path, module)) is not None:
            found[path] = host
    return found


def _chosen(model: nn.Module, found: Mapping[str, ReplaceableBlock], blocks: str | Sequence[str] | None) -> list[str]:
    """Paths of the blocks meant, in the order of the model."""
    if not found:
        raise ValueError(_nothing_to_replace(model))
    if blocks is None:
        return list(found)
    wanted = [blocks] if isinstance(blocks, str) else list(blocks)
    if not wanted or not all(isinstance(path, str) for path in wanted):
        raise TypeError(f'blocks={blocks!r} must name paths or patterns, as ["{next(iter(found))}"]; None is all')
    modules = dict(model.named_modules())
    for path in wanted:
        if path in found or any(fnmatchcase(name, path) for name in found):
            continue
        if path in modules and path:
            raise ValueError(
                f"{path!r} ({type(modules[path]).__name__}) is no block whose attention can be replaced; "
                f"{near(path, found)}the blocks are {_shown(found)}"
            )
        if any(sign in path for sign in "*?["):
            raise KeyError(f"no block of {type(model).__name__} fits {path!r}; they are {_shown(found)}")
        raise KeyError(f"{type(model).__name__} has no block {path!r}; {near(path, found)}they are {_shown(found)}")
    return [name for name in found if any(name == path or fnmatchcase(name, path) for path in wanted)]


def _nothing_to_replace(model: nn.Module) -> str:
    others: dict[str, str] = {}
    for path, module in model.named_modules():
        name = type(module).__name__
        if re.search("attention|attn", name, re.IGNORECASE) and not isinstance(module, TokenMixer):
            others.setdefault(name, path)
    if not others:
        return (
            f"{type(model).__name__} has no attention that could be replaced; insert_attention puts some into any model"
        )
    held = ", ".join(f"{name} (first at {path!r})" for name, path in others.items())
    return f"{type(model).__name__} holds {held}, in no block that replace_attention knows: {_KNOWN}"


def _in_turn(attention: Attention, chosen: Iterable[str]) -> dict[str, AttentionConfig]:
    """The config of each block: a list goes round among the children of one parent."""
    listed: list[AttentionConfig] = [attention] if isinstance(attention, str | type | Mapping) else list(attention)
    if not listed:
        raise ValueError("attention=[] names no mechanism; give one config, or a list to go round over the blocks")
    counts: dict[str, int] = {}
    configs = {}
    for path in chosen:
        parent = path.rpartition(".")[0]
        configs[path] = listed[counts.get(parent, 0) % len(listed)]
        counts[parent] = counts.get(parent, 0) + 1
    return configs


def _installation(host: ReplaceableBlock, cfg: AttentionConfig) -> Callable[[], None]:
    """What puts the mechanism into the block; whatever may fail is done."""
    host.check()
    try:
        options = fitted_to_window(host.options(), cfg if isinstance(cfg, Mapping) else {})
        return host.installation(build_attention(with_host_options(cfg, options), host.dim(), host.grid()))
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"at {host.path!r} ({type(host.block).__name__}): {error.args[0]}") from error


def _shown(paths: Iterable[str]) -> str:
    """The paths, the middle of many left out."""
    names = list(paths)
    return ", ".join(names if len(names) < 8 else [*names[:3], "...", names[-1]])
