"""The README.md of an exported model."""

from __future__ import annotations

from visionattn.export.timm_source import Source
from visionattn.version import __version__

_CARD = """\
---
library_name: timm
pipeline_tag: image-feature-extraction
tags:
- timm
- visionattn
---
# {name}

{what} of [visionattn](https://pypi.org/project/visionattn/) {version}, from `{config}` and `{checkpoint}`.

`import visionattn.export.timm` registers the names that begin with `va_` with timm; without it timm does not know
`{architecture}`.

```python
import timm
import torch
import visionattn.export.timm

backbone = timm.create_model("local-dir:{name}", pretrained=True, features_only=True)
maps = backbone(torch.rand(1, {channels}, {height}, {width}))  # NCHW
```

| output | channels | stride |
| --- | --- | --- |
{rows}

{head}

Images have {channels} channels in 0..1, minus the mean {mean}, over the deviation {std}.
The nominal size is {height} x {width} pixels.
"""


def model_card(source: Source, checkpoint: str, folder: str) -> str:
    """The card's text.

    Args:
        checkpoint, folder: names of the file with the weights and of the folder that holds the card.
    """
    model, known = source.model, source.model.pretrained_cfg
    channels, height, width = known["input_size"]
    rows = [f"| {i} | {info['num_chs']} | {info['reduction']} |" for i, info in enumerate(model.feature_info)]
    head = f"A classifier of {model.num_classes} classes." if model.num_classes else _NO_HEAD
    return _CARD.format(
        name=folder, what="Model" if model.num_classes else "Backbone", version=__version__, config=source.name,
        checkpoint=checkpoint, architecture=source.architecture, channels=channels, height=height, width=width,
        rows="\n".join(rows), head=head, mean=_triple(known["mean"]), std=_triple(known["std"]),
    )  # fmt: skip


_NO_HEAD = "There is no classifier: `num_classes=10` gives it a new one, to be trained."


def _triple(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
