"""`visionattn attention maps` on a model that has not learned anything: its files, and its refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from visionattn.cli.attention_maps import _times_even
from visionattn.cli.main import main
from visionattn.engine.config import import_scope, load_config
from visionattn.registry import MODELS

CONFIG = "longrange/pathfinder"


def files(folder: Path, name: str, options: dict[str, object]) -> list[str]:
    """Command line of a config, its untrained checkpoint and a picture."""
    config = load_config(name, options)
    import_scope(config)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
    torch.save({"state_dict": model.state_dict()}, folder / "model.pth")
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    assert cv2.imwrite(str(folder / "picture.png"), picture)
    return ["attention", "maps", name, str(folder / "model.pth"), str(folder / "picture.png"), "--device", "cpu"]


def test_pictures_and_a_page_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = files(tmp_path, CONFIG, {})
    assert main([*command, "--out", str(tmp_path / "maps"), "--points", "5,5", "55,39"]) == 0
    written = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert written == ["backbone.body.layer1.attention_plugin.attn.png", "index.html"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "maps" / name) for name in written]
    page = (tmp_path / "maps" / "index.html").read_text()
    assert "EfficientAttention on a map of 10 x 14, 32 channels" in page
    assert page.count("data:image/") == 1
    drawn = cv2.imread(str(tmp_path / "maps" / written[0]))
    assert drawn.shape[1] > 4 * 256, "four tiles in a row"

    for points, why in (("60,5", "--points 60,5 is outside of the image, 56 x 40"), ("5", "--points 5: expected x,y")):
        assert main([*command, "--out", str(tmp_path / "no"), "--points", points]) == 2
        assert why in capsys.readouterr().err
    assert main([*command[:4], command[4], command[4], "--out", str(tmp_path / "no")]) == 2
    assert "looks at one image; got 2 files" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_what_has_no_maps_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, value = "model.backbone.attention.1.attention", {"type": "ChannelAttention"}
    command = files(tmp_path, CONFIG, {key: value})
    assert main([*command, "--out", str(tmp_path / "maps"), "--cfg-options", f"{key}={value}"]) == 0
    assert "no maps of ChannelAttention: ChannelAttention has no attention matrix" in capsys.readouterr().out
    assert "no maps:" in (tmp_path / "maps" / "index.html").read_text()

    command = files(tmp_path, CONFIG, {"model.backbone.attention": None})
    assert main([*command, "--out", str(tmp_path / "no"), "--cfg-options", "model.backbone.attention=None"]) == 2
    assert "none of this package's attention mechanisms ran" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weights", "times"),
    [
        ([0.7, 0.1, 0.1, 0.1], 2.8),
        ([0.5, 0.5, np.nan, np.nan], 1.0),
        ([70.0, 10.0, 10.0, 10.0], 2.8),  # lambda layers: weights that sum to anything
        ([3.0, -3.0, -1.0, -1.0], 1.5),
        ([0.0, 0.0], 0.0),
    ],
)
def test_how_many_times_even_a_query_takes(weights: list[float], times: float) -> None:
    assert _times_even(np.array(weights, dtype=np.float32)) == pytest.approx(times)
