"""What a detector adds to torchvision's parts: samples, checks, any backbone, any precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from tiny_detection import HEADS, SIZES, SWIN, batch, detector_config, losses_of, tiny_detector
from torch import nn
from torchvision.models.detection.image_list import ImageList

from visionattn.attention.base import TokenMixer
from visionattn.backbones.efficient_attention_places import efficient_attention_places
from visionattn.detection import DetectionPreprocessor, DetectionSample, PackDetection
from visionattn.detection.exact_boxes import Float32Anchors, StridedRoIAlign
from visionattn.engine.amp import AmpOptimWrapper
from visionattn.registry import MODELS

RESNET = {"type": "visionattn.TimmBackbone", "model_name": "resnet18",
          "timm_options": {"layers": (1, 1, 1, 1), "channels": (8, 16, 16, 32)}}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_images_without_objects_reach_every_parameter(head: str) -> None:
    gradients = []
    for objects in (True, (True, False), False):
        model = tiny_detector(head)
        losses = losses_of(model, batch(objects))
        assert set(losses) == set(model.head.loss_names)
        assert all(value.isfinite() for value in losses.values())
        sum(losses.values()).backward()
        gradients.append({name for name, weight in model.named_parameters() if weight.grad is not None})
        assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
    assert gradients[0] == gradients[1] == gradients[2] == {name for name, _ in model.named_parameters()}


def test_a_crowd_is_not_trained_on() -> None:
    data = batch()
    for sample in data["data_samples"]:
        sample.crowd = torch.tensor([False, True])
    one = batch()
    for sample in one["data_samples"]:
        for field in ("boxes", "labels", "masks", "crowd"):
            setattr(sample, field, getattr(sample, field)[:1])
    model = tiny_detector("mask_rcnn")
    got, expected = losses_of(model, data), losses_of(model, one)
    assert {name: value.item() for name, value in got.items()} == {name: v.item() for name, v in expected.items()}
    assert got["loss_mask"].item() != losses_of(model, batch())["loss_mask"].item()


def test_loss_weights() -> None:
    plain = losses_of(tiny_detector("mask_rcnn"), batch())
    weighted = losses_of(tiny_detector("mask_rcnn", loss_weights={"loss_mask": 2.5, "loss_box_reg": 0.0}), batch())
    factors = {"loss_mask": 2.5, "loss_box_reg": 0.0}
    for name, value in plain.items():
        torch.testing.assert_close(weighted[name], factors.get(name, 1.0) * value)


def test_mistakes_are_named() -> None:
    model = tiny_detector("mask_rcnn")
    wrong = batch()
    wrong["data_samples"][1].labels[0] = 3
    with pytest.raises(ValueError, match=r"1\.png: label 3, and the head's num_classes=3 allows 0 to 2"):
        losses_of(model, wrong)
    wrong = batch()
    wrong["data_samples"][0].boxes[1, 2] = wrong["data_samples"][0].boxes[1, 0]
    with pytest.raises(ValueError, match=r"0\.png: box 1 is \[10.0, 10.0, 10.0, 62.0\] .*: no area"):
        losses_of(model, wrong)
    wrong["data_samples"][0].boxes[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"0\.png: box 1 "):
        losses_of(model, wrong)
    wrong = batch()
    del wrong["data_samples"][1].masks
    with pytest.raises(ValueError, match=r"1\.png has no masks, and the head is trained on them"):
        losses_of(model, wrong)
    ready = model.data_preprocessor(batch())
    with pytest.raises(RuntimeError, match=r"call eval\(\) before"):
        model.train()(**ready, mode="predict")
    with pytest.raises(RuntimeError, match=r"call train\(\) before"):
        model.eval()(**ready, mode="loss")
    with pytest.raises(ValueError, match=r"mode='losses' must be"):
        model(**ready, mode="losses")
    with pytest.raises(ValueError, match=r"loss_weights has 'loss_masks'; the losses of RCNNHead are .*loss_mask"):
        tiny_detector("mask_rcnn", loss_weights={"loss_masks": 2.0})
    config = detector_config("faster_rcnn")
    with pytest.raises(ValueError, match="must have one entry for each of the 5 maps"):
        MODELS.build(
            {**detector_config("faster_rcnn"), "head": {**HEADS["faster_rcnn"], "rpn": {"anchor_sizes": (8,)}}}
        )
    with pytest.raises(TypeError, match="nms_treshold"):
        MODELS.build({**config, "head": {**HEADS["faster_rcnn"], "box": {"nms_treshold": 1}}})
    config = detector_config("fcos")
    with pytest.raises(ValueError, match="32 groups: 24 channels of the neck do not fit"):
        MODELS.build({**config, "neck": {**config["neck"], "out_channels": 24}})


def test_a_neck_that_does_not_know_its_strides_is_named() -> None:
    bare = nn.Conv2d(3, 8, 3)
    bare.forward = lambda x: [x]  # type: ignore[method-assign]
    MODELS.register_module("BareBackboneOfATest", module=lambda: bare, force=True)
    config = detector_config("faster_rcnn", {"type": "BareBackboneOfATest"})
    config["backbone"].pop("out_indices")
    config["neck"]["in_channels"] = (8,)
    expected = r"needs the strides of its neck's maps.*give the neck in_channels and in_strides"
    with pytest.raises(ValueError, match=expected):
        MODELS.build(config)


@pytest.mark.parametrize(
    ("backbone", "neck"),
    [
        (SWIN, {"type": "visionattn.FPN", "norm_cfg": {"type": "GN", "num_groups": 4}}),
        (
            {"type": "visionattn.VisionTransformer", "embed_dim": 16, "depth": 2, "num_heads": 2, "class_token": False,
             "image_size": (64, 96)},
            {"type": "visionattn.SimpleFeaturePyramid"},
        ),
        (
            {**RESNET, "attention": efficient_attention_places(7)["backbone"]},
            {"type": "visionattn.FPN", "attention": efficient_attention_places(7)["neck"]},
        ),
    ],
    ids=["swin, group norms", "vit", "resnet with seven modules"],
)  # fmt: skip
def test_backbones_and_necks(backbone: Any, neck: Any) -> None:
    """Every parameter is trained; masks come in the images' own sizes."""
    torch.manual_seed(0)
    gn = {"type": "GN", "num_groups": 4}
    head = {**HEADS["mask_rcnn"], "box": {"convs": (16,), "width": 32, "norm_cfg": gn, "min_score": 0.0}}
    head["mask"] = {"convs": (16,), "width": 8, "norm_cfg": gn}
    neck = {"out_channels": 16, "extra_levels": "LastLevelMaxPool", **neck}
    model = MODELS.build({"type": "visionattn.Detector", "backbone": backbone, "neck": neck, "head": head})
    sum(losses_of(model, batch()).values()).backward()
    assert all(weight.grad is not None for weight in model.parameters())
    data = batch()
    data["data_samples"][0].set_metainfo({"ori_shape": (32, 45)})
    for sample, size in zip(model.eval().test_step(data), ((32, 45), SIZES[1]), strict=True):
        found = sample.predicted
        assert found.masks.shape == (len(found.boxes), *size)
        assert len(found) > 0
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, [3, 2]] <= torch.tensor(size)).all()
        assert found.labels.min() >= 0
        assert found.labels.max() <= 2
        assert (found.scores.diff() <= 0).all()
    if "attention" in neck:
        assert sum(isinstance(module, TokenMixer) for module in model.modules()) == 7


