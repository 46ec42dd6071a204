"""VisionTransformer against timm's, weights by name; ViTDet against timm's SAM encoder and against loops."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from naive import Parameters, assert_equals_naive, linear, randomised, softmax, tensor
from timm.layers import PatchEmbed
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from torch.nn import functional as F

import visionattn
from visionattn.attention.build import attention_class, list_attention
from visionattn.backbones.named import named_backbones
from visionattn.backbones.vit import VisionTransformer
from visionattn.ops.position_embedding import resized_position_embedding

TINY: dict[str, Any] = {"embed_dim": 24, "depth": 3, "num_heads": 3}
# timm's model -> what ours needs to be it, besides the sizes.
VARIANTS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch32_224": {"patch": (32, 32)},
    "vit_base_patch8_224": {"patch": (8, 8)},
    "vit_base_patch16_clip_224": {"norm_pre": True, "norm_eps": 1e-5},
    "vit_small_patch14_dinov2": {"patch": (14, 14), "image_size": (518, 518), "layer_scale": 1e-5},
    "vit_small_patch14_reg4_dinov2": {
        "patch": (14, 14), "image_size": (518, 518), "layer_scale": 1e-5, "register_tokens": 4,
        "prefix_position": False,
    },
    "deit3_small_patch16_224": {"layer_scale": 1e-6, "prefix_position": False},
    "deit_tiny_distilled_patch16_224": {"distillation_token": True},
    "vit_base_patch16_siglip_gap_224": {"class_token": False},
}  # fmt: skip
PUBLISHED = {
    "vit_tiny_patch16": "vit_tiny_patch16_224",
    "vit_small_patch16": "vit_small_patch16_224",
    "deit_small_patch16": "deit_small_patch16_224",
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def scrambled(model: nn.Module) -> nn.Module:
    """Every parameter a random number: neither zeros nor a small start hide an error."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return model.eval()


def theirs(name: str, **sizes: Any) -> Any:
    return scrambled(timm.create_model(name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True, **sizes))


