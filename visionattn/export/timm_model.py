"""timm's methods over a backbone's list of maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from timm.layers import ClassifierHead
from torch import Tensor, nn

from visionattn.export.timm_features import group_patterns, taken
from visionattn.typing import Feature


class TimmModel(nn.Module):
    """What timm asks of a model, over the `forward` of the backbone that stands behind it in the order of classes.

    Attributes:
        num_classes: outputs of the classifier; 0 for none.
        in_chans: channels of the image.
        num_features, head_hidden_size: channels of the last map, and of what the classifier sees.
        feature_info: of the maps that the backbone hands out, dict(num_chs, reduction, module).
        output_fmt: of what `forward_features` hands out.
        classifier_name: where the last linear layer is.
    """

    output_fmt = "NCHW"
    classifier_name = "head.fc"
    num_classes: int
    in_chans: int
    num_features: int
    head_hidden_size: int
    feature_info: list[dict[str, Any]]
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]
    norm: nn.Module
    head: Any
    out_indices: Sequence[int]
    keep_stages: Callable[[Sequence[int]], None]
    _returned: tuple[int, ...]  # places in feature_info of the maps that the backbone hands out now

    def forward(self, x: Tensor) -> Tensor:
        """Image [B, in_chans, H, W] -> [B, num_classes]; pooled features without classes, the last map without both."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Feature:
        """The last map, normalised, [B, num_features, H / stride, W / stride]."""
        return self._normalised(super().forward(x)[-1])

    def forward_head(self, x: Feature, pre_logits: bool = False) -> Tensor:
        """Pooling and classifier; pooling alone with pre_logits."""
        return cast("Tensor", self.head(x, pre_logits=pre_logits))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Feature] | tuple[Feature, list[Feature]]:
        """The maps of some stages as the backbone hands them out, with the final features before them.

        Args:
            x: image [B, in_chans, H, W].
            indices: places in feature_info; the last n for a number, all if None.
            norm: the final norm also on the last stage's map.
            stop_early: the features are those of the last stage asked for.
            output_fmt: only "NCHW".
            intermediates_only: only the list of maps.
        Raises:
            ValueError: no such stage, one that was pruned, or another format.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r}: {type(self).__name__} hands out NCHW maps")
        places = self._check_returned(taken(len(self.feature_info), indices))
        maps = self._maps(x, places if intermediates_only or stop_early else self._returned)
        last = len(self.feature_info) - 1
        found = [self._normalised(maps[place]) if norm and place == last else maps[place] for place in places]
        if intermediates_only:
            return found
        end = places[-1] if stop_early else self._returned[-1]
        return (self._normalised(maps[end]) if end == last else maps[end]), found

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops what these stages do not need: later stages, other stages' norms, the final norm, the classifier.

        A backbone without `keep_stages` runs whole, as before.

        Returns:
            The places that were kept.
        """
        places = self._check_returned(taken(len(self.feature_info), indices))
        cut = False
        if self._can_stop:
            self.keep_stages(self._stages(places))
            cut = places[-1] < self._returned[-1]
            self._returned = tuple(places)
        if prune_norm or cut:
            self._drop_norm()
        if cut:
            self.num_features = self.feature_info[places[-1]]["num_chs"]
            self.add_head(0, "", drop_rate=0.0)
        elif prune_head:
            self.reset_classifier(0, "")
        return places

    def get_classifier(self) -> nn.Module:
        """The last linear layer; nn.Identity where there are no classes."""
        return cast("nn.Module", self.head.fc)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; 0 classes for none, global_pool="" for no pooling either.

        Raises:
            ValueError: classes without pooling.
        """
        _check_pooled(num_classes, self.head.global_pool.pool_type if global_pool is None else global_pool)
        self.num_classes = num_classes
        self.head.reset(num_classes, pool_type=global_pool)
        self.head_hidden_size = self.head.num_features

    def set_input_size(self, img_size: int | Sequence[int] | None = None) -> None:
        """Says at which size the model is used from now on; it takes any other one, too.

        Raises:
            ValueError: a size below one pixel.
        """
        if img_size is None:
            return
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height < 1 or width < 1:
            raise ValueError(f"img_size={img_size} must be 1 or more pixels high and wide")
        cfg = {**self.pretrained_cfg, "input_size": (self.in_chans, height, width)}
        self.pretrained_cfg = self.default_cfg = {**cfg, "pool_size": self.pool_size(height, width)}

    def pool_size(self, height: int, width: int) -> tuple[int, int]:
        """Extent of the last map of an image of this size."""
        stride = self.feature_info[-1]["reduction"]
        return -(-height // stride), -(-width // stride)

    def first_convolution(self) -> str | None:
        """Where the first convolution is, the one that timm adapts to other channels; None if it takes no image."""
        convolutions = ((name, module) for name, module in self.named_modules() if isinstance(module, nn.Conv2d))
        name, first = next(convolutions, (None, None))
        return name if first is not None and first.in_channels == self.in_chans else None

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory while training.

        Raises:
            ValueError: the backbone cannot.
        """
        switch: Callable[[bool], None] | None = getattr(super(), "set_grad_checkpointing", None)
        if switch is not None:
            switch(enable)
        elif enable:
            raise ValueError(f"{type(self).__name__} has no gradient checkpointing")

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that weight decay leaves alone, beside norms and biases."""
        own: Callable[[], set[str]] | None = getattr(super(), "no_weight_decay", None)
        return own() if own is not None else set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort the parameters by depth, as `timm.models.group_parameters` takes them."""
        return group_patterns([name for name, _ in self.named_parameters()], self.feature_info, coarse)

    def add_norm(self, raw: bool) -> None:
        """The norm before the head, unless the backbone has normalised its maps."""
        self.norm = nn.LayerNorm(self.num_features) if raw else nn.Identity()

    def add_head(self, num_classes: int, global_pool: str | None, drop_rate: float) -> None:
        """Pooling ("avg" if None) and classifier over the last map."""
        pool = "avg" if global_pool is None else global_pool
        _check_pooled(num_classes, pool)
        self.num_classes = num_classes
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=pool, drop_rate=drop_rate)
        self.head_hidden_size = self.head.num_features

    def _drop_norm(self) -> None:
        self.norm = nn.Identity()

    def _maps(self, x: Tensor, places: Sequence[int]) -> dict[int, Feature]:
        """The maps at some places in feature_info; a backbone that cannot stop early runs whole."""
        if self._can_stop:
            return dict(zip(places, super().forward(x, self._stages(places)), strict=True))
        return dict(zip(self._returned, super().forward(x), strict=True))

    def _check_returned(self, places: list[int]) -> list[int]:
        gone = [place for place in places if place not in self._returned]
        if gone:
            raise ValueError(f"stage {gone[0]} was pruned; left: {', '.join(map(str, self._returned))}")
        return places

    @property
    def _can_stop(self) -> bool:
        return hasattr(self, "keep_stages")

    def _stages(self, places: Sequence[int]) -> list[int]:
        """The backbone's own numbers of the stages at some places in feature_info."""
        return [self.out_indices[self._returned.index(place)] for place in places]

    def _normalised(self, x: Feature) -> Feature:
        if isinstance(self.norm, nn.Identity):
            return x
        return cast("Feature", self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def _check_pooled(num_classes: int, pool: str) -> None:
    if num_classes and not pool:
        raise ValueError(f"a classifier of {num_classes} classes needs pooling; global_pool='' goes with num_classes=0")
