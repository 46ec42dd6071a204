from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn
from torch.nn import functional as F

from visionattn.registry import MODELS
from visionattn.segmentation.sliding import SlidingWindow, starts

HEAD = {
    "type": "mmseg.FCNHead", "in_channels": 8, "in_index": 0, "channels": 4, "num_convs": 1, "concat_input": False,
    "num_classes": 5, "dropout_ratio": 0.0, "norm_cfg": {"type": "BN"},
    "loss_decode": {"type": "visionattn.CrossEntropyLoss"},
}  # fmt: skip


def segmentor(test_cfg, kind="visionattn.EncoderDecoder"):
    torch.manual_seed(0)
    model = MODELS.build(
        {
            "type": kind,
            "data_preprocessor": {"type": "mmseg.SegDataPreProcessor", "mean": [0.0] * 3, "std": [1.0] * 3},
            "backbone": {
                "type": "visionattn.TimmBackbone", "model_name": "resnet18", "out_indices": (1,),
                "timm_options": {"channels": (8, 8, 8, 8), "stem_width": 8},
            },
            "decode_head": HEAD,
            "test_cfg": test_cfg and ConfigDict(test_cfg),  # mmseg reads it as an object
        }
    ).eval()  # fmt: skip
    nn.init.normal_(model.decode_head.conv_seg.weight)
    return model


def logits(model, images):
    with torch.inference_mode():
        return model.inference(images, [{"ori_shape": images.shape[2:], "img_shape": images.shape[2:]}] * len(images))


@pytest.mark.parametrize("size", [(48, 64), (49, 65), (61, 97), (100, 70)])
@pytest.mark.parametrize("stride", [(32, 40), (48, 64), (17, 23)])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_equals_mmsegs(size, stride, batch):
    test_cfg = {"mode": "slide", "crop_size": (48, 64), "stride": stride}
    images = torch.randn(2, 3, *size)
    theirs = logits(segmentor(test_cfg, "mmseg.EncoderDecoder"), images)
    ours = logits(segmentor({**test_cfg, "window_batch": batch}), images)
    assert ours.shape == (2, 5, *size)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("test_cfg", [{"mode": "whole"}, {"mode": "slide", "crop_size": (48, 64), "stride": (32, 40)}])
def test_a_cascade_equals_mmsegs(test_cfg):
    head = {**HEAD, "type": "mmseg.OCRHead", "ocr_channels": 4}
    head.pop("num_convs"), head.pop("concat_input")
    images = torch.randn(2, 3, 61, 97)
    ours, theirs = (cascade(f"{scope}.CascadeEncoderDecoder", head, test_cfg) for scope in ("visionattn", "mmseg"))
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(logits(ours, images), logits(theirs, images))


def cascade(kind, head, test_cfg):
    return MODELS.build(
        {
            "type": kind,
            "num_stages": 2,
            "backbone": {
                "type": "visionattn.TimmBackbone", "model_name": "resnet18", "out_indices": (1,),
                "timm_options": {"channels": (8, 8, 8, 8), "stem_width": 8},
            },
            "decode_head": [HEAD, head],
            "test_cfg": ConfigDict(test_cfg),
        }
    ).eval()  # fmt: skip


def naive(images, predict, size, stride, edge_weight):
    """Each pixel's weighted mean over the windows that see it, one window at a time."""
    batch, _, height, width = images.shape
    found, weights = {}, {}
    tops, lefts = (
        sorted({min(k * step, length - window) for k in range(length) if k * step < length - window + step})
        for length, window, step in zip((height, width), size, stride, strict=True)
    )
    for top in tops:
        for left in lefts:
            seen = predict(images[:, :, top : top + size[0], left : left + size[1]])
            for y in range(size[0]):
                for x in range(size[1]):
                    inside = [2 * min(i + 0.5, n - i - 0.5) / n for i, n in zip((y, x), size, strict=True)]
                    weight = 1.0
                    for near in inside:
                        weight *= edge_weight + (1 - edge_weight) * near
                    key = top + y, left + x
                    found[key] = found.get(key, 0) + weight * seen[:, :, y, x]
                    weights[key] = weights.get(key, 0) + weight
    out = torch.zeros(batch, 2, height, width, dtype=images.dtype)
    for (y, x), value in found.items():
        out[:, :, y, x] = value / weights[y, x]
    return out


def odd_prediction(windows):
    """A window's prediction depends on where a pixel lies in it."""
    height, width = windows.shape[2:]
    place = torch.linspace(0, 1, height * width, dtype=windows.dtype).view(height, width)
    return torch.stack([windows.sum(1) * place, windows.amax(1) + place], 1)


