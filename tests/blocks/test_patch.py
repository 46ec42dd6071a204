"""Patch embedding and merging: what each token is made of, at sizes that nothing divides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, randomised, tensor
from torch import Tensor

from visionattn.blocks.patch import PatchEmbed, PatchMerging, PostNormPatchMerging


def layer_norm(parameters: Parameters, token: Tensor) -> Tensor:
    centred = token - token.mean()
    normed = centred / (centred.square().mean() + 1e-5).sqrt()
    return normed * parameters["norm.weight"] + parameters["norm.bias"]


def at(x: Tensor, batch: int, row: int, column: int) -> Tensor:
    """The token there; zeros behind the edge."""
    inside = row < x.shape[1] and column < x.shape[2]
    return x[batch, row, column] if inside else x.new_zeros(x.shape[-1])


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (5, 7)])
@pytest.mark.parametrize("norm", [True, False])
def test_patches_equal_the_loops(size: tuple[int, int], norm: bool) -> None:
    embed = randomised(PatchEmbed(2, 5, (2, 3), norm=norm))
    assert ("norm.weight" in embed.state_dict()) == norm

    def naive(parameters: Parameters, image: Tensor) -> Tensor:
        pixels = image.permute(0, 2, 3, 1)
        rows, columns = -(-size[0] // 2), -(-size[1] // 3)
        out = []
        for batch in range(len(image)):
            for row in range(rows):
                for column in range(columns):
                    token = parameters["proj.bias"]
                    for y in range(2):
                        for x in range(3):
                            pixel = at(pixels, batch, 2 * row + y, 3 * column + x)
                            token = token + parameters["proj.weight"][:, :, y, x] @ pixel
                    out.append(layer_norm(parameters, token) if norm else token)
        return torch.stack(out).reshape(len(image), rows, columns, 5)

    assert_equals_naive(embed, naive, {"image": tensor(2, 2, *size)})


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (3, 4), (4, 3), (5, 3)])
@pytest.mark.parametrize("kind", [PatchMerging, PostNormPatchMerging])
def test_merging_equals_the_loops(size: tuple[int, int], kind: type[Any]) -> None:
    def naive(parameters: Parameters, x: Tensor) -> Tensor:
        out = []
        for batch in range(len(x)):
            for row in range(0, size[0], 2):
                for column in range(0, size[1], 2):
                    places = [(row, column), (row + 1, column), (row, column + 1), (row + 1, column + 1)]
                    token = torch.cat([at(x, batch, *place) for place in places])
                    if kind is PatchMerging:
                        token = layer_norm(parameters, token)
                    token = parameters["reduction.weight"] @ token
                    out.append(token if kind is PatchMerging else layer_norm(parameters, token))
        return torch.stack(out).reshape(len(x), -(-size[0] // 2), -(-size[1] // 2), 5)

    assert_equals_naive(randomised(kind(3, 5)), naive, {"x": tensor(2, *size, 3)})


@pytest.mark.parametrize("case", golden("attention", "swin1_patch_merging"))
def test_golden_patch_merging(case: Golden) -> None:
    grid, dim = case.args
    assert not case.kwargs
    merging = PatchMerging(dim, 2 * dim).double()
    merging.load_state_dict(case.group("param"))
    x = case.group("in")["x"].clone().requires_grad_()
    out = merging(x.reshape(len(x), *grid, -1)).reshape(case.out.shape)
    assert_golden(case, out, {"x": x}, dict(merging.named_parameters()), tol=1e-10)


def test_mistakes_are_named() -> None:
    with pytest.raises(TypeError, match=r"patch=4 must hold height and width: \(4, 4\)"):
        PatchEmbed(3, 8, 4)
    for wrong in ((0, 4), (4,), (4, 2.5)):
        with pytest.raises(ValueError, match=r"patch=\(.*\) must hold two integers of 1 or more, such as \(4, 4\)"):
            PatchEmbed(3, 8, wrong)
    embed = PatchEmbed(3, 8)
    for shape in ((1, 4, 8, 8), (3, 8, 8), (1, 3, 0, 8)):
        with pytest.raises(ValueError, match=r"expected an image \[B, 3, H, W\], got \["):
            embed(torch.zeros(shape))