def tiny(**options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(**{**TINY, "patch": (4, 4), "image_size": (16, 24), "class_token": False, **options})


def load(model: nn.Module, peer: nn.Module) -> None:
    """The peer's weights by name, all of them; what has no counterpart in a backbone is its classifier's."""
    state = {n: w for n, w in peer.state_dict().items() if not n.startswith(("head", "fc_norm", "attn_pool", "neck"))}
    model.load_state_dict(state)


def assert_same(
    model: nn.Module, peer: nn.Module, maps: list[Tensor], expected: list[Tensor], tol: float = 1e-5
) -> None:
    """Maps and every gradient of a random scalar of them agree, relative to the largest number of each."""
    assert [m.shape for m in maps] == [m.shape for m in expected]
    weights = [torch.randn(m.shape, generator=torch.Generator().manual_seed(7)) for m in maps]
    for outputs in (maps, expected):
        sum((m * w).sum() for m, w in zip(outputs, weights, strict=True)).backward()
    of_peer = dict(peer.named_parameters())
    pairs = {f"map {i}": pair for i, pair in enumerate(zip(maps, expected, strict=True))}
    pairs |= {f"gradient of {n}": (p.grad, of_peer[n].grad) for n, p in model.named_parameters()}
    errors = {n: _error(a.detach(), b.detach().view_as(a)) for n, (a, b) in pairs.items()}
    assert all(error <= tol for error in errors.values()), {n: e for n, e in errors.items() if not e <= tol}


def _error(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("size", [(224, 224), (67, 150)])
@every_variant
def test_is_timms(name: str, size: tuple[int, int]) -> None:
    """Also where the image is no whole patches and the positions are interpolated."""
    if name.startswith("vit_base_patch8") and size == (224, 224):
        size = (224, 32)  # 784 tokens cost more than they show
    peer = theirs(name, **TINY)
    model = VisionTransformer(**TINY, out_indices=(0, 2), **VARIANTS[name]).eval()
    load(model, peer)
    x = torch.randn(2, 3, *size)
    expected = peer.forward_intermediates(x, indices=[0, 2], norm=True, intermediates_only=True)
    assert_same(model, peer, model(x), expected)


def test_without_output_norms_is_timms_too() -> None:
    peer = theirs("vit_tiny_patch16_224", **TINY)
    model = VisionTransformer(**TINY, out_indices=(0, 1, 2), out_norms=False).eval()
    state = {n: w for n, w in peer.state_dict().items() if not n.startswith("norm.")}
    model.load_state_dict(state)
    x = torch.randn(1, 3, 64, 80)
    assert_same(model, peer, model(x), peer.forward_intermediates(x, intermediates_only=True))


@pytest.mark.parametrize(
    "name", [n if n == "vit_tiny_patch16" else pytest.param(n, marks=pytest.mark.slow) for n in PUBLISHED]
)
def test_published_model_is_timms(name: str) -> None:
    peer = theirs(PUBLISHED[name])
    model = visionattn.create_backbone(name).eval()
    load(model, peer)
    x = torch.randn(1, 3, 224, 224)
    (own,) = model(x)
    expected = peer.forward_features(x)[:, 1:].transpose(1, 2).reshape(own.shape)
    assert_same(model, peer, [own], [expected])


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_base_patch32_clip_224"]
)
def test_a_timm_checkpoint_of_another_image_size(name: str, tmp_path: Path) -> None:
    """timm's own interpolation of the positions is the reference; its classifier is passed over."""
    peer = scrambled(timm.create_model(name, **TINY, num_classes=5))
    safetensors.torch.save_file(peer.state_dict(), tmp_path / "timm.safetensors")
    options = {"vit_base_patch32_clip_224": {"patch": (32, 32), "norm_pre": True, "norm_eps": 1e-5}}
    special = options.get(name, {"distillation_token": "distilled" in name})
    model = VisionTransformer(**TINY, **special, image_size=(64, 96), checkpoint=tmp_path / "timm.safetensors").eval()
    peer.set_input_size((64, 96))
    x = torch.randn(1, 3, 64, 96)
    (expected,) = peer.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(model(x)[0], expected, rtol=0, atol=1e-5)


def test_a_timm_checkpoint_becomes_a_vitdet_whose_class_token_is_cut(tmp_path: Path) -> None:
    peer = scrambled(timm.create_model("vit_tiny_patch16_224", **TINY))
    safetensors.torch.save_file(peer.state_dict(), tmp_path / "timm.safetensors")
    windows = {"type": "WindowAttention", "window": (3, 3), "relative_position_bias": False}
    options = {**TINY, "class_token": False, "out_norms": False, "attention": [windows, "SoftmaxAttention"]}
    model = VisionTransformer(**options, checkpoint=tmp_path / "timm.safetensors")
    assert torch.equal(model.pos_embed, peer.pos_embed[:, 1:])
    own = dict(peer.named_parameters())
    assert all(torch.equal(p, own[n]) for n, p in model.named_parameters() if n != "pos_embed")
    with pytest.raises(ValueError, match="belong to another model"):
        VisionTransformer(**{**options, "depth": 4}, checkpoint=tmp_path / "timm.safetensors")


def sam(**options: Any) -> Any:
    """timm's encoder of Segment Anything: ViTDet's, blocks 1 and 3 global, windows of 3 x 3."""
    return VisionTransformerSAM(
        embed_dim=24, depth=4, num_heads=3, window_size=3, global_attn_indexes=(1, 3), use_rel_pos=False,
        img_size=(28, 20), patch_size=4, neck_chans=0, **options,
    )  # fmt: skip


def vitdet(mask_padding: bool, **options: Any) -> VisionTransformer:
    windows = {
        "type": "WindowAttention", "window": (3, 3), "relative_position_bias": False, "mask_padding": mask_padding
    }  # fmt: skip
    options = {"depth": 4, "image_size": (28, 20), "out_norms": False, **options}
    return tiny(attention=[windows, "SoftmaxAttention"], **options)


@pytest.mark.parametrize("size", [(28, 20), (36, 25)])
def test_vitdet_is_timms_sam_encoder(size: tuple[int, int]) -> None:
    """7 x 5 or 9 x 7 patches: windows at the border are padded, and the padding takes part, as published."""
    peer = scrambled(sam(embed_layer=_padding_patches, norm_layer=_norm))
    model = vitdet(mask_padding=False, out_indices=(0, 2, 3)).eval()
    state = {n: w for n, w in peer.state_dict().items() if not n.startswith(("head", "neck"))}
    model.load_state_dict({**state, "pos_embed": state["pos_embed"].flatten(1, 2)})
    x = torch.randn(2, 3, *size)
    expected = peer.forward_intermediates(x, indices=[0, 2, 3], intermediates_only=True)
    assert_same(model, peer, model(x), expected)


def _norm(dim: int, **where: Any) -> nn.LayerNorm:
    return nn.LayerNorm(dim, eps=1e-6, **where)


def _padding_patches(**options: Any) -> PatchEmbed:
    return PatchEmbed(**options, output_fmt="NHWC", strict_img_size=False, dynamic_img_pad=True)


def test_vitdet_equals_loops() -> None:
    """Padding left out of every window, all in float64: image, patches, windows and heads one by one."""
    model = vitdet(mask_padding=True, in_channels=2, embed_dim=4, num_heads=2, depth=2, image_size=(16, 20))
    image = tensor(1, 2, 15, 18)  # padded to 4 x 5 patches

    class LastMap(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: Tensor) -> Tensor:
            return self.model(image)[-1]

    assert_equals_naive(randomised(LastMap()), naive_vitdet, {"image": image})


def naive_vitdet(parameters: Parameters, image: Tensor) -> Tensor:
    """One image of 4 x 5 patches through a block of 3 x 3 windows and a global one."""
    own = {name.removeprefix("model."): p for name, p in parameters.items()}
    padded = torch.zeros(2, 16, 20, dtype=image.dtype)
    padded[:, :15, :18] = image[0]
    places = [(row, column) for row in range(4) for column in range(5)]
    tokens = {}
    for row, column in places:
        pixels = padded[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        kernel, bias = own["patch_embed.proj.weight"], own["patch_embed.proj.bias"]
        tokens[row, column] = (kernel * pixels).sum((1, 2, 3)) + bias + own["pos_embed"][0, 5 * row + column]
    for block, window in ((0, 3), (1, 5)):
        p = {name.removeprefix(f"blocks.{block}."): w for name, w in own.items() if name.startswith(f"blocks.{block}.")}
        qkv = {place: linear(p, "attn.qkv", norm(p, "norm1", tokens[place])) for place in places}
        for place in places:
            seen = [o for o in places if all(a // window == b // window for a, b in zip(o, place, strict=True))]
            heads = []
            for head in (0, 1):
                own_part = [slice(4 * part + 2 * head, 4 * part + 2 * head + 2) for part in range(3)]
                q = qkv[place][own_part[0]]
                scores = softmax([q @ qkv[other][own_part[1]] / math.sqrt(2) for other in seen])
                heads.append(sum(s * qkv[other][own_part[2]] for s, other in zip(scores, seen, strict=True)))
            x = tokens[place] + linear(p, "attn.proj", torch.cat(heads))
            tokens[place] = x + linear(p, "mlp.fc2", F.gelu(linear(p, "mlp.fc1", norm(p, "norm2", x))))
    return torch.stack([tokens[place] for place in places], dim=-1).view(1, 4, 4, 5)


def norm(parameters: Parameters, name: str, token: Tensor) -> Tensor:
    centred = token - token.mean()
    scaled = centred / (centred.square().mean() + 1e-6).sqrt()
    return scaled * parameters[f"{name}.weight"] + parameters[f"{name}.bias"]


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (33, 31), (16, 24)])
def test_any_size(size: tuple[int, int], class_token: bool) -> None:
    model = tiny(class_token=class_token, out_indices=(0, 2))
    maps = model(torch.randn(2, 3, *size))
    assert isinstance(maps, list)
    assert model.out_channels == (24, 24)
    assert model.strides == (4, 4)
    for feature in maps:
        assert feature.shape == (2, 24, -(-size[0] // 4), -(-size[1] // 4))
        assert feature.isfinite().all()


def test_an_image_of_other_channels_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected an image \[B, 3, H, W\], got \[2, 4, 16, 24\]"):
        tiny()(torch.randn(2, 4, 16, 24))


@pytest.mark.parametrize("name", list_attention())
def test_any_mechanism_mixes_the_map(name: str) -> None:
    model = tiny(attention=name).train()
    (feature,) = model(torch.randn(2, 3, 22, 33))
    feature.square().sum().backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    blocks = [block.attn for block in model.blocks]
    assert all(type(mixer) is attention_class(name) for mixer in blocks)
    assert all(getattr(mixer, "num_heads", 3) == 3 for mixer in blocks)


def test_the_list_goes_round() -> None:
    names = ["WindowAttention", {"type": "EfficientAttention", "num_heads": 2, "qkv_bias": False}]
    model = tiny(attention=names, depth=5)
    kinds = [type(block.attn).__name__ for block in model.blocks]
    assert kinds == ["WindowAttention", "EfficientAttention"] * 2 + ["WindowAttention"]
    assert [block.attn.num_heads for block in model.blocks] == [3, 2, 3, 2, 3]
    assert model.blocks[1].attn.qkv.bias is None
    assert model.blocks[0].attn.grid == (4, 6)


@pytest.mark.parametrize("tokens", [{"class_token": True}, {"distillation_token": True}, {"register_tokens": 2}])
def test_windows_refuse_tokens_that_lie_nowhere(tokens: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"WindowAttention goes by where tokens lie.*class_token=False"):
        tiny(attention=["SoftmaxAttention", "WindowAttention"], **tokens)
    with pytest.raises(ValueError, match="NonLocal goes by where tokens lie"):
        tiny(attention={"type": "NonLocal", "sub_sample": True}, **tokens)
    assert tiny(attention="EfficientAttention", **tokens)(torch.randn(1, 3, 9, 9))[0].shape == (1, 24, 3, 3)


def test_a_class_token_takes_part() -> None:
    model = scrambled(tiny(class_token=True))
    x = torch.randn(1, 3, 16, 24)
    before = model(x)[0]
    with torch.no_grad():
        model.cls_token.normal_()
    assert not torch.allclose(model(x)[0], before)


def test_other_blocks_for_one_call() -> None:
    model = scrambled(tiny(out_indices=(0, 1, 2)))
    x = torch.randn(1, 3, 16, 24)
    all_maps = model(x)
    assert torch.equal(model(x, out_indices=(1,))[0], all_maps[1])
    assert [torch.equal(a, b) for a, b in zip(model(x, (0, 2)), all_maps[::2], strict=True)] == [True, True]


def test_blocks_behind_the_last_output_do_not_run_and_want_no_gradient() -> None:
    model = tiny(out_indices=(0,))
    assert len(model.feature_info) == 3
    assert model.feature_info[1] == {"num_chs": 24, "reduction": 4, "module": "blocks.1"}
    called = []
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: called.append(index))
    model(torch.randn(1, 3, 16, 16))[0].sum().backward()
    assert called == [0]
    without = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is None}
    assert without == {"1", "2"}
    assert all(not p.requires_grad for p in model.blocks[1:].parameters())


def test_drop_path_rises_as_timms() -> None:
    peer = timm.create_model("vit_tiny_patch16_224", **{**TINY, "depth": 5}, drop_path_rate=0.3)
    model = tiny(depth=5, drop_path_rate=0.3)
    expected = [getattr(block.drop_path1, "drop_prob", 0.0) for block in peer.blocks]
    for part in ("drop_path1", "drop_path2"):
        assert [getattr(block, part).p for block in model.blocks] == pytest.approx(expected)
    model.train()
    x = torch.randn(2, 3, 16, 24)
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_blocks_are_not_trained_and_stay_in_eval_mode(frozen: int) -> None:
    model = tiny(frozen_stages=frozen, class_token=True, drop_path_rate=0.5).train()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in trained if name.startswith("blocks")} == {
        str(i) for i in range(frozen + 1, 3)
    }
    assert ("norm.weight" in trained) == (frozen < 2)
    assert not trained & {"pos_embed", "cls_token", "patch_embed.proj.weight"}
    assert [block.training for block in model.blocks] == [index > frozen for index in range(3)]
    model.eval().train()
    assert [block.training for block in model.blocks] == [index > frozen for index in range(3)]


@pytest.mark.parametrize("class_token", [True, False])
def test_grad_checkpointing_changes_no_gradient_and_keeps_less(class_token: bool) -> None:
    x = torch.randn(2, 3, 16, 24)

    def run(model: VisionTransformer) -> tuple[dict[str, Tensor], int]:
        kept = 0

        def count(saved: Tensor) -> Tensor:
            nonlocal kept
            kept += saved.numel()
            return saved

        with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
            loss = model(x)[0].square().sum()
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters()}, kept

    plain = scrambled(tiny(class_token=class_token)).train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    expected, all_kept = run(plain)
    grads, kept = run(saving)
    torch.testing.assert_close(grads, expected)
    assert kept < all_kept / 3
    assert tiny(grad_checkpointing=True).grad_checkpointing


