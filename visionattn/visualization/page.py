"""One HTML file with everything in it: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.visualization.page_style import STYLE

Pixels = NDArray[np.uint8]

# Nothing is fetched and nothing executes, whatever a file name or a class name contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_EXACT = 128 * 128  # pixels


class Html(str):
    """Text that is HTML already; any other text is escaped where it enters."""

    __slots__ = ()


def text(value: object) -> Html:
    """The value's text, escaped; HTML as it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def joined(parts: Iterable[object], between: str = "") -> Html:
    return Html(between.join(text(part) for part in parts))


def element(tag: str, content: object = "", **attributes: object) -> Html:
    """`<tag attribute="...">content</tag>`; `class_` is class, an underscore within a name a hyphen."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for name, value in attributes.items()
    )
    return Html(f"<{tag}{written}>{text(content)}</{tag}>")


def page(title: str, subtitle: str, sections: Iterable[Html]) -> str:
    """The whole file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or the browser asks for one
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, *content: object) -> Html:
    return element("section", joined((element("h2", heading), *content), "\n"))


def figures(numbers: Sequence[tuple[str, str]]) -> Html:
    """What a reader wants to know first: (what, how much) in large type."""
    items = (element("div", joined((element("dt", name), element("dd", value)))) for name, value in numbers)
    return element("dl", joined(items), class_="figures")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, numeric: Sequence[int] = ()) -> Html:
    """A table that scrolls by itself where the window is narrower.

    Args:
        headings: of the columns; none leaves the line out.
        numeric: positions of the columns that are aligned to the right.
    """

    def row(tag: str, cells: Sequence[object]) -> Html:
        return element(
            "tr",
            joined(element(tag, cell, **({"class_": "n"} if i in numeric else {})) for i, cell in enumerate(cells)),
        )

    head = element("thead", row("th", headings)) if headings else Html()
    body = element("tbody", joined((row("td", cells) for cells in rows), "\n"))
    return element("div", element("table", joined((head, body))), class_="scroll")


def swatch(colour: Sequence[int] | NDArray[Any]) -> Html:
    r, g, b = (int(value) for value in colour)
    return element("span", class_="swatch", style=f"background:rgb({r},{g},{b})")


def bar(share: float, colour: Sequence[int] | NDArray[Any] | None = None) -> Html:
    """A bar of `share` of its cell, 0 to 1."""
    style = f"width:{100 * min(max(share, 0), 1):.2f}%"
    if colour is not None:
        style += ";background:rgb({},{},{})".format(*(int(value) for value in colour))
    return element("span", element("span", class_="fill", style=style), class_="bar")


def picture(image: Pixels, alternative: str, *, width: int = 480, quality: int = 85) -> Html:
    """The picture itself as an `<img>`.

    Args:
        image: [H, W, 3], RGB; a wider one than `width` is reduced to it.
        alternative: what it shows, in words.
        quality: of the JPEG; a small picture, which JPEG would visibly damage, is exact.
    """
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    if image.shape[1] > width:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    small = image.shape[0] * image.shape[1] <= _EXACT
    kind, options = ("png", []) if small else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    done, content = cv2.imencode(f".{kind}", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise ValueError(f"cannot encode a picture of shape {list(image.shape)}; expected [H, W, 3]")
    return embedded(content.tobytes(), f"image/{kind}", alternative, image.shape[1], image.shape[0])


def embedded(content: bytes, media_type: str, alternative: str, width: int, height: int) -> Html:
    """An `<img>` of a file's content."""
    source = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return Html(f'<img src="{source}" alt="{escape(alternative)}" width="{width}" height="{height}">')


def card(tiles: Sequence[tuple[str, Html]], caption: object) -> Html:
    """Pictures under their titles, side by side where there is room, with a caption."""
    shown = (element("div", joined((element("span", title, class_="title"), image))) for title, image in tiles)
    pictures = element("div", joined(shown), class_="tiles")
    return element("figure", joined((element("figcaption", caption), pictures)))


def details(summary: str, content: object) -> Html:
    """Folded away until it is asked for."""
    return element("details", joined((element("summary", summary), content)))