@pytest.mark.parametrize("edge_weight", [1.0, 0.5, 0.01])
@pytest.mark.parametrize(("size", "stride"), [((6, 5), (4, 3)), ((7, 9), (7, 9)), ((6, 5), (1, 2))])
def test_equals_a_loop(size, stride, edge_weight):
    images = torch.randn(2, 3, 13, 11, dtype=torch.float64)
    window = SlidingWindow(size, stride, batch=4, edge_weight=edge_weight)
    torch.testing.assert_close(
        window(images, odd_prediction), naive(images, odd_prediction, size, stride, edge_weight), check_stride=False
    )


@pytest.mark.parametrize("shape", [(1, 1), (5, 20), (20, 5), (8, 9)])
def test_small_images_are_padded_and_cut_back(shape):
    """The network sees windows of one size alone; what it says of the padding is dropped."""
    window = SlidingWindow((8, 9), (4, 4), batch=2)
    images = torch.randn(3, 3, *shape, dtype=torch.float64)
    seen = []

    def predict(windows):
        seen.append(windows.shape)
        return odd_prediction(windows)

    result = window(images, predict)
    assert result.shape == (3, 2, *shape)
    assert {tuple(s[1:]) for s in seen} == {(3, 8, 9)}
    padded = F.pad(images, (0, max(9 - shape[1], 0), 0, max(8 - shape[0], 0)))
    expected = naive(padded, odd_prediction, (8, 9), (4, 4), 1.0)[..., : shape[0], : shape[1]]
    torch.testing.assert_close(result, expected, check_stride=False)


def test_windows_run_in_batches_across_images():
    sizes = []
    window = SlidingWindow((8, 8), (8, 8), batch=5)

    def predict(windows):
        sizes.append(len(windows))
        return odd_prediction(windows)

    window(torch.randn(3, 3, 16, 16), predict)
    assert sizes == [5, 5, 2]


def test_windows_cover_every_pixel_and_end_at_the_border():
    for length in range(8, 40):
        for stride in range(1, 9):
            found = starts(length, 8, stride)
            assert found[0] == 0
            assert found[-1] == length - 8
            assert all(0 < b - a <= stride for a, b in pairwise(found))


def test_half_precision_blends_in_float32():
    window = SlidingWindow((8, 8), (4, 4))
    result = window(torch.randn(1, 3, 12, 12), lambda windows: odd_prediction(windows).bfloat16())
    assert result.dtype == torch.float32


@pytest.mark.parametrize("mode", ["whole", "slide", None])
@pytest.mark.parametrize("size", [(65, 97), (20, 30)])
def test_predictions_have_the_images_size(mode, size):
    test_cfg = None if mode is None else {"mode": mode, "crop_size": (48, 64), "stride": (32, 40)}
    model = segmentor(test_cfg)
    with torch.inference_mode():
        (sample,) = model.test_step({"inputs": [torch.randint(256, (3, *size))], "data_samples": None})
    assert sample.pred_sem_seg.shape == size
    assert sample.seg_logits.data.shape == (5, *size)


def test_whole_inference_is_the_networks_answer():
    images = torch.randn(2, 3, 61, 97)
    theirs = logits(segmentor({"mode": "whole"}, "mmseg.EncoderDecoder"), images)
    assert torch.equal(logits(segmentor({"mode": "whole"}), images), theirs)


@pytest.mark.parametrize(
    ("test_cfg", "message"),
    [
        ({"mode": "tiles"}, r"mode='tiles' must be \"whole\" or \"slide\""),
        ({"mode": "slide", "crop_size": (8, 8)}, 'mode="slide" needs stride'),
        ({"mode": "slide"}, "needs crop_size and stride"),
        ({"mode": "slide", "crop_size": (8, 8), "stride": (9, 8)}, r"stride=\(9, 8\) above crop_size=\(8, 8\)"),
        ({"mode": "slide", "crop_size": (8, 8), "stride": (0, 8)}, r"stride=\(0, 8\) must be \(height, width\)"),
        ({"mode": "slide", "crop_size": (8, 8, 8), "stride": (8, 8)}, r"crop_size=\(8, 8, 8\) must be"),
        ({"mode": "slide", "crop_size": (8, 8), "stride": (8, 8), "window_batch": 0}, "window_batch=0 must be 1 or"),
        ({"mode": "slide", "crop_size": (8, 8), "stride": (8, 8), "edge_weight": 0}, "edge_weight=0 must be above 0"),
    ],
)
@pytest.mark.parametrize("kind", ["EncoderDecoder", "CascadeEncoderDecoder"])
def test_a_test_cfg_that_makes_no_sense_is_refused_at_once(kind, test_cfg, message):
    config = {"type": f"visionattn.{kind}", "backbone": {}, "decode_head": [], "test_cfg": test_cfg}
    if kind == "CascadeEncoderDecoder":
        config["num_stages"] = 2
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)