@pytest.mark.parametrize("head", ["faster_rcnn", "retinanet"])
def test_extra_levels_without_a_scope_are_ours_under_any(head: str) -> None:
    for scope in ("mmengine", "visionattn"):
        with DefaultScope.overwrite_default_scope(scope):
            assert len(tiny_detector(head).neck.strides) == 5


def test_frozen_stages_and_norms_stay_as_they_are() -> None:
    model = tiny_detector("faster_rcnn", {**RESNET, "frozen_stages": 1, "norm_eval": True})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1))
    model.train().train_step(batch(), optimizer)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("running" in name or "num_batches" in name for name in changed)
    assert not any(name.startswith(("backbone.body.conv1", "backbone.body.layer1")) for name in changed)
    assert any(name.startswith("backbone.body.layer2") for name in changed)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    found = []
    for again in (False, True):
        model = tiny_detector("retinanet", {**SWIN, "grad_checkpointing": again})
        sum(losses_of(model, batch()).values()).backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@pytest.mark.parametrize("head", HEADS)
def test_boxes_stay_exact_in_bfloat16(head: str) -> None:
    """The heads' moves are small here: a box moves by what bfloat16 rounds in them, not in its coordinates."""
    model = tiny_detector(head).eval()
    data = model.data_preprocessor({"inputs": [torch.zeros(3, 64, 1024, dtype=torch.uint8)], "data_samples": []})
    images = ImageList(data["inputs"], [(64, 1024)])
    with torch.no_grad():
        maps = model.neck(model.backbone(images.tensors))
        part = model.head.rpn if head.endswith("rcnn") else model.head.detector
        exact = boxes_of(model, part, images, maps)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = boxes_of(model, part, images, [x.bfloat16() for x in maps])
    assert exact.dtype == rounded.dtype == torch.float32
    assert exact.max() > 900
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.5)
    anchors = part.anchor_generator(images, [x.bfloat16() for x in maps])
    torch.testing.assert_close(anchors, part.anchor_generator(images, maps), rtol=0, atol=0)


