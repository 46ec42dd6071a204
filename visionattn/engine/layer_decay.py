"""Layer-wise learning-rate decay: the nearer to the image, the slower a pretrained backbone learns.

After ELECTRA (Clark et al., ICLR 2020), as BEiT and MAE fine-tune; timm's and mmseg's rates by layer.
Differs: layers are found in the backbone's own order of modules, not by a list of names for each architecture.
"""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from visionattn.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Multiplies each backbone layer's learning rate by decay ** (layers behind it); heads keep theirs.

        optim_wrapper = dict(
            type="OptimWrapper",
            constructor="visionattn.LayerDecayOptimWrapperConstructor",
            optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(layer_decay=0.9, norm_decay_mult=0.0),
        )

    The stem is the first layer, every block the next; what lies between two blocks (a patch merging) goes with the one
    before it. A backbone without blocks that repeat has its direct parts as layers.

    Args:
        optim_wrapper_cfg: as of mmengine's constructor; the optimizer needs an lr.
        paramwise_cfg: `layer_decay` in (0, 1], `backbone` (the model's part, "backbone" if not given), and all of
            mmengine's options, which are multiplied with it.
    Raises:
        ValueError: no layer_decay, one outside (0, 1], or no lr; the model has no such part.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        options = dict(paramwise_cfg or {})
        self.layer_decay = options.pop("layer_decay", None)
        self.backbone = options.pop("backbone", "backbone")
        if not isinstance(self.layer_decay, int | float) or not 0 < self.layer_decay <= 1:
            raise ValueError(
                "LayerDecayOptimWrapperConstructor needs paramwise_cfg=dict(layer_decay=...) in (0, 1], as 0.9; "
                f"got {self.layer_decay!r}"
            )
        # mmengine's constructor gives parameters groups of their own only where it has an option.
        super().__init__(optim_wrapper_cfg, options or {"bypass_duplicate": False})
        if self.base_lr is None:
            raise ValueError("layer_decay multiplies the optimizer's learning rate: give it an lr")

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", is_dcn_module: Any = None
    ) -> None:
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # called by itself for a part
            return
        backbone = getattr(module, self.backbone, None)
        if not isinstance(backbone, nn.Module):
            parts = ", ".join(name for name, _ in module.named_children())
            raise ValueError(
                f"layer_decay: {type(module).__name__} has no {self.backbone!r}, it has {parts}; "
                "set paramwise_cfg.backbone"
            )
        depths = layer_depths(backbone)
        last = max(depths.values(), default=0) + 1
        depth_of = {id(parameter): depths[name] for name, parameter in backbone.named_parameters()}
        for group in params:
            behind = last - depth_of.get(id(group["params"][0]), last)
            group["lr"] = group.get("lr", self.base_lr) * self.layer_decay**behind


def layer_depths(backbone: nn.Module) -> dict[str, int]:
    """The layer of each of a backbone's parameters: 0 before the first block, then the number of the block reached.

    A block is a member of a list of modules of one class with at least two weight matrices each; a stage, whose own
    list holds blocks, is none. Modules are taken in the order they are registered, in which timm's and mmseg's
    backbones run them.
    """
    numbers = {f"{name}.": number for number, name in enumerate(_blocks(backbone, "") or _parts(backbone), 1)}
    depths, reached = {}, 0
    for name, _ in backbone.named_parameters():
        reached = next((number for block, number in numbers.items() if name.startswith(block)), reached)
        depths[name] = reached
    return depths


def _blocks(module: nn.Module, path: str) -> list[str]:
    lists_blocks = _lists_blocks(module)
    found = []
    for name, child in module.named_children():
        inside = f"{path}.{name}" if path else name
        is_stage = any(_lists_blocks(part) for part in (child, *child.children()))
        found += [inside] if lists_blocks and not is_stage else _blocks(child, inside)
    return found


def _lists_blocks(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        return False
    members = [member for member in module if any(True for _ in member.parameters())]
    return len({type(member) for member in members}) == 1 and all(_matrices(member) >= 2 for member in members)


def _matrices(module: nn.Module) -> int:
    return sum(parameter.ndim >= 2 for parameter in module.parameters())


def _parts(module: nn.Module) -> list[str]:
    """The direct parts behind the first, of the first module inside that has several."""
    path = ""
    while len(children := list(module.named_children())) == 1:
        path, module = f"{path}{children[0][0]}.", children[0][1]
    return [f"{path}{name}" for name, _ in children[1:]]
