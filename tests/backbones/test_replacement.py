"""replace_attention against timm's own outputs and gradients, and against softmax written out."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from torch import Tensor, nn

import visionattn
from tests.naive import tensor
from visionattn.attention.base import TokenMixer
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.attention.window import WindowAttention
from visionattn.backbones.patch_map import PatchMap
from visionattn.backbones.replacement import replace_attention, replacements
from visionattn.registry import MODELS

SIZE = (48, 80)  # 3 x 5 patches of 16; 12 x 20 of 4


@pytest.fixture
def fused() -> Iterator[Callable[[bool], None]]:
    yield set_fused_attn
    set_fused_attn(True)


def noisy(model: nn.Module) -> Any:
    """In float64 and eval mode, no parameter at a start that hides an error."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.1)
    return model.eval()


def vit(name: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    torch.manual_seed(0)
    size = {"img_size": SIZE, "embed_dim": 12, "depth": 3, "num_heads": 3, "num_classes": 4}
    return noisy(timm.create_model(name, pretrained=False, **{**size, **options}))


def swin(version: int = 1, **options: Any) -> Any:
    torch.manual_seed(0)
    name = "swin_tiny_patch4_window7_224" if version == 1 else "swinv2_tiny_window8_256"
    size = {"img_size": SIZE, "embed_dim": 8, "depths": (2, 3), "num_heads": (2, 4), "window_size": 4, "num_classes": 4}
    return noisy(timm.create_model(name, pretrained=False, **{**size, **options}))


def image(*size: int, seed: int = 0) -> Tensor:
    return tensor(2, 3, *(size or SIZE), seed=seed)


def results(model: nn.Module, *images: Tensor) -> dict[str, Tensor]:
    """What the model answers, and every gradient of a random sum of it."""
    leaves = [x.clone().requires_grad_() for x in images]
    model.zero_grad()
    answers = [model(x) for x in leaves]
    maps = [m for answer in answers for m in ([answer] if isinstance(answer, Tensor) else answer)]
    sum(((m * tensor(*m.shape, seed=7)).sum() for m in maps), torch.zeros(())).backward()
    found = {f"answer {i}": m.detach() for i, m in enumerate(maps)}
    found |= {f"image {i}": x.grad for i, x in enumerate(leaves) if x.grad is not None}
    return found | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tol: float = 1e-10) -> None:
    assert set(theirs) <= set(ours)
    worst = {name: (ours[name] - theirs[name]).abs().max().item() for name in theirs}
    assert all(error <= tol for error in worst.values()), {n: e for n, e in worst.items() if not e <= tol}


def mixers(model: nn.Module) -> list[TokenMixer]:
    return [m for m in model.modules() if isinstance(m, TokenMixer)]


VITS: dict[str, dict[str, Any]] = {
    "class token": {},
    "register tokens": {"reg_tokens": 2},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
    "layer scale": {"init_values": 0.3},
    "norm behind": {"block_fn": ResPostBlock, "init_values": 0.3},
    "no bias of qkv": {"qkv_bias": False},
    "no bias of proj": {"proj_bias": False},
    "any size": {"dynamic_img_size": True},
}


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("kind", VITS)
def test_softmax_leaves_a_vit_as_it_was(kind: str, is_fused: bool, fused: Callable[[bool], None]) -> None:
    fused(is_fused)
    model = vit(**VITS[kind])
    names, expected = list(model.state_dict()), results(model, image())
    assert visionattn.replace_attention(model, "SoftmaxAttention") is model
    assert [type(m) for m in mixers(model)] == [SoftmaxAttention] * 3
    assert_same(results(model, image()), expected)
    added = [f"blocks.{i}.attn.proj.bias" for i in range(3)] if kind == "no bias of proj" else []
    assert set(model.state_dict()) == {*names, *added}
    report = replacements(model)["blocks.1.attn"]
    assert report.dropped == ()
    assert report.fresh == (("proj.bias",) if added else ())