def boxes_of(model: Any, part: Any, images: ImageList, maps: list[Any]) -> torch.Tensor:
    """Every anchor as the layers move it."""
    anchors = part.anchor_generator(images, maps)
    if part is getattr(model.head, "rpn", None):
        moves = [x.permute(0, 2, 3, 1).reshape(len(x), -1, 4) for x in part.head(maps)[1]]
        return part.box_coder.decode(torch.cat(moves, 1), anchors)[:, 0]
    moves = part.head(maps)["bbox_regression"][0]
    single = getattr(part.box_coder, "decode_single", part.box_coder.decode)
    return single(moves, anchors[0])


@pytest.mark.parametrize("head", HEADS)
def test_a_step_in_bfloat16(head: str) -> None:
    model = tiny_detector(head)
    before = [weight.clone() for weight in model.parameters()]
    wrapper = AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-2))
    data = batch()
    log = model.train().train_step(data, wrapper)
    exact = losses_of(tiny_detector(head), data)
    assert float(log["loss"]) == pytest.approx(float(sum(exact.values())), rel=0.05)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) > 0.8 * len(before)


def test_roi_align_knows_the_strides() -> None:
    """torchvision's own takes a pyramid of a small padded image for one of half the strides, and keeps to that."""
    from torchvision.ops import MultiScaleRoIAlign

    torch.manual_seed(0)
    ours, theirs = StridedRoIAlign((4, 8, 16, 32), 7, 2), MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)

    def cut(align: nn.Module, size: int, padded: int) -> torch.Tensor:
        maps = {
            str(level): torch.rand(1, 2, padded // 2 ** (level + 2), padded // 2 ** (level + 2)) for level in range(4)
        }
        box = torch.tensor([[1.0, 2.0, 20.0, 25.0]])
        out: torch.Tensor = align(maps, [box], [(size, size)])
        return out

    torch.manual_seed(1)
    first = cut(ours, 256, 256)
    torch.manual_seed(1)
    torch.testing.assert_close(first, cut(theirs, 256, 256), rtol=1e-5, atol=1e-6)
    assert theirs.scales == list(ours.scales)
    spoilt, ours = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2), StridedRoIAlign((4, 8, 16, 32), 7, 2)
    for align in (spoilt, ours):
        cut(align, 33, 64)
    torch.manual_seed(1)
    assert torch.equal(first, cut(ours, 256, 256))
    torch.manual_seed(1)
    assert not torch.allclose(first, cut(spoilt, 256, 256), rtol=1e-2)


