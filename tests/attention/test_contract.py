"""What every registered mechanism promises, tested over the registry: a new file in attention/ is covered by itself."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visionattn.attention.aft import GatedGathering
from visionattn.attention.base import Claims, ContextMixer, QKVAttention, SameGridMixer, TokenMixer
from visionattn.attention.build import attention_class, build_attention, list_attention
from visionattn.attention.channel import ChannelAttention
from visionattn.attention.fewer_projections import RawValueAttention
from visionattn.attention.gmlp import GMLP
from visionattn.attention.lambda_layer import LambdaMixer
from visionattn.attention.long_short import LongShortAttention
from visionattn.attention.lsh import LSHAttention
from visionattn.attention.mega import GatedAveraging
from visionattn.attention.non_local import NonLocalMixer
from visionattn.attention.stacked import StackedAttention

DIM = 16
NAMES = list_attention()
CONTEXT_NAMES = [name for name in NAMES if issubclass(attention_class(name), ContextMixer)]
ODD_GRIDS = {1: (11,), 2: (5, 7), 3: (3, 4, 5)}

SMALL: dict[str, dict[str, object]] = {
    "LSHAttention": {"bucket_size": 4},
    "LambdaLayer": {"kernel_size": 5},
    "LinformerPool": {"pool": 2},
    "LocalGlobalLinearAttention": {"window": (2, 2)},
    "LongShortAttention": {"window": (2, 3), "rank": 3},
    "NeighborhoodAttention": {"kernel": 3},
    "SMYRF": {"cluster_size": 4},
}
"""Options without which the odd grids would be smaller than what a mechanism is made for."""

HASHED = ("LSHAttention", "SMYRF")
"""Those that sort tokens by a hash: rounded numbers put a few of them elsewhere."""

every_mechanism = pytest.mark.parametrize("name", NAMES)
every_context_mechanism = pytest.mark.parametrize("name", CONTEXT_NAMES)


def test_the_registry_was_found() -> None:
    assert {"EfficientAttention", "NonLocal", "SoftmaxAttention", "WindowAttention"} <= set(NAMES)
    assert len(CONTEXT_NAMES) >= 7


def claims(name: str) -> Claims:
    return attention_class(name).claims


def grids(name: str) -> list[tuple[int, ...]]:
    return [ODD_GRIDS[n] for n in attention_class(name).grid_dims]


def main_grid(name: str) -> tuple[int, ...]:
    """(5, 7) for every mechanism that takes maps."""
    dims = attention_class(name).grid_dims
    return ODD_GRIDS[2 if 2 in dims else dims[0]]


def of_axes(name: str, axes: int) -> dict[str, tuple[int, ...]]:
    """Windows and shifts for a grid that has not the two axes of their defaults."""
    small = {"window": (4, 3, 2)[:axes], "shift": (2, 1, 0)[:axes]}
    parameters = inspect.signature(attention_class(name).__init__).parameters
    return {option: small[option] for option in parameters if isinstance(parameters[option].default, tuple)}


def make(name: str, grid: tuple[int, ...], seed: int = 0, **options: object) -> TokenMixer:
    """The mechanism in float64, every parameter a seeded random number: zero-initialised layers hide no error."""
    torch.manual_seed(seed)
    small = {**SMALL.get(name, {}), **options, **(of_axes(name, len(grid)) if len(grid) != 2 else {})}
    mixer = build_attention({"type": name, **small}, DIM, grid).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
    return mixer


def random_map(grid: tuple[int, ...], batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, *grid, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def padding_mask(grid: tuple[int, ...]) -> Tensor:
    """Batch of two: all real; the last row of the first axis and the last two columns of the last axis padded."""
    mask = torch.ones(2, *grid, dtype=torch.bool)
    mask[1, -1] = False
    mask[1, ..., -2:] = False
    return mask


@every_mechanism
def test_output_has_the_shape_of_the_map(name: str) -> None:
    for grid in grids(name):
        x = random_map(grid)
        assert make(name, grid)(x).shape == x.shape
        assert make(name, grid)(random_map(grid, batch=1)).shape == (1, *grid, DIM)


@every_mechanism
def test_an_empty_batch_gets_an_empty_answer(name: str) -> None:
    """As of convolutions: a head of detections meets images without any."""
    for grid in grids(name):
        mixer, x = make(name, grid).train(), random_map(grid, batch=0).requires_grad_()
        out = mixer(x)
        assert out.shape == x.shape
        out.sum().backward()
        assert x.grad is not None
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in mixer.parameters())
        mask = torch.ones(x.shape[:-1], dtype=torch.bool)
        with torch.no_grad():
            assert mixer.eval()(x).shape == x.shape
            assert mixer(x, mask=mask).shape == x.shape


@every_mechanism
def test_takes_another_resolution_than_it_was_made_for(name: str) -> None:
    for grid in grids(name):
        other = tuple(2 * n + 1 for n in grid)
        out = make(name, grid)(random_map(other))
        assert out.shape == (2, *other, DIM)
        assert out.isfinite().all()
        single = (1,) * len(grid)
        assert make(name, grid)(random_map(single)).isfinite().all()


@every_mechanism
def test_every_parameter_and_the_input_get_a_gradient(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid).train(), random_map(grid).requires_grad_()
    mixer(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.flatten(1, -2).abs().amax(-1) > 0).all(), "a token got no gradient"
    for key, parameter in mixer.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@every_mechanism
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    grid = {1: (4,), 2: (2, 3), 3: (2, 1, 3)}[len(main_grid(name))]
    mixer, x = make(name, grid), random_map(grid).requires_grad_()
    keys = [key for key, _ in mixer.named_parameters()]
    leaves = [parameter.detach().requires_grad_() for parameter in mixer.parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(mixer, dict(zip(keys, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *leaves), fast_mode=True)


@every_mechanism
def test_batch_items_do_not_mix(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid), random_map(grid)
    changed = torch.cat([x[:1], 3 * x[1:] + 1])
    torch.testing.assert_close(mixer(changed)[0], mixer(x)[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(mixer(changed)[1], mixer(x)[1])
    torch.testing.assert_close(mixer(x[1:])[0], mixer(x)[1], rtol=1e-12, atol=1e-12)


@every_mechanism
def test_padded_positions_change_nothing(name: str) -> None:
    for grid in grids(name):
        mixer, x, mask = make(name, grid), random_map(grid), padding_mask(grid)
        other = torch.where(mask[..., None], x, 100 * random_map(grid, seed=2))
        out, out_other = mixer(x, mask=mask), mixer(other, mask=mask)
        torch.testing.assert_close(out[mask], out_other[mask], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out[0], mixer(x)[0], rtol=1e-10, atol=1e-10)
        assert not torch.allclose(mixer(other)[1][mask[1]], mixer(x)[1][mask[1]]), "the test's padding has no effect"


@every_mechanism
def test_padded_map_equals_the_cropped_map(name: str) -> None:
    grid = main_grid(name)
    if not claims(name).permutation_equivariant:
        return  # a position-bound mechanism may cut a padded map into other windows; its own tests say how
    mixer, x, mask = make(name, grid), random_map(grid), padding_mask(grid)
    crop = x[1:, :-1][..., :-2, :]
    out = mixer(x, mask=mask)[1:, :-1][..., :-2, :]
    torch.testing.assert_close(out, mixer(crop), rtol=1e-10, atol=1e-10)


@every_mechanism
def test_a_map_without_any_real_token_stays_finite(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid).train(), random_map(grid).requires_grad_()
    mask = torch.ones(2, *grid, dtype=torch.bool)
    mask[1] = False
    out = mixer(x, mask=mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@every_mechanism
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_finite_at_a_thousand_times_the_activations(name: str, dtype: torch.dtype) -> None:
    grid = main_grid(name)
    mixer = make(name, grid).to(dtype)
    x = (1000 * random_map(grid)).to(dtype).requires_grad_()
    out = mixer(x)
    out.float().sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@every_mechanism
def test_autocast_stays_near_float32(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid).float(), random_map(grid).float().requires_grad_()
    expected = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = mixer(x)
    out.float().sum().backward()
    assert (out.float() - expected).norm() <= (0.15 if name in HASHED else 0.03) * expected.norm()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@every_mechanism
def test_state_dict_and_deepcopy_round_trip(name: str) -> None:
    grid = main_grid(name)
    mixer, other, x = make(name, grid), make(name, grid, seed=3), random_map(grid)
    assert not torch.equal(mixer(x), other(x))
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(mixer(x), other(x))
    assert torch.equal(copy.deepcopy(mixer)(x), mixer(x))


@every_mechanism
def test_eval_is_deterministic_and_leaves_the_input_alone(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid), random_map(grid)
    before = x.clone()
    assert torch.equal(mixer(x), mixer(x))
    assert torch.equal(x, before)


@every_mechanism
def test_memory_layout_of_the_map_does_not_matter(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid), random_map(grid)
    channels_first = x.movedim(-1, 1).contiguous().movedim(1, -1)
    assert not channels_first.is_contiguous()
    torch.testing.assert_close(mixer(channels_first), mixer(x), rtol=1e-12, atol=1e-12)


@every_context_mechanism
def test_context_may_be_another_map(name: str) -> None:
    same_grid = issubclass(attention_class(name), SameGridMixer)
    for grid in grids(name):
        mixer, x = make(name, grid), random_map(grid)
        torch.testing.assert_close(mixer(x, x), mixer(x), rtol=1e-12, atol=1e-12)
        context = random_map(grid if same_grid else tuple(n + 1 for n in grid), seed=5).requires_grad_()
        out = mixer(x, context)
        assert not torch.allclose(out, mixer(x))
        assert out.shape == x.shape
        out.square().sum().backward()
        assert context.grad is not None
        assert context.grad.abs().max() > 0


@every_context_mechanism
def test_a_context_on_another_grid_is_taken_or_named(name: str) -> None:
    for grid in grids(name):
        mixer, x = make(name, grid), random_map(grid)
        others = [tuple(n + 1 for n in grid), tuple(reversed(grid)), (*grid[:-1], 1)]
        for other in (other for other in others if other != grid):
            if issubclass(attention_class(name), SameGridMixer):
                both = rf"{name} .*x has {re.escape(str(grid))}, the context {re.escape(str(other))}; resize"
                with pytest.raises(ValueError, match=both):
                    mixer(x, random_map(other))
            else:
                assert mixer(x, random_map(other)).isfinite().all()


@every_context_mechanism
def test_queries_without_a_place_are_refused_where_theirs_counts(name: str) -> None:
    """Learned queries lie nowhere on the map; keys may have places."""
    grid = main_grid(name)
    mixer, x, context = make(name, grid), random_map(grid), random_map(grid, seed=5)
    order = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(4))

    def permuted(t: Tensor) -> Tensor:
        return t.flatten(1, -2)[:, order].reshape(t.shape)

    if torch.allclose(mixer(permuted(x), context), permuted(mixer(x, context)), rtol=1e-10, atol=1e-10):
        mixer.check_loose_queries()
    else:
        with pytest.raises(ValueError, match=f"{name} goes by where queries lie on the map.*such as SoftmaxAttention"):
            mixer.check_loose_queries()


@every_context_mechanism
def test_padded_context_changes_nothing(name: str) -> None:
    grid = main_grid(name)
    mixer, x, context, mask = make(name, grid), random_map(grid), random_map(grid, seed=5), padding_mask(grid)
    other = torch.where(mask[..., None], context, 100 * random_map(grid, seed=2))
    out = mixer(x, context, context_mask=mask)
    torch.testing.assert_close(out, mixer(x, other, context_mask=mask), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(mixer(x, other), mixer(x, context))


@every_context_mechanism
def test_context_errors(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid), random_map(grid)
    with pytest.raises(ValueError, match="context_mask without a context"):
        mixer(x, context_mask=padding_mask(grid))
    with pytest.raises(ValueError, match="batch size of x: 2, got 1"):
        mixer(x, x[:1])
    with pytest.raises(ValueError, match=r"expects context of shape .*, got \[2, .* 15\]"):
        mixer(x, x[..., :-1])


@every_mechanism
def test_wrong_maps_and_masks_are_named(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid), random_map(grid)
    with pytest.raises(ValueError, match=rf"{name} expects x of shape \[.*, {DIM}\].*channels last.*got \[2, .* 15\]"):
        mixer(x[..., :-1])
    with pytest.raises(ValueError, match=rf"{name} expects x of shape .*, got \[2, {DIM}\]"):
        mixer(x.flatten(1, -2)[:, 0])
    with pytest.raises(ValueError, match=r"expects a bool mask of shape .* got torch\.float64"):
        mixer(x, mask=padding_mask(grid).double())
    with pytest.raises(ValueError, match=r"expects a bool mask of shape .* got torch\.bool \[1, "):
        mixer(x, mask=padding_mask(grid)[:1])


@every_mechanism
def test_unknown_options_are_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name} has no option 'num_hedas'.*it has "):
        build_attention({"type": name, "num_hedas": 2}, DIM, main_grid(name))
    with pytest.raises(ValueError, match="dim=0"):
        build_attention(name, 0, main_grid(name))


@every_mechanism
def test_claim_permutation_equivariant(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid), random_map(grid)
    order = torch.randperm(math.prod(grid), generator=torch.Generator().manual_seed(4))

    def permuted(t: Tensor) -> Tensor:
        return t.flatten(1, -2)[:, order].reshape(t.shape)

    equivariant = torch.allclose(mixer(permuted(x)), permuted(mixer(x)), rtol=1e-10, atol=1e-10)
    assert equivariant == claims(name).permutation_equivariant


@every_mechanism
def test_tokens_without_a_place_are_refused_where_places_count(name: str) -> None:
    """A class token would be one more pixel to windows and to parameters bound to positions."""
    mixer = make(name, main_grid(name))
    if claims(name).permutation_equivariant:
        mixer.check_prefix_tokens()
    else:
        with pytest.raises(ValueError, match=f"{name} goes by where tokens lie.*class_token=False"):
            mixer.check_prefix_tokens()


@every_mechanism
def test_claim_convex(name: str) -> None:
    """Attending to one-hot values gives the attention matrix: rows that sum to 1, none below 0."""
    mixer, grid = make(name, main_grid(name)), main_grid(name)
    n = math.prod(grid)
    width = 3
    if isinstance(mixer, QKVAttention):
        mixer = make(name, grid, num_heads=2)
        width = mixer.key_dim // 2
    q, k = (torch.randn(2, 2, n, width, dtype=torch.float64) for _ in range(2))
    values = torch.eye(n, dtype=torch.float64).expand(2, 2, n, n)
    if isinstance(mixer, QKVAttention):
        weights = mixer.attend(q, k, values, grid, grid)
    elif name == "NonLocalConcatenation":
        return  # its hook wants the inner width; a relu over M is no distribution and none is claimed
    elif isinstance(mixer, NonLocalMixer):
        weights = mixer.attend(q[:, 0], k[:, 0], values[:, 0])
    elif isinstance(mixer, LSHAttention):
        weights = make(name, grid, num_heads=2, key_dim=2 * width).attend(q, values)
    elif isinstance(mixer, RawValueAttention):
        weights = mixer.attend(q, k, values)
    elif isinstance(mixer, GatedAveraging):
        weights = mixer.attend(q, k, values, grid)
    elif isinstance(mixer, ChannelAttention):
        return  # its weights are over channels, not over tokens: no claim is about those
    elif isinstance(mixer, GatedGathering):
        return  # weights by channel, behind a gate: no distribution, and none is claimed
    elif isinstance(mixer, GMLP):
        return  # a gate learned for positions: no distribution, and none is claimed
    elif isinstance(mixer, StackedAttention):
        return  # its answer is a query plus what that sees: no distribution, and none is claimed
    elif isinstance(mixer, LongShortAttention):
        return  # values go through norms: no distribution over what is given, and none is claimed
    elif isinstance(mixer, LambdaMixer):
        return  # linear functions of the queries: no distribution, and none is claimed
    else:
        pytest.fail("say here how this mechanism attends to given values")
    sums = weights.sum(-1)
    convex = bool((weights >= 0).all() and torch.allclose(sums, torch.ones_like(sums)))
    assert convex == claims(name).convex


@every_mechanism
def test_claim_softmax_limit(name: str) -> None:
    limit = claims(name).softmax_limit
    if limit is None:
        return
    grid = main_grid(name)
    mixer = make(name, grid, num_heads=4, **limit)
    softmax = make("SoftmaxAttention", grid, num_heads=4)
    softmax.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(mixer(random_map(grid)), softmax(random_map(grid)), rtol=1e-10, atol=1e-10)


def counted_flops(name: str, grid: tuple[int, ...]) -> int:
    mixer = build_attention(name, DIM, grid).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        mixer(torch.randn(1, *grid, DIM))
    return counter.get_total_flops()


@every_mechanism
def test_claim_cost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in the plain form: cost(2N) - 2 cost(N) does not change if linear, and grows fourfold if quadratic.

    N^1.5 is what grows eightfold where both sides double, once the part that grows fourfold is taken off.
    """
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")
    base = {1: (84,), 2: (14, 14), 3: (7, 7, 7)}[len(main_grid(name))]
    once, twice, fourfold = (counted_flops(name, (factor * base[0], *base[1:])) for factor in (1, 2, 4))
    assert once > 0
    bend, next_bend = twice - 2 * once, fourfold - 2 * twice
    if claims(name).cost == "N":
        assert abs(next_bend - bend) <= 0.02 * fourfold
    elif claims(name).cost == "N^1.5":
        once, twice, fourfold = (counted_flops(name, (factor * 14, factor * 14)) for factor in (1, 2, 4))
        assert twice > 4 * once
        assert fourfold - 4 * twice == pytest.approx(8 * (twice - 4 * once), rel=0.02)
    else:
        assert claims(name).cost == "N^2"
        assert bend > 0
        assert next_bend == pytest.approx(4 * bend, rel=0.02)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@every_mechanism
@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_whole_with_gradients(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid).float(), random_map(grid).float().requires_grad_()
    compiled = torch.compile(mixer, fullgraph=True)
    expected, out = mixer(x), compiled(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    (got,) = torch.autograd.grad(out.square().sum(), x)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    masked = compiled(x, mask=padding_mask(grid))
    torch.testing.assert_close(masked, mixer(x, mask=padding_mask(grid)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_mechanism
@pytest.mark.usefixtures("fresh_compiler")
def test_exports(name: str) -> None:
    grid = main_grid(name)
    mixer, x = make(name, grid).float(), random_map(grid).float()
    with torch.no_grad():
        program = torch.export.export(mixer, (x,))
        torch.testing.assert_close(program.module()(x), mixer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@every_context_mechanism
@pytest.mark.usefixtures("fresh_compiler")
def test_exports_with_a_context(name: str) -> None:
    grid = main_grid(name)
    mixer, x, context = make(name, grid).float(), random_map(grid).float(), random_map(grid, seed=5).float()
    with torch.no_grad():
        program = torch.export.export(mixer, (x, context))
        torch.testing.assert_close(program.module()(x, context), mixer(x, context), rtol=1e-5, atol=1e-5)
