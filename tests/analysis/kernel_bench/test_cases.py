"""The cases: every form of one equation answers alike, on maps that leave nothing even."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from visionattn.analysis.kernel_bench.attention_cases import attention_families
from visionattn.analysis.kernel_bench.case import Case, Form, normal
from visionattn.analysis.kernel_bench.equality import compared
from visionattn.attention.build import build_attention
from visionattn.backbones.timm_window import TimmWindowAttention
from visionattn.cli.benchmark import kernel_families
from visionattn.segmentation.kernel_peers import MmsegWindowAttention
from visionattn.stereo.kernel_cases import stereo_families

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_every_family_has_sizes_and_one_smallest(kind: str) -> None:
    families = kernel_families()
    assert set(families) == {*attention_families(), *stereo_families()}
    for name, family in families.items():
        cases = family.cases(kind)
        assert [case.smallest for case in cases] == [True] + [False] * (len(cases) - 1)
        assert {case.family for case in cases} == {name}
        assert len({str(case) for case in cases}) == len(cases) >= 2


@pytest.mark.parametrize("name", kernel_families())
def test_the_forms_of_the_smallest_case_are_equal(name: str) -> None:
    case = kernel_families()[name].cases("cpu")[0]
    forms = case.forms(CPU)
    assert forms[0].own
    assert [form.own for form in forms[1:]] == [False] * (len(forms) - 1)
    errors, complaints, failed = compared(case, forms, CPU)
    assert not complaints
    assert not failed
    assert set(errors) == {form.name for form in forms if form.same}


@pytest.mark.parametrize(("grid", "shift"), [((14, 21), 0), ((14, 21), 3), ((13, 16), 3), ((13, 16), 0)])
def test_the_windows_of_timm_and_mmseg(grid: tuple[int, int], shift: int) -> None:
    torch.manual_seed(0)
    options = {"type": "WindowAttention", "num_heads": 2, "shift": (shift, shift), "mask_padding": False}
    ours = build_attention(options, 8)
    nn.init.normal_(ours.relative_position_bias_table)
    before = build_attention(options | {"shift_before_padding": True}, 8)
    before.load_state_dict(ours.state_dict())

    def inputs(images: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (normal(images, *grid, 8, generator=generator, dtype=torch.float32),)

    forms = [
        Form("ours", ours, own=True),
        Form("timm", TimmWindowAttention(ours, grid), truth=before),
        Form("mmseg", MmsegWindowAttention(ours)),
    ]
    case = Case("windows", "odd", 1, torch.float32, inputs, lambda device: forms)
    errors, complaints, failed = compared(case, forms, CPU)
    assert not complaints
    assert not failed
    assert set(errors) == {"ours", "timm", "mmseg"}
    with torch.no_grad():
        forms[1].module.block.attn.relative_position_bias_table[3] += 0.1
    assert "timm errs by" in "; ".join(compared(case, forms, CPU).complaints)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_forms_in_half_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    options = {"type": "WindowAttention", "num_heads": 2, "shift": (3, 3), "mask_padding": False}
    ours = build_attention(options, 8).to(dtype)

    def inputs(images: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (normal(images, 14, 14, 8, generator=generator, dtype=dtype),)

    peers = [("timm", TimmWindowAttention(ours, (14, 14))), ("mmseg", MmsegWindowAttention(ours))]
    forms = [Form("ours", ours, own=True), *(Form(name, module.to(dtype)) for name, module in peers)]
    verdict = compared(Case("windows", "even", 1, dtype, inputs, lambda device: forms), forms, CPU)
    assert set(verdict.errors) == {"ours", "timm", "mmseg"}
    assert not verdict.complaints
