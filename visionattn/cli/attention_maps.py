"""`visionattn attention maps`: what the attention of a trained model looks at, drawn over the image."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from visionattn.cli.options import add_cfg_options

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

    import numpy as np
    from numpy.typing import NDArray

    from visionattn.analysis.attention_record import Recorded
    from visionattn.engine.attention_probe import Probe
    from visionattn.visualization.page import Html
    from visionattn.visualization.tiles import Pixels

_USUAL_POINTS = ((0.5, 0.5), (0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
_COLUMNS = 4


def add_action(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = actions.add_parser("maps", help="draw what a trained model's attention looks at over an image")
    parser.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .pth or .safetensors file, or a run's .sharded folder"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="one file; of a stereo model LEFT RIGHT")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the pictures and index.html go")
    parser.add_argument(
        "--points", nargs="+", metavar="X,Y", help="queries, in pixels of the image; the middle and four around it"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; the accelerator if there is one")
    add_cfg_options(parser)
    parser.set_defaults(action_run=_maps)


def _maps(args: Namespace) -> int:
    from visionattn.engine.attention_probe import probe_attention
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.visualization.page import page
    from visionattn.visualization.picture_file import write_picture

    given = [_point(text) for text in args.points or ()]
    options = parse_options(args.cfg_options)
    config = load_config(args.config, options)
    with named_in(config, options):
        probe = probe_attention(config, args.checkpoint, args.images, args.device)
    points = _shares(given, probe)
    out, sections = Path(args.out), []
    out.mkdir(parents=True, exist_ok=True)
    for call in probe.calls:
        drawn, why = _drawn(call, points, probe)
        if drawn is not None:
            path = out / f"{call.name}.png"
            write_picture(drawn, path)
            print(path)
        else:
            print(f"{call.name}: no maps of {type(call.mixer).__name__}: {why}")
        sections.append(_section(call, drawn, why))
    index = out / "index.html"
    subtitle = f"{args.config} · {Path(args.checkpoint).name}"
    index.write_text(page(f"Attention on {Path(args.images[0]).name}", subtitle, sections), encoding="utf-8")
    print(index)
    return 0


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--points {text}: expected x,y in pixels, as 120,80") from None
    return x, y


def _shares(given: list[tuple[float, float]], probe: Probe) -> list[tuple[float, float]]:
    height, width = probe.size
    for x, y in given:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"--points {x:g},{y:g} is outside of the image, {width} x {height} (width x height)")
    usual = [(x * width - 0.5, y * height - 0.5) for x, y in _USUAL_POINTS]
    return [probe.share(x, y) for x, y in given or usual]


def _drawn(call: Recorded, points: list[tuple[float, float]], probe: Probe) -> tuple[Pixels | None, str]:
    """The page of a mechanism's maps; None and the reason where it has none."""
    from visionattn.analysis.attention_views import views_of
    from visionattn.visualization.attention_pictures import heat_picture, marked, seen_picture
    from visionattn.visualization.tiles import displayed_size, page_of_tiles, resized

    pictures = [seen_picture(picture.float().cpu().numpy()) for picture in probe.pictures]
    height, width = pictures[0].shape[:2]
    try:
        views = views_of(call, points, (height, width))
    except (TypeError, ValueError) as error:
        return None, str(error)
    large = resized(pictures[0], displayed_size(height, width))
    tiles = [("queries", marked(large, points, range(1, len(points) + 1)))]
    number = 0
    for view in views:
        tile = heat_picture(pictures[min(view.view, len(pictures) - 1)], view.weights)
        title = view.title
        if view.queries:
            number += 1
            title = f"query {number}: up to {_times_even(view.weights):.3g} x even"
            tile = marked(tile, view.queries) if view.view == 0 else tile
        tiles.append((title, tile))
    return page_of_tiles(tiles, columns=_COLUMNS), ""


def _times_even(weights: NDArray[np.float32]) -> float:
    """The highest weight over that of attention which looks at all alike, as much as this one on the whole.

    Of weights that sum to 1 that is 1 / positions; of those that need not, or may be negative, their mean size.
    """
    import numpy as np

    known = weights[np.isfinite(weights)]
    even = float(np.abs(known).mean())
    return float(known.max()) / even if even else 0.0


def _section(call: Recorded, drawn: Pixels | None, why: str) -> Html:
    from visionattn.visualization.page import element, joined, picture, section

    grid = " x ".join(map(str, call.x.shape[1:-1]))
    about = f"{type(call.mixer).__name__} on a map of {grid}, {call.x.shape[-1]} channels"
    if drawn is None:
        return section(call.name, element("p", about), element("p", f"no maps: {why}", class_="note"))
    shown = picture(drawn, f"maps of {call.name}", width=1160, quality=90)
    return section(call.name, element("p", about), joined((element("div", shown, class_="scroll"),)))
