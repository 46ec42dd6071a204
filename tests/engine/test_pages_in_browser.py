"""The pages in a real browser: no complaint, no request, every picture decoded, every table filled, no overflow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, WHY_NOT, Browser
from tiny_segmentation import write_segmentation
from tiny_stereo import write_stereo

from visionattn.cli.main import main

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    config = str(write_segmentation(folder))
    assert main(["data", "browse", config, "--number", "4", "--out", str(folder / "samples.html")]) == 0
    options = ["train_cfg.max_iters=6", "train_cfg.val_interval=3", "default_hooks.logger.interval=1"]
    assert main(["train", config, "--work-dir", str(folder / "work"), "--cfg-options", *options]) == 0
    pairs, _ = write_stereo(folder)
    assert main(["data", "browse", str(pairs), "--number", "4", "--out", str(folder / "pairs.html")]) == 0
    return {
        "samples": folder / "samples.html",
        "pairs": folder / "pairs.html",
        "report": folder / "work" / "report.html",
    }


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


EXPECTED = {  # pictures, rows of tables, charts
    "samples": (8, 3, 0),
    "pairs": (12, 10, 0),
    "report": (20, 2 + 3, 4),
}


@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_page_is_whole(name: str, width: int, pages: dict[str, Path], chromium: Browser, tmp_path: Path) -> None:
    loaded = chromium.open(pages[name], width)
    assert loaded.complaints == []
    assert loaded.requests == []
    pictures, rows, charts = EXPECTED[name]
    decoded = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
    assert chromium.evaluate(decoded) == [True] * pictures
    assert chromium.evaluate("document.querySelectorAll('tbody tr').length") >= rows
    assert chromium.evaluate("document.querySelectorAll('svg polyline').length") >= charts
    empty = "[...document.querySelectorAll('tbody')].filter(body => !body.innerText.trim()).length"
    assert chromium.evaluate(empty) == 0
    # Wide tables scroll by themselves; the page does not.
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().width > 250)")
    if name == "report":
        texts = chromium.evaluate("[...document.querySelectorAll('h2')].map(heading => heading.innerText)")
        assert texts == [
            "Training", "Evaluations", "Classes", "Confusions", "Worst images", "Best images", "Config",
            "Environment and files",
        ]  # fmt: skip
        assert "loss" in chromium.evaluate("document.body.innerText")
    chromium.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_colours_follow_the_readers_choice(pages: dict[str, Path], chromium: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    chromium.open(pages["report"], 1200, dark=False)
    assert chromium.evaluate(paper) == "rgb(255, 255, 255)"
    chromium.open(pages["report"], 1200, dark=True)
    red, green, blue = (int(part) for part in chromium.evaluate(paper)[4:-1].split(","))
    assert max(red, green, blue) < 40


def test_faults_of_a_page_are_seen(chromium: Browser, tmp_path: Path) -> None:
    """A page that asks, complains and has a broken picture: what the tests above look for can be found."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<img src="data:image/png;base64,AAAA"><img src="http://127.0.0.1:9/x.png"><script>console.error("no")</script>'
    )
    loaded = chromium.open(bad, 400)
    assert any("no" in complaint for complaint in loaded.complaints)
    assert loaded.requests == ["http://127.0.0.1:9/x.png"]
    assert chromium.evaluate("[...document.images].map(image => image.naturalWidth)") == [0, 0]