def test_softmax_leaves_a_float32_vit_as_it_was() -> None:
    model = vit(embed_dim=48).float()
    x = image().float()
    expected = model(x)
    assert (replace_attention(model, "SoftmaxAttention")(x) - expected).abs().max() < 1e-6


def softmax_attention(block: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of the block's qkv, and proj, token by token: queries [N, C], keys [M, C]."""
    weight, bias, heads = block.attn.qkv.weight, block.attn.qkv.bias, block.attn.num_heads
    q, k, v = (
        (tokens @ part.T + offset).unflatten(-1, (heads, -1))
        for tokens, part, offset in zip((queries, keys, keys), weight.chunk(3), bias.chunk(3), strict=True)
    )
    rows = []
    for token in q:
        logits = (token * k).sum(-1) / token.shape[-1] ** 0.5  # [M, heads]
        weights = logits.exp() / logits.exp().sum(0)
        rows.append((weights[..., None] * v).sum(0).flatten())
    return torch.stack(rows) @ block.attn.proj.weight.T + block.attn.proj.bias


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2, "class_token": False, "global_pool": "avg"}])
def test_what_goes_by_places_sees_the_map_and_a_class_token_sees_all(options: dict[str, Any]) -> None:
    """With one window over the whole map, everything can be written down: patches among themselves, prefix over all."""
    model = vit(depth=1, **options)
    block, number = model.blocks[0], model.num_prefix_tokens
    x = tensor(2, number + 15, 12).requires_grad_()

    def expected() -> Tensor:
        normed = [block.norm1(tokens) for tokens in x]
        mixed = [
            torch.cat([softmax_attention(block, n[:number], n), softmax_attention(block, n[number:], n[number:])])
            for n in normed
        ]
        out = x + torch.stack(mixed)
        return out + block.mlp(block.norm2(out))

    theirs = expected()
    gradient = torch.autograd.grad(theirs.pow(2).sum(), x)[0]
    cfg = {"type": "WindowAttention", "window": (3, 5), "relative_position_bias": False}
    replace_attention(model, cfg)
    ours = block(x)
    assert (ours - theirs).abs().max() < 1e-10
    assert (torch.autograd.grad(ours.pow(2).sum(), x)[0] - gradient).abs().max() < 1e-10
    assert [name for name in block.state_dict() if name.startswith("patch_map.prefix.")] != []
    block.patch_map.prefix.qkv.weight.data.zero_()
    assert not torch.equal(block.attn.qkv.weight, block.patch_map.prefix.qkv.weight), "a copy, not the same weights"