@pytest.mark.parametrize("counts", [(5, 0, 7), (0, 0, 0)])
def test_roi_align_is_torchvisions_on_all_levels(counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    align = StridedRoIAlign((4, 8, 16, 32), 7, 2)
    maps = {str(n): torch.randn(3, 5, 512 >> n, 640 >> n, requires_grad=True) for n in range(4)}
    corners = [torch.rand(count, 2, 2) * torch.tensor([2560.0, 2048.0]) for count in counts]
    boxes = [torch.cat([some.amin(1), some.amax(1)], 1) for some in corners]
    boxes = [some / 8 ** torch.rand(len(some), 1) for some in boxes]
    assert not sum(counts) or len(set(align.map_levels(boxes).tolist())) > 2
    results = []
    for switch in ("on", "off"):
        monkeypatch.setenv("VISIONATTN_KERNELS", switch)
        out = align(maps, boxes, [(2048, 2560)] * 3)
        gradients = torch.autograd.grad(out.square().sum(), list(maps.values()), allow_unused=True)
        results.append((out, *gradients))
    assert results[0][0].shape == (sum(counts), 5, 7, 7)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_anchors_are_float32() -> None:
    images = ImageList(torch.zeros(1, 3, 64, 1280), [(64, 1280)])
    anchors = Float32Anchors(((32,),), ((1.0,),))(images, [torch.zeros(1, 4, 16, 320, dtype=torch.bfloat16)])[0]
    assert anchors.dtype == torch.float32
    assert anchors[319].tolist() == [1276 - 16, -16, 1276 + 16, 16]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("training", [False, True])
def test_tensor_mode_gives_what_the_layers_say(head: str, training: bool) -> None:
    model = tiny_detector(head).train(training)
    raw = model(torch.zeros(2, 3, 64, 96))
    flat = [x for value in raw.values() for x in (value if isinstance(value, list) else [value])]
    assert all(isinstance(x, torch.Tensor) for x in flat)
    sum(x.sum() for x in flat).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_preprocessor_pads_and_normalises_as_torchvision() -> None:
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    data = batch()
    theirs = GeneralizedRCNNTransform(64, 200, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).eval()
    expected, _ = theirs([image / 255 for image in data["inputs"]])
    got = DetectionPreprocessor()(data)
    assert torch.equal(got["inputs"], expected.tensors)
    assert [sample.img_shape for sample in got["data_samples"]] == expected.image_sizes == list(SIZES)
    assert got["inputs"].shape == (2, 3, 96, 96)
    assert not got["inputs"][0, :, 64:].any()
    assert not got["inputs"][0, :, :, 90:].any()


def test_packed_samples() -> None:
    import numpy as np

    raw = {
        "image": np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3),
        "boxes": [[0, 0, 2, 1]],
        "labels": [1],
        "masks": np.ones((1, 2, 3), np.uint8),
        "image_id": 7,
        "file": "seven.jpg",
        "ori_shape": (4, 6),
        "scale": (0.5, 0.5),
    }
    packed = PackDetection()(raw)
    assert packed["inputs"].tolist() == raw["image"].transpose(2, 0, 1).tolist()
    sample = packed["data_samples"]
    assert (sample.image_id, sample.file, sample.ori_shape, sample.scale) == (7, "seven.jpg", (4, 6), (0.5, 0.5))
    assert sample.boxes.tolist() == [[0, 0, 2, 1]]
    assert sample.boxes.dtype == torch.float32
    assert (sample.labels.dtype, sample.crowd.tolist(), sample.masks.shape) == (torch.int64, [False], (1, 2, 3))

    nothing = PackDetection()({**raw, "boxes": [], "labels": [], "masks": []})["data_samples"]
    assert (nothing.boxes.shape, nothing.masks.shape, nothing.crowd.shape) == ((0, 4), (0, 2, 3), (0,))
    unknown = PackDetection()({"image": raw["image"]})["data_samples"]
    assert isinstance(unknown, DetectionSample)
    assert "boxes" not in unknown
    assert unknown.ori_shape == (2, 3)
    with pytest.raises(ValueError, match=r"seven\.jpg: 1 boxes, 2 labels, 1 crowd, 1 masks"):
        PackDetection()({**raw, "labels": [1, 2]})
    with pytest.raises(ValueError, match=r"seven\.jpg: masks \[1, 3, 3\] on an image of 2 x 3"):
        PackDetection()({**raw, "masks": np.ones((1, 3, 3), np.uint8)})
    with pytest.raises(ValueError, match=r"expected a uint8 image \[H, W, 3\], got float32 \[2, 3, 3\]"):
        PackDetection()({**raw, "image": raw["image"].astype(np.float32)})