@every_variant
def test_what_timm_does_not_decay(name: str) -> None:
    model = VisionTransformer(**TINY, **VARIANTS[name])
    names = {name for name, _ in model.named_parameters()}
    assert model.no_weight_decay() == theirs(name, **TINY).no_weight_decay() & names


def test_starts_as_published() -> None:
    model = tiny(embed_dim=48, attention=["SoftmaxAttention", "NonLocal"], class_token=True)
    attn, mlp = model.blocks[0].attn, model.blocks[1].mlp
    for weight in (attn.qkv.weight, attn.proj.weight, mlp.fc1.weight, mlp.fc2.weight, model.pos_embed):
        assert weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.blocks[0].mlp.fc1.bias.abs().max() == 0
    assert model.blocks[1].attn.theta.weight.std() < 0.015  # a mechanism's own start stays
    assert model.cls_token.abs().max() < 1e-5


def test_named_vitdets_have_four_global_blocks_and_plain_vits_weights() -> None:
    named = {name: cfg for name, cfg in named_backbones().items() if cfg["type"] == "VisionTransformer"}
    assert {"vit_large_patch16", "deit_base_patch16", "vitdet_large_patch16"} <= set(named)
    with torch.device("meta"):
        models = {name: visionattn.create_backbone(name) for name in named}
    for name, model in models.items():
        total = sum(p.numel() for p in model.parameters())
        kinds = [type(block.attn).__name__ for block in model.blocks]
        if not name.startswith("vitdet"):
            assert set(kinds) == {"SoftmaxAttention"}
            continue
        depth = len(kinds)
        assert [i for i, kind in enumerate(kinds) if kind == "SoftmaxAttention"] == [
            depth // 4 * i - 1 for i in (1, 2, 3, 4)
        ]
        plain = models[name.replace("vitdet", "vit")]
        dim = model.out_channels[0]
        assert total == sum(p.numel() for p in plain.parameters()) - 2 * dim - 2 * dim  # class token, its row, the norm
    assert sum(p.numel() for p in models["vit_base_patch16"].parameters()) == 85_798_656


