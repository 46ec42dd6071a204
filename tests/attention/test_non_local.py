"""The four non-local forms against plain loops, mmcv's golden vectors, and what their shortcuts promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visionattn.attention.non_local import (
    NonLocal,
    NonLocalConcatenation,
    NonLocalDotProduct,
    NonLocalGaussian,
    NonLocalMixer,
)
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.ops.non_local import concatenation_attention, dot_product_attention, max_pool_mask, max_pool_tokens

DIM = 6
FORMS = (NonLocal, NonLocalGaussian, NonLocalDotProduct, NonLocalConcatenation)
MODES = {
    "embedded_gaussian": NonLocal,
    "gaussian": NonLocalGaussian,
    "dot_product": NonLocalDotProduct,
    "concatenation": NonLocalConcatenation,
}
GRIDS = ((7,), (3, 5), (2, 3, 3))
CONTEXT_GRIDS = {1: (5,), 2: (4, 3), 3: (3, 2, 2)}

every_form = pytest.mark.parametrize("form", FORMS)
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def pairwise(mixer: NonLocalMixer, parameters: Parameters, query: Tensor, keys: list[Tensor]) -> list[Tensor]:
    """What one query weighs each key with."""
    if isinstance(mixer, NonLocal | NonLocalGaussian):
        scale = mixer.scale if isinstance(mixer, NonLocal) else 1.0
        return softmax([scale * query @ key for key in keys])
    if isinstance(mixer, NonLocalDotProduct):
        return [query @ key / len(keys) for key in keys]
    w = parameters["concat_project.weight"][0]
    return [(w @ torch.cat([query, key])).clamp(min=0) / len(keys) for key in keys]


def projected_keys(
    mixer: NonLocalMixer, parameters: Parameters, source: Tensor, mask: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """(phi, g) of every key of one batch item, max-pooled over the real tokens of each window if sub-sampled."""
    gaussian = isinstance(mixer, NonLocalGaussian)
    grid = tuple(source.shape[:-1])
    window = ((2,), (2, 2), (1, 2, 2))[len(grid) - 1] if mixer.sub_sample else (1,) * len(grid)
    keys = []
    for corner in positions(tuple(extent // size for extent, size in zip(grid, window, strict=True))):
        phis, gs = [], []
        for offset in positions(window):
            place = tuple(c * size + o for c, size, o in zip(corner, window, offset, strict=True))
            if mask is None or mask[place]:
                phis.append(source[place] if gaussian else linear(parameters, "phi", source[place]))
                gs.append(linear(parameters, "g", source[place]))
        if phis:
            keys.append((torch.stack(phis).amax(0), torch.stack(gs).amax(0)))
    return keys


def naive_non_local(
    mixer: NonLocalMixer,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    rows = []
    for item in range(len(x)):
        keys = projected_keys(mixer, parameters, source[item], None if source_mask is None else source_mask[item])
        for place in positions(tuple(x.shape[1:-1])):
            token = x[item][place]
            query = token if isinstance(mixer, NonLocalGaussian) else linear(parameters, "theta", token)
            attended = torch.zeros(mixer.inner_dim, dtype=torch.float64)
            for weight, (_, g) in zip(pairwise(mixer, parameters, query, [phi for phi, _ in keys]), keys, strict=True):
                attended = attended + weight * g
            rows.append(linear(parameters, "out", attended))
    out = torch.stack(rows)
    if mixer.norm is not None:
        out = naive_batch_norm(parameters, out, None if mask is None else mask.flatten().tolist())
    return out.reshape(x.shape)


def naive_batch_norm(parameters: Parameters, rows: Tensor, real: list[bool] | None) -> Tensor:
    """Training step: mean and biased variance of the real rows; 0 for the others."""
    counted = [row for i, row in enumerate(rows) if real is None or real[i]]
    mean = sum(counted) / len(counted)
    variance = sum((row - mean) ** 2 for row in counted) / len(counted)
    normalised = [parameters["norm.weight"] * (row - mean) / (variance + 1e-5) ** 0.5 for row in rows]
    normalised = [row + parameters["norm.bias"] for row in normalised]
    return torch.stack([row if real is None or real[i] else 0 * row for i, row in enumerate(normalised)])


def check(mixer: NonLocalMixer, **inputs: Tensor | None) -> None:
    def naive(parameters: Parameters, **kwargs: Tensor | None) -> Tensor:
        return naive_non_local(mixer, parameters, **kwargs)

    assert_equals_naive(mixer, naive, inputs)


@every_form
@every_grid
def test_self_equals_loops(form: type[NonLocalMixer], grid: tuple[int, ...]) -> None:
    check(randomised(form(DIM)), x=tensor(2, *grid, DIM))


@every_form
@every_grid
def test_masked_self_equals_loops(form: type[NonLocalMixer], grid: tuple[int, ...]) -> None:
    check(randomised(form(DIM, reduction=3)), x=tensor(2, *grid, DIM), mask=random_mask(2, *grid))


@every_form
@every_grid
def test_masked_cross_equals_loops(form: type[NonLocalMixer], grid: tuple[int, ...]) -> None:
    other = CONTEXT_GRIDS[len(grid)]
    x, context = tensor(2, *grid, DIM), tensor(2, *other, DIM, seed=1)
    check(randomised(form(DIM)), x=x, context=context)
    check(randomised(form(DIM)), x=x, context=context, context_mask=random_mask(2, *other, seed=4))


@every_form
@every_grid
def test_sub_sampled_equals_loops(form: type[NonLocalMixer], grid: tuple[int, ...]) -> None:
    mixer = randomised(form(DIM, reduction=1, sub_sample=True))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM), mask=random_mask(2, *grid, seed=2))


@every_form
def test_sub_sampled_context_equals_loops(form: type[NonLocalMixer]) -> None:
    mixer = randomised(form(DIM, sub_sample=True))
    check(mixer, x=tensor(2, 3, 2, DIM), context=tensor(2, 4, 5, DIM, seed=1), context_mask=random_mask(2, 4, 5))


@every_form
def test_sub_sampling_refuses_a_class_token_which_it_would_pool_with_pixels(form: type[NonLocalMixer]) -> None:
    form(DIM).check_prefix_tokens()
    with pytest.raises(ValueError, match="goes by where tokens lie"):
        form(DIM, sub_sample=True).check_prefix_tokens()


@every_form
def test_norm_equals_loops(form: type[NonLocalMixer]) -> None:
    mixer = randomised(form(DIM, norm=True)).train()
    x, mask = tensor(2, 3, 3, DIM), random_mask(2, 3, 3)
    check(mixer, x=x)
    check(mixer, x=x, mask=mask)
    check(mixer, x=x, context=tensor(2, 2, 3, DIM, seed=1), mask=mask)


@every_form
def test_norm_of_a_padded_map_is_that_of_the_cropped_map(form: type[NonLocalMixer]) -> None:
    padded, cropped = (randomised(form(DIM, norm=True)) for _ in range(2))
    x, mask = tensor(2, 5, 7, DIM), torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[:, :4, :5] = True
    for training in (True, False):
        out = padded.train(training)(x, mask=mask)
        expected = cropped.train(training)(x[:, :4, :5])
        torch.testing.assert_close(out[:, :4, :5], expected, rtol=1e-10, atol=1e-10)
    assert padded.norm is not None
    assert padded.norm.running_mean.abs().max() > 0
    for key, buffer in cropped.named_buffers():
        torch.testing.assert_close(padded.get_buffer(key), buffer, rtol=1e-10, atol=1e-10)


def test_without_scale_is_the_papers_embedded_gaussian() -> None:
    check(randomised(NonLocal(DIM, use_scale=False)), x=tensor(2, 3, 5, DIM))
    assert NonLocal(DIM).scale == pytest.approx(1 / math.sqrt(DIM // 2))


@pytest.mark.parametrize("case", golden("attention", "nonlocal"))
def test_golden(case: Golden) -> None:
    options = dict(case.kwargs)
    form = MODES[options.pop("mode", "embedded_gaussian")]
    training, norm = options.pop("training", False), options.pop("norm", None)
    use_scale = options.pop("use_scale", True)
    options.pop("zeros_init", None)  # the recorded parameters replace either start
    assert norm in (None, "BN")
    own: dict[str, Any] = {"use_scale": use_scale} if form is NonLocal else {}
    mixer = form(case.args[0], norm=norm == "BN", **own, **options).double().train(training)

    inputs, params = case.leaves("in"), case.leaves("param")
    state = {our_name(name): our_shape(name, leaf) for name, leaf in params.items()}
    state |= {our_name(name): buffer.clone() for name, buffer in case.group("buffer").items()}
    x = inputs["x"].movedim(1, -1)
    out = functional_call(mixer, state, (x,), strict=True) + x
    assert_golden(case, out.movedim(-1, 1), inputs, params, tol=1e-10)


def our_name(name: str) -> str:
    """theta.conv.weight, g.0.conv.weight (mmcv with sub_sample), conv_out.bn.weight ... by our names."""
    part, key = name.split(".")[0], name.split(".")[-1]
    return f"norm.{key}" if ".bn." in name else f"{'out' if part == 'conv_out' else part}.{key}"


def our_shape(name: str, leaf: Tensor) -> Tensor:
    return leaf.flatten(1) if leaf.dim() > 1 else leaf


def test_embedded_gaussian_is_softmax_attention_with_one_head() -> None:
    softmax_attention = randomised(SoftmaxAttention(DIM, num_heads=1))
    theta, phi, g = (
        {"weight": weight, "bias": bias}
        for weight, bias in zip(softmax_attention.qkv.weight.chunk(3), softmax_attention.qkv.bias.chunk(3), strict=True)
    )
    parts = {"theta": theta, "phi": phi, "g": g, "out": dict(softmax_attention.proj.named_parameters())}
    mixer = NonLocal(DIM, reduction=1).double()
    mixer.load_state_dict({f"{part}.{key}": t for part, values in parts.items() for key, t in values.items()})
    x, context, mask = tensor(2, 3, 5, DIM), tensor(2, 4, 3, DIM, seed=1), random_mask(2, 4, 3)
    torch.testing.assert_close(mixer(x), softmax_attention(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        mixer(x, context, context_mask=mask), softmax_attention(x, context, context_mask=mask), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("n", "m", "linear_is_cheaper"), [(5, 7, False), (3, 200, False), (40, 50, True)])
def test_dot_product_takes_the_cheaper_association(n: int, m: int, linear_is_cheaper: bool) -> None:
    d, e = 12, 10
    q, k, v = tensor(2, n, d), tensor(2, m, d, seed=1), tensor(2, m, e, seed=2)
    mask = random_mask(2, m)
    with FlopCounterMode(display=False) as counter:
        out = dot_product_attention(q, k, v)
    linear_cost, quadratic_cost = 2 * 2 * (n + m) * d * e, 2 * 2 * n * m * (d + e)
    assert (linear_cost < quadratic_cost) == linear_is_cheaper
    assert counter.get_total_flops() == min(linear_cost, quadratic_cost)
    torch.testing.assert_close(out, q @ k.mT @ v / m, rtol=1e-12, atol=1e-12)
    real = mask.double()[:, None]
    expected = (q @ k.mT * real) @ v / real.sum(-1, keepdim=True)
    torch.testing.assert_close(dot_product_attention(q, k, v, mask), expected, rtol=1e-12, atol=1e-12)


def test_concatenation_keeps_nothing_larger_than_its_weights() -> None:
    mixer, x = randomised(NonLocalConcatenation(DIM)), tensor(2, 6, 7, DIM)
    sizes: list[int] = []

    def note(t: Tensor) -> Tensor:
        sizes.append(t.numel())
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        mixer(x)
    assert max(sizes) == 2 * 42 * 42


@pytest.mark.parametrize("form", [NonLocal, NonLocalGaussian])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gaussians_stay_on_the_fused_kernel(form: type[NonLocalMixer]) -> None:
    mixer, channels_first = randomised(form(DIM)), tensor(2, DIM, 5, 7).requires_grad_()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other kernel would raise
        out = mixer(channels_first.movedim(1, -1), mask=random_mask(2, 5, 7))
        sub_sampled = randomised(form(DIM, sub_sample=True))(channels_first.movedim(1, -1))
    (out.sum() + sub_sampled.sum()).backward()
    assert channels_first.grad is not None


def test_pooling_sees_real_tokens_only() -> None:
    tokens = torch.tensor([[[[1.0], [9.0], [-3.0]], [[2.0], [4.0], [-5.0]], [[7.0], [8.0], [6.0]]]])
    mask = torch.tensor([[[True, False, True], [True, False, False], [True, True, True]]])
    tokens = torch.cat([tokens, tokens[:, :, :1] - 10], dim=2)
    mask = torch.cat([mask, torch.zeros(1, 3, 1, dtype=torch.bool)], dim=2)
    assert max_pool_tokens(tokens).tolist() == [[[[9.0], [-3.0]]]]
    assert max_pool_tokens(tokens, mask).tolist() == [[[[2.0], [-3.0]]]]
    assert max_pool_mask(mask).tolist() == [[[True, True]]]
    hidden = mask & (torch.arange(4) < 2)
    assert max_pool_tokens(tokens, hidden).tolist() == [[[[2.0], [0.0]]]]
    assert max_pool_mask(hidden).tolist() == [[[True, False]]]


@every_form
@pytest.mark.parametrize("sub_sample", [False, True])
def test_masked_keys_change_nothing_and_none_at_all_stays_finite(form: type[NonLocalMixer], sub_sample: bool) -> None:
    mixer = randomised(form(DIM, sub_sample=sub_sample))
    x, context, mask = tensor(2, 3, 5, DIM), tensor(2, 4, 6, DIM, seed=1), random_mask(2, 4, 6)
    mask[1] = False
    other = torch.where(mask[..., None], context, 1e6)
    out = mixer(x, context, context_mask=mask)
    assert torch.equal(out, mixer(x, other, context_mask=mask))
    torch.testing.assert_close(out[1], mixer.out.bias.expand(3, 5, DIM))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_in_16_bits_accumulate_in_float32(dtype: torch.dtype) -> None:
    """With 40000 keys of one value the mean is that value; a 16-bit sum would stall or overflow long before."""
    m = 40000

    def check_sums(q: Tensor, k: Tensor, v: Tensor) -> None:
        assert dot_product_attention(q, k, v).tolist() == [[[2.0]] * 3]
        assert concatenation_attention(q[..., 0], k[..., 0], v).tolist() == [[[4.0]] * 3]
        wide_q, wide_k, wide_v = (t.expand(-1, -1, 4) for t in (q[:, :1], k, v))  # q (k^T v) would cost more
        assert dot_product_attention(wide_q, wide_k, wide_v).tolist() == [[[8.0] * 4]]

    q, k = (torch.ones(1, tokens, 1, dtype=dtype) for tokens in (3, m))
    check_sums(q, k, 2 * k)
    with torch.autocast("cpu", dtype):
        check_sums(q.float(), k.float(), 2 * k.float())


@every_form
def test_starts_as_published(form: type[NonLocalMixer]) -> None:
    torch.manual_seed(0)
    mixer = form(256)
    for name, parameter in mixer.named_parameters():
        if name in ("theta.weight", "phi.weight", "g.weight"):
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05)
        if name in ("theta.bias", "phi.bias", "g.bias"):
            assert parameter.abs().max() == 0


@every_form
def test_inner_width(form: type[NonLocalMixer]) -> None:
    assert form(DIM).inner_dim == 3
    assert form(DIM, reduction=4).inner_dim == 1
    assert form(2, reduction=16).inner_dim == 1


@every_form
def test_errors_say_the_way_out(form: type[NonLocalMixer]) -> None:
    with pytest.raises(ValueError, match="reduction=0 must be 1 or more"):
        form(DIM, reduction=0)
    with pytest.raises(ValueError, match=r"leaves no token of the grid \(5, 1\); use sub_sample=False"):
        form(DIM, sub_sample=True)(torch.zeros(2, 5, 1, DIM))
    with pytest.raises(ValueError, match="context_mask without a context"):
        form(DIM)(torch.zeros(2, 5, DIM), context_mask=torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="batch size of x: 2, got 3"):
        form(DIM)(torch.zeros(2, 5, DIM), torch.zeros(3, 5, DIM))