def test_windows_lie_on_the_patches_of_any_image() -> None:
    """Patches of 1 x 1 windows see themselves alone, those of 1 x 5 their row: which they are, the model knows."""
    model = vit(depth=1, dynamic_img_size=True, class_token=False, global_pool="avg")
    replace_attention(model, {"type": "WindowAttention", "window": (1, 64), "relative_position_bias": False})
    for rows, columns in ((3, 5), (5, 3), (2, 4)):
        x = image(16 * rows, 16 * columns).requires_grad_()
        patch = model.forward_intermediates(x, intermediates_only=True)[0][0, :, 1, 2]
        seen = torch.autograd.grad(patch.sum(), x)[0][0].abs().sum(0)
        seen = seen.unflatten(0, (rows, 16)).unflatten(2, (columns, 16)).sum((1, 3)) > 0
        expected = torch.zeros(rows, columns, dtype=torch.bool)
        expected[1] = True
        assert torch.equal(seen, expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    model = vit(dynamic_img_size=True).train()
    replace_attention(model, {"type": "WindowAttention", "window": (2, 2)})
    expected = results(model, image())
    model.set_grad_checkpointing()
    timm.layers.config.set_reentrant_ckpt(reentrant)
    try:
        assert_same(results(model, image()), expected)
    finally:
        timm.layers.config.set_reentrant_ckpt(False)


def test_gradient_checkpointing_of_two_images_before_one_backward() -> None:
    """Of as many patches each, but lying otherwise: the second run of a block must know which."""
    model = vit(dynamic_img_size=True).train()
    replace_attention(model, {"type": "WindowAttention", "window": (2, 2)})
    pair = image(48, 80), image(80, 48)
    expected = results(model, *pair)
    model.set_grad_checkpointing()
    assert_same(results(model, *pair), expected)


@pytest.mark.parametrize("options", [{}, {"strict_img_size": False}, {"always_partition": True}])
@pytest.mark.parametrize("version", [1, 2])
def test_windows_leave_a_swin_as_it_was(version: int, options: dict[str, Any]) -> None:
    model = swin(version, **options)
    sizes = [SIZE] if "strict_img_size" not in options else [SIZE, (56, 44), (12, 36)]
    names = list(model.state_dict())
    expected = [results(model, image(*size)) for size in sizes]
    replace_attention(model, "WindowAttention" if version == 1 else "WindowAttentionV2")
    assert set(model.state_dict()) == set(names)
    for size, theirs in zip(sizes, expected, strict=True):
        assert_same(results(model, image(*size)), theirs, tol=1e-10 if version == 1 else 1e-6)
    for report in replacements(model).values():
        assert (report.fresh, report.dropped) == ((), ())


@pytest.mark.parametrize("version", [1, 2])
def test_a_swin_block_hands_on_the_whole_map(version: int) -> None:
    model = swin(version, depths=(1, 2))
    replace_attention(model, "SoftmaxAttention", blocks="layers.1.blocks.1")
    block = model.layers[1].blocks[1]
    x = tensor(1, 3, 5, 16)

    def mixed(tokens: Tensor) -> Tensor:
        flat = tokens[0].flatten(0, 1)
        return softmax_attention(block, flat, flat).unflatten(0, (3, 5))[None]

    if version == 1:
        half = x + mixed(block.norm1(x))
        expected = half + block.mlp(block.norm2(half))
    else:
        half = x + block.norm1(mixed(x))
        expected = half + block.norm2(block.mlp(half))
    assert (block(x) - expected).abs().max() < 1e-10


def test_swin_v2_keeps_its_separate_biases_as_one() -> None:
    model = swin(2)
    old = model.layers[0].blocks[0].attn
    bias = torch.cat([old.q_bias, torch.zeros(8), old.v_bias])
    replace_attention(model, "EfficientAttention")
    assert torch.equal(model.layers[0].blocks[0].attn.qkv.bias, bias)
    report = replacements(model)["layers.0.blocks.0.attn"]
    assert report.kept == ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    assert set(report.dropped) == {"logit_scale", "cpb_mlp.0.weight", "cpb_mlp.0.bias", "cpb_mlp.2.weight"}


def test_weights_and_options_that_are_kept() -> None:
    model = vit(attn_drop_rate=0.2, proj_drop_rate=0.3)
    qkv = model.blocks[1].attn.qkv.weight
    replace_attention(model, "EfficientAttention")
    attn = model.blocks[1].attn
    assert isinstance(attn, EfficientAttention)
    assert attn.qkv.weight is qkv, "the parameter itself: an optimizer, a freeze, a device stay"
    assert (attn.num_heads, attn.proj_drop.p) == (3, 0.3)
    assert str(replacements(model)["blocks.1.attn"]) == (
        "Attention -> EfficientAttention: kept qkv.weight, qkv.bias, proj.weight, proj.bias"
    )
    replace_attention(model, {"type": "EfficientAttention", "num_heads": 2, "key_dim": 6})
    report = replacements(model)["blocks.0.attn"]
    assert model.blocks[0].attn.num_heads == 2
    assert (report.kept, report.fresh) == (("proj.weight", "proj.bias"), ("qkv.weight", "qkv.bias"))
    assert report.dropped == ("qkv.weight", "qkv.bias")
    softmax = vit(attn_drop_rate=0.2)
    replace_attention(softmax, "SoftmaxAttention")
    assert softmax.blocks[0].attn.attn_drop == 0.2


def test_nothing_in_common() -> None:
    model = vit()
    replace_attention(model, "NonLocal")
    report = replacements(model)["blocks.0.attn"]
    assert report.kept == ()
    assert report.dropped == ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias")
    assert model(image()).shape == (2, 4)


def test_another_window_moves_by_its_own_half() -> None:
    model = swin(2)
    replace_attention(model, {"type": "WindowAttentionV2", "window": (6, 2)})
    first, second = (model.layers[0].blocks[i].attn for i in range(2))
    assert (first.window, first.shift, second.shift) == ((6, 2), (0, 0), (3, 1))
    assert second.pretrained_window == (4, 4), "coordinates stay in the units they were learned in"


def test_replacing_again_comes_back() -> None:
    """Of what each step keeps, the first mechanism's output comes back; no trace is left of those between."""
    model, x = vit(), image()
    expected, names = model(x), list(model.state_dict())
    for name in ("EfficientAttention", "WindowAttention", "WindowAttention", "SoftmaxAttention"):
        replace_attention(model, name)
    assert (model(x) - expected).abs().max() < 1e-10
    assert set(model.state_dict()) == set(names)
    restored = swin()
    expected = restored(x)
    replace_attention(restored, "SoftmaxAttention")
    replace_attention(restored, {"type": "WindowAttention", "relative_position_bias": False})
    assert [m.shift for m in mixers(restored)] == [(0, 0), (2, 2), (0, 0), (2, 2), (0, 0)]


def test_a_list_goes_round_in_each_stage() -> None:
    model = swin(depths=(1, 3))
    replace_attention(model, ["EfficientAttention", "WindowAttention"])
    kinds = [type(block.attn).__name__ for stage in model.layers for block in stage.blocks]
    assert kinds == ["EfficientAttention", "EfficientAttention", "WindowAttention", "EfficientAttention"]


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (None, [0, 1, 2]),
        ("blocks.1", [1]),
        (["blocks.2", "blocks.0"], [0, 2]),
        ("blocks.[01]", [0, 1]),
        (["blocks.*", "blocks.1"], [0, 1, 2]),
    ],
)
def test_blocks_are_chosen(blocks: Any, expected: list[int]) -> None:
    model = vit()
    replace_attention(model, "EfficientAttention", blocks=blocks)
    assert [i for i in range(3) if isinstance(model.blocks[i].attn, EfficientAttention)] == expected
    assert model(image()).shape == (2, 4)