def test_positions_at_another_size_are_timms_in_low_precision_too() -> None:
    from timm.layers import resample_abs_pos_embed

    table = torch.randn(1, 2 + 4 * 6, 8)
    for dtype in (torch.float32, torch.bfloat16):
        expected = resample_abs_pos_embed(table.to(dtype), [5, 3], [4, 6], num_prefix_tokens=2)
        assert torch.equal(resized_position_embedding(table.to(dtype), (4, 6), (5, 3)), expected)
    double = resized_position_embedding(table.double(), (4, 6), (5, 3))
    assert double.dtype == torch.float64
    assert resized_position_embedding(table, (4, 6), (4, 6)) is table
    with pytest.raises(ValueError, match=r"26 rows is none of a grid \(5, 6\)"):
        resized_position_embedding(table, (5, 6), (4, 6))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 224}, TypeError, r"image_size=224 must hold height and width: \(224, 224\)"),
        ({"image_size": (224, 226)}, ValueError, r"must be whole patches of \(4, 4\), such as \(56, 56\)"),
        ({"patch": 16}, TypeError, r"patch=16 must hold height and width: \(16, 16\)"),
        ({"depth": 0}, ValueError, "depth=0"),
        ({"out_indices": (2, 0)}, ValueError, r"out_indices=\(2, 0\) must rise.*the blocks 0 to 2"),
        ({"out_indices": (3,)}, ValueError, r"out_indices=\(3,\)"),
        ({"frozen_stages": 3}, ValueError, "frozen_stages=3: this VisionTransformer has the blocks 0 to 2"),
        ({"num_heads": 5}, ValueError, "num_heads=5 does not divide dim=24"),
        ({"register_tokens": -1}, ValueError, "register_tokens=-1"),
        ({"attention": []}, ValueError, "names no mechanism"),
        ({"attention": "SoftmacsAttention"}, KeyError, "did you mean SoftmaxAttention"),
        ({"attention": {"type": "SoftmaxAttention", "heads": 2}}, TypeError, "has no option 'heads'"),
    ],
)
def test_errors_say_what_came_and_what_will_do(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny(**options)
