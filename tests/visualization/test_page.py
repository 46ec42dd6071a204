"""A page is one file: everything in it, nothing of what users named can become markup."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from visionattn.visualization.page import (
    Html,
    bar,
    card,
    details,
    element,
    figures,
    joined,
    page,
    picture,
    section,
    swatch,
    table,
    text,
)

EVIL = '"><script>alert(1)</script>&'


class Tags(HTMLParser):
    """Every element, and whether each is closed where it should be."""

    VOID = ("meta", "link", "img")

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_names_of_users_stay_text_everywhere() -> None:
    image = picture(np.zeros((4, 6, 3), np.uint8), EVIL)
    parts = [
        section(EVIL, figures([(EVIL, EVIL)]), table([EVIL], [[EVIL]]), details(EVIL, EVIL)),
        card([(EVIL, image)], joined((EVIL, swatch((1, 2, 3)), bar(0.5)))),
        element("p", EVIL, title=EVIL),
    ]
    tags = Tags(page(EVIL, EVIL, parts))
    names = [tag for tag, _ in tags.seen]
    assert "script" not in names
    assert [attributes["alt"] for tag, attributes in tags.seen if tag == "img"] == [EVIL]
    assert "".join(tags.words).count(EVIL) == 13
    assert text(Html("<b>")) == "<b>"


def test_a_page_asks_for_nothing_and_executes_nothing() -> None:
    content = page("title", "subtitle", [])
    (policy,) = (a["content"] for tag, a in Tags(content).seen if "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not re.findall(r"https?://|url\(|@import|src=(?!\"data:)", content)
    assert content.startswith("<!DOCTYPE html>")


def test_numbers_are_aligned_to_the_right() -> None:
    shown = table(["name", "value"], [["a", 1], ["b", 2]], numeric=(1,))
    assert shown.count('class="n"') == 3
    assert '<td>a</td><td class="n">1</td>' in shown
    assert "<thead>" not in table((), [["a", 1]])


@pytest.mark.parametrize(("size", "expected"), [((40, 60), (40, 60)), ((300, 900), (160, 480)), ((1, 2000), (1, 480))])
def test_a_picture_is_in_the_page_reduced_to_its_width(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.full((*size, 3), (200, 40, 90), np.uint8)
    shown = picture(image, "x")
    encoded = re.search(r"base64,([^\"]+)", shown)
    assert encoded is not None
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(encoded[1]), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape[:2] == expected
    assert f'width="{expected[1]}" height="{expected[0]}"' in shown
    np.testing.assert_allclose(decoded[..., ::-1].mean((0, 1)), (200, 40, 90), atol=3)


def test_bars_stay_in_their_cells() -> None:
    assert "width:100.00%" in bar(3.0)
    assert "width:0.00%" in bar(-1.0)
    assert "width:25.00%;background:rgb(1,2,3)" in bar(0.25, np.array([1, 2, 3], np.uint8))