MODELS_TO_COPY = {
    "tokens": lambda: replace_attention(vit(), "EfficientAttention"),
    "map": lambda: replace_attention(vit(), {"type": "WindowAttention", "window": (2, 2)}),
    "swin": lambda: replace_attention(swin(), "EfficientAttention"),
    "swin 2": lambda: replace_attention(swin(2), "WindowAttentionV2"),
}


@pytest.mark.parametrize("kind", MODELS_TO_COPY)
def test_copies_pickles_and_state_dicts(kind: str) -> None:
    model, x = MODELS_TO_COPY[kind](), image()
    expected = results(model, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(results(other, x), expected)
        if kind == "map":
            grids = {id(m.grid) for m in other.modules() if isinstance(m, PatchMap)}
            hooks = {id(hook) for hook in other.patch_embed._forward_hooks.values()}
            assert grids == hooks, "the copy watches its own patch embedding"
            assert not grids & {id(m.grid) for m in model.modules() if isinstance(m, PatchMap)}
    fresh = MODELS_TO_COPY[kind]()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(model.state_dict())
    assert_same(results(fresh, x), expected)


def test_modes_dtypes_and_frozen_weights_stay() -> None:
    model = vit(attn_drop_rate=0.5).train().float()
    model.blocks[0].attn.requires_grad_(False)
    model.blocks[2].eval()
    replace_attention(model, {"type": "WindowAttention", "window": (2, 2)})
    assert [block.attn.training for block in model.blocks] == [True, True, False]
    own = dict(model.blocks[0].attn.named_parameters())
    assert {name for name, p in own.items() if p.requires_grad} == {"relative_position_bias_table"}
    assert not any(p.requires_grad for p in model.blocks[0].patch_map.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.eval()
    assert not any(m.training for m in model.modules())
    assert torch.equal(model(image().float()), model(image().float()))


def test_input_sizes_are_set_afterwards() -> None:
    model = replace_attention(swin(), "EfficientAttention")
    model.set_input_size((56, 40), window_size=5)
    assert model(image(56, 40)).shape == (2, 4)
    model = replace_attention(vit(), {"type": "WindowAttention", "window": (2, 2)})
    model.set_input_size((64, 32))
    assert model(image(64, 32)).shape == (2, 4)


@pytest.mark.slow
def test_compiled() -> None:
    model = replace_attention(vit(depth=2, dynamic_img_size=True), {"type": "WindowAttention", "window": (2, 2)})
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for size in (SIZE, (80, 48)):
            assert (compiled(image(*size)) - model(image(*size))).abs().max() < 1e-10


def test_through_configs() -> None:
    """In timm's feature extractors, by config; frozen stages stay frozen but for what is new."""
    options = {"embed_dim": 12, "depth": 3, "num_heads": 3, "img_size": SIZE}
    backbone = {"type": "TimmBackbone", "model_name": "vit_tiny_patch16_224", "timm_options": options}
    backbone |= {"out_indices": (1, 2)}
    torch.manual_seed(0)
    plain = MODELS.build(backbone)
    expected = plain.eval()(image().float())
    torch.manual_seed(0)
    model = MODELS.build({"type": "visionattn.ReplacedBackbone", "backbone": backbone, "attention": "SoftmaxAttention"})
    assert type(model) is type(plain)
    assert [type(m) for m in mixers(model)] == [SoftmaxAttention] * 3
    for ours, theirs in zip(model.eval()(image().float()), expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-5
    options = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_size": 4}
    backbone = {"type": "TimmBackbone", "model_name": "swin_tiny_patch4_window7_224", "timm_options": options}
    model = MODELS.build(
        {
            "type": "visionattn.ReplacedBackbone",
            "backbone": {**backbone, "frozen_stages": 1},
            "attention": "EfficientAttention",
            "blocks": "*layers_[23].*",
        }
    )
    assert [name for name, m in model.named_modules() if isinstance(m, EfficientAttention)] == [
        "body.layers_2.blocks.0.attn",
        "body.layers_3.blocks.0.attn",
    ]
    assert [tuple(m.shape[1:]) for m in model(torch.randn(1, 3, 72, 100))] == [
        (8, 18, 25),
        (16, 9, 13),
        (32, 5, 7),
        (64, 3, 4),
    ]


OURS: dict[str, tuple[dict[str, Any], str]] = {
    "swin": ({"type": "SwinTransformer", "embed_dim": 8, "depths": (2, 1), "window": (4, 4)}, "WindowAttention"),
    "swin 2": ({"type": "SwinTransformerV2", "embed_dim": 8, "depths": (2, 1), "window": (4, 4)}, "WindowAttentionV2"),
    "vit": ({"type": "VisionTransformer", "embed_dim": 12, "depth": 2, "num_heads": 3}, "SoftmaxAttention"),
    "vit without class token": (
        {"type": "VisionTransformer", "embed_dim": 12, "depth": 2, "num_heads": 3, "class_token": False},
        "SoftmaxAttention",
    ),
}


@pytest.mark.parametrize("kind", OURS)
def test_backbones_of_ours(kind: str) -> None:
    cfg, own = OURS[kind]
    cfg = {"num_heads": (2, 4), "out_indices": (0, 1)} | cfg
    model: Any = noisy(MODELS.build(cfg))
    expected = results(model, image())
    replace_attention(model, own)
    assert_same(results(model, image()), expected)
    assert {report.fresh + report.dropped for report in replacements(model).values()} == {()}
    replace_attention(model, "EfficientAttention")
    heads = {mixer.num_heads for mixer in mixers(model)}
    assert heads == ({2, 4} if "swin" in kind else {3})
    maps = model(image())
    assert [m.shape for m in maps] == [expected[f"answer {i}"].shape for i in range(len(maps))]


def test_windows_without_options_in_a_vit_of_ours() -> None:
    model: Any = MODELS.build({**OURS["vit without class token"][0]})
    replace_attention(model, {"type": "WindowAttention", "window": (2, 2)})
    assert model(image().float())[0].shape == (2, 12, 3, 5)


def parametrised(model: Any) -> Any:
    torch.nn.utils.parametrizations.weight_norm(model.blocks[1].attn.qkv)
    return model


def hooked(model: Any) -> Any:
    model.blocks[1].attn.proj.register_forward_hook(lambda *_: None)
    return model


def resnet() -> nn.Module:
    return timm.create_model("test_resnet", pretrained=False)


def parallel() -> nn.Module:
    return vit(depth=1, block_fn=ParallelScalingBlock)


def rotary() -> nn.Module:
    return timm.create_model("vit_base_patch16_rope_224", pretrained=False, embed_dim=16, depth=1, num_heads=2)


EFFICIENT = "EfficientAttention"
WINDOW = "WindowAttention"
ERRORS: dict[str, tuple[Callable[[], nn.Module], Any, Any, type[Exception], str]] = {
    "no attention": (resnet, EFFICIENT, None, ValueError, r"ResNet has no attention .*insert_attention"),
    "another block": (parallel, EFFICIENT, None, ValueError, r"VisionTransformer has no attention that"),
    "rotary": (rotary, EFFICIENT, None, ValueError, r"Eva holds .*Attention.* \(first at 'blocks\.0\.attn'\), in no"),
    "other names": (
        lambda: timm.create_model("cait_xxs24_224", pretrained=False, embed_dim=16, depth=1, num_heads=2),
        EFFICIENT,
        None,
        ValueError,
        r"Cait holds TalkingHeadAttn \(first at 'blocks\.0\.attn'\), .*in no block",
    ),
    "norm of q": (
        lambda: vit(qk_norm=True),
        EFFICIENT,
        None,
        ValueError,
        r"'blocks\.0\.attn' normalises queries \(qk_norm\).*choose other blocks",
    ),
    "norm of values": (lambda: vit(scale_attn_norm=True), EFFICIENT, None, ValueError, r"\(scale_norm\)"),
    "diff": (lambda: vit(attn_layer="diff"), EFFICIENT, None, ValueError, r"'blocks\.0\.attn' is DiffAttention"),
    "parametrised": (lambda: parametrised(vit()), EFFICIENT, None, ValueError, r"'blocks\.1\.attn\.qkv' is Param"),
    "hooked": (lambda: hooked(vit()), EFFICIENT, None, ValueError, r"'blocks\.1\.attn\.proj' \(Linear\) has hooks"),
    "too late": (lambda: nn.DataParallel(vit()), EFFICIENT, None, ValueError, r"replace attention before DataPara"),
    "unknown block": (vit, EFFICIENT, "blocks.7", KeyError, r"has no block 'blocks\.7'; did you mean blocks\.\d or"),
    "unknown part": (vit, EFFICIENT, ["block.1"], KeyError, r"did you mean blocks\.1"),
    "no block": (vit, EFFICIENT, "blocks.1.attn", ValueError, r"'blocks\.1\.attn' \(Attention\) is no block"),
    "no such pattern": (vit, EFFICIENT, "layers.*", KeyError, r"fits 'layers\.\*'; they are blocks\.0, blocks\.1"),
    "no paths": (vit, EFFICIENT, [], TypeError, r"blocks=\[\] must name paths .*None is all"),
    "numbers": (vit, EFFICIENT, [3], TypeError, r"blocks=\[3\] must name paths"),
    "heads": (
        vit,
        {"type": EFFICIENT, "num_heads": 5},
        None,
        ValueError,
        r"at 'blocks\.0' \(Block\): num_heads=5 does not divide dim=12; use 1, 2, 3, 4, 6 or 12",
    ),
    "unknown mechanism": (vit, "EficientAttention", None, KeyError, r"at 'blocks\.0'.*did you mean EfficientAttention"),
    "unknown option": (vit, {"type": EFFICIENT, "heads": 2}, None, TypeError, r"has no option 'heads'"),
    "no mechanism": (vit, [], None, ValueError, r"attention=\[\] names no mechanism"),
    "second of a list": (vit, [EFFICIENT, {"type": WINDOW, "window": 7}], None, TypeError, r"at 'blocks\.1'.*window=7"),
    "blocks alone": (lambda: vit().blocks, WINDOW, None, ValueError, r"no patch embedding above .*whole vision tr"),
    "ours with a class token": (
        lambda: MODELS.build(dict(OURS["vit"][0])),
        WINDOW,
        None,
        ValueError,
        r"at 'blocks\.0' \(TransformerBlock\): WindowAttention goes by where tokens lie.*class_token=False",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case: str) -> None:
    build, cfg, blocks, kind, message = ERRORS[case]
    model = build()
    before = [(name, id(m), type(m)) for name, m in model.named_modules()]
    state = [(name, id(p), p._version) for name, p in model.named_parameters()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    with pytest.raises(kind, match=message) as caught:
        replace_attention(model, cfg, blocks=blocks)
    assert "\n" not in str(caught.value)
    assert [(name, id(m), type(m)) for name, m in model.named_modules()] == before
    assert [(name, id(p), p._version) for name, p in model.named_parameters()] == state
    assert [len(m._forward_hooks) for m in model.modules()] == hooks


def test_errors_while_running() -> None:
    model = replace_attention(vit(), EFFICIENT)
    with pytest.raises(ValueError, match="EfficientAttention stands in this block and takes no attn_mask"):
        model.forward_features(image(), attn_mask=torch.ones(2, 1, 16, 16, dtype=torch.bool))
    dropping = replace_attention(vit(patch_drop_rate=0.5), {"type": WINDOW, "window": (2, 2)}).train()
    with pytest.raises(ValueError, match=r"needs the whole map: 1 \+ 3 x 5 tokens, got 8; train without patch dropout"):
        dropping(image())
    replace_attention(vit(patch_drop_rate=0.5), EFFICIENT).train()(image())


def test_a_mechanism_of_windows_keeps_its_name_in_the_report() -> None:
    model = replace_attention(vit(), {"type": WindowAttention, "window": (2, 2)})
    assert replacements(model)["blocks.0.attn"].fresh == ("relative_position_bias_table",)


def test_smyrf_stands_in_for_pretrained_attention() -> None:
    """The model's own answer where one cluster holds all tokens, the class token too; else nearer with more hashes."""
    model, x = vit(), image()
    wanted = model(x)

    def answer(cluster_size: int, rounds: int) -> Tensor:
        options = {"type": "SMYRF", "cluster_size": cluster_size, "rounds": rounds}
        replaced = replace_attention(copy.deepcopy(model), options)
        assert all(not made.fresh and not made.dropped for made in replacements(replaced).values())
        return replaced.eval()(x)

    torch.testing.assert_close(answer(16, 1), wanted, rtol=1e-10, atol=1e-10)
    once, often = ((answer(4, rounds) - wanted).abs().mean() for rounds in (1, 32))
    assert often < 0.7 * once
