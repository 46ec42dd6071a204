"""What a conversion takes, leaves out and refuses, and the files it writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from weights_peers import assert_same_state, mmseg_swin, parameters, timm_swin, torchvision_swin

import visionattn
from visionattn.weights import converted_file
from visionattn.weights.conversion import convert, convert_weights
from visionattn.weights.converted_file import convert_file
from visionattn.weights.durable import save_durably
from visionattn.weights.reading import read_checkpoint


def _state(*, v2: bool = False) -> dict[str, Tensor]:
    return dict(timm_swin(7, (56, 56), v2=v2).state_dict())


def test_a_checkpoint_is_taken_as_it_is_and_the_account_is_readable() -> None:
    microsoft = convert_weights(_state(), "microsoft")
    microsoft["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    wrapped = {"model": {f"module.{name}": value for name, value in microsoft.items()}, "epoch": 3}
    conversion = convert(wrapped, "mmseg", allow=("norm.*", "head.*"))
    assert str(conversion).splitlines() == [
        "microsoft -> mmseg: Swin (embed_dim=16, depths=(2, 3), num_heads=(2, 4))",
        "  72 tensors converted",
        "  1 not taken, they follow from window and image size: layers.0.blocks.1.attn_mask",
        "  5 computed for the target: stages.0.blocks.0.attn.w_msa.relative_position_index, ...",
        "  4 left out as allowed: norm.weight, ...",
    ]
    assert len(conversion.state) == 77
    assert_same_state(visionattn.convert_weights(wrapped, "mmseg", allow=("norm.*", "head.*")), conversion.state)


def test_what_has_no_place_is_refused_with_what_leaves_it_out() -> None:
    with pytest.raises(ValueError) as refused:
        convert_weights(_state(), "mmseg")
    assert str(refused.value) == (
        "4 of 76 tensors have no place in mmseg: norm.weight, norm.bias, head.fc.weight, ...; "
        "allow=('norm.*', 'head.*') (--allow 'norm.*' 'head.*') leaves them out"
    )
    strange = {**_state(), "layers.0.blocks.0.attn.extra": torch.ones(1)}
    with pytest.raises(ValueError, match=r"1 of 77 tensors have no place in timm: layers\.0\.blocks\.0\.attn\.extra$"):
        convert_weights(strange, "timm")


def test_of_a_segmentor_the_backbone_is_converted() -> None:
    theirs = mmseg_swin(7).state_dict()
    whole = {**{f"backbone.{name}": value for name, value in theirs.items()}, "decode_head.weight": torch.ones(2)}
    expected = convert_weights(theirs, "timm")
    with pytest.raises(ValueError, match=r"1 of 8\d tensors have no place in timm: decode_head\.weight; allow=\('deco"):
        convert_weights(whole, "timm")
    assert_same_state(convert_weights(whole, "timm", allow=("decode_head.*",)), expected)
    assert_same_state(convert_weights(whole, "timm", prefix="backbone."), expected)
    assert_same_state(
        convert_weights({f"net.{n}": value for n, value in whole.items()}, "timm", prefix="net.backbone."), expected
    )


@pytest.mark.parametrize(
    ("state", "to", "options", "said"),
    [
        (_state, "detectron", {}, "no dialect is called 'detectron'; there are microsoft, timm, torchvision and mmseg"),
        (
            lambda: {"conv.weight": torch.ones(2), "epoch": 3, "fc.bias": torch.ones(2)},
            "timm",
            {},
            r"names of no code base known here: conv\.weight, fc\.bias, \.\.\.; known are those of micro.* --prefix",
        ),
        (lambda: {"epoch": 3}, "timm", {}, "no weights found"),
        (
            lambda: _state(v2=True),
            "mmseg",
            {},
            "mmseg has no Swin V2, .* they can go to microsoft, timm and torchvision",
        ),
        (
            lambda: _state(v2=True),
            "torchvision",
            {},
            r"do not tell the window of layers\.0\.blocks\.0: give .*\(8, 8\)",
        ),
        (_state, "torchvision", {"window": (8, 8)}, r"window=\(8, 8\) is not that of layers\.0\.blocks\.0: .*\(7, 7\)"),
        (_state, "torchvision", {"window": (7,)}, r"window=\(7,\) must hold height and width"),
    ],
)
def test_what_cannot_be_converted_is_said_in_one_line(state: Any, to: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(" --prefix", r" \(--prefix\)")) as refused:
        convert_weights(state(), to, **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["patch_embed.projection.weight", "stages.0.downsample.reduction.weight"])
def test_shapes_that_are_not_the_dialects_are_no_traceback(name: str) -> None:
    state = mmseg_swin(7).state_dict()
    for shape in ((), (7,)):
        state[name] = torch.zeros(shape)
        if "downsample" in name:
            with pytest.raises(
                ValueError, match="the names are those of mmseg's Swin, the shapes of the tensors are not"
            ):
                convert_weights(state, "timm")
        else:  # nothing is done to it
            assert convert_weights(state, "timm")["patch_embed.proj.weight"].shape == shape


def test_a_bias_table_without_rows_tells_no_window() -> None:
    state = {**_state(), "layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(())}
    with pytest.raises(ValueError, match="the names are those of timm's Swin, the shapes of the tensors are not"):
        convert_weights(state, "torchvision")


def test_a_window_that_is_no_square_must_be_given() -> None:
    source = timm_swin((7, 4), (56, 56))
    with pytest.raises(ValueError, match=r"do not tell the window of layers\.0\.blocks\.0"):
        convert_weights(source.state_dict(), "torchvision")
    found = convert_weights(source.state_dict(), "torchvision", window=(7, 4))
    assert found["features.1.0.attn.relative_position_index"].shape == (28 * 28,)
    with pytest.raises(ValueError, match=r"window=\(7, 5\) is not that of .*: it has a bias table of 91 rows"):
        convert_weights(source.state_dict(), "torchvision", window=(7, 5))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_files_are_written_as_their_readers_want_them(suffix: str, tmp_path: Path) -> None:
    state = _state()
    torch.save(state, tmp_path / "swin.pth")
    out = tmp_path / "new" / f"swin{suffix}"
    conversion = convert_file(tmp_path / "swin.pth", out, "torchvision")
    assert_same_state(read_checkpoint(out), conversion.state)
    torchvision_swin(7).load_state_dict(read_checkpoint(out), strict=True)
    assert os.listdir(out.parent) == [out.name]  # no manifest: a run's folder must not take it for a checkpoint
    if suffix == ".safetensors":
        with safe_open(out, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    convert_file(out, tmp_path / f"back{suffix}", "timm")
    assert_same_state(read_checkpoint(tmp_path / f"back{suffix}"), state)


def test_microsofts_reader_looks_under_model(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "swin.pth")
    convert_file(tmp_path / "swin.pth", tmp_path / "out.pth", "microsoft")
    assert "layers.0.downsample.norm.weight" in torch.load(tmp_path / "out.pth")["model"]


def test_mmseg_reads_what_was_written(tmp_path: Path) -> None:
    from mmseg.models.backbones import SwinTransformer

    source = timm_swin(7, (56, 56))
    torch.save(source.state_dict(), tmp_path / "swin.pth")
    convert_file(tmp_path / "swin.pth", tmp_path / "out.pth", "mmseg", allow=("norm.*", "head.*"))
    theirs = SwinTransformer(
        embed_dims=16,
        depths=(2, 3),
        num_heads=(2, 4),
        strides=(4, 2),
        out_indices=(0, 1),
        init_cfg={"type": "Pretrained", "checkpoint": str(tmp_path / "out.pth")},
    )
    theirs.init_weights()
    expected = parameters(convert_weights(source.state_dict(), "mmseg", allow=("norm.*", "head.*")))
    found = {name: value for name, value in parameters(theirs.state_dict()).items() if not name.startswith("norm")}
    assert_same_state(found, expected)


def test_what_must_not_be_written_is_refused_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "swin.pth"
    torch.save(_state(), source)
    before = source.read_bytes()
    (tmp_path / "link.pth").symlink_to(source)
    os.link(source, tmp_path / "other_name.pth")
    (tmp_path / "folder.pth").mkdir()
    save_durably({"state_dict": {}}, tmp_path / "run" / "iter_8.pth")
    monkeypatch.setattr(converted_file, "read_checkpoint", lambda path: pytest.fail("read"))
    for out in ("swin.pth", "link.pth", "other_name.pth"):
        with pytest.raises(ValueError, match=rf"{out} is the file to convert, which is not written over"):
            convert_file(source, tmp_path / out, "timm")
    for out, said in (
        ("swin.bin", r"swin\.bin must end in \.safetensors, \.pth or \.pt"),
        ("folder.pth", r"folder\.pth is a folder"),
        ("run/iter_8.pth", r"iter_8\.pth is a run's checkpoint"),
    ):
        with pytest.raises(ValueError, match=said):
            convert_file(source, tmp_path / out, "timm")
    with pytest.raises(ValueError, match="no dialect is called 'tim'"):
        convert_file(source, tmp_path / "out.pth", "tim")
    assert source.read_bytes() == before


def test_a_refused_conversion_names_the_file_and_leaves_what_was_there(tmp_path: Path) -> None:
    torch.save(_state(), tmp_path / "swin.pth")
    (tmp_path / "out.pth").write_text("there before")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/swin\.pth: 4 of 76 tensors have no place in mmseg"):
        convert_file(tmp_path / "swin.pth", tmp_path / "out.pth", "mmseg")
    assert (tmp_path / "out.pth").read_text() == "there before"
    convert_file(tmp_path / "swin.pth", tmp_path / "out.pth", "timm")
    assert_same_state(read_checkpoint(tmp_path / "out.pth"), _state())
