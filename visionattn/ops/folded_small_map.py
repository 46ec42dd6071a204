"""Efficient attention of maps so small that calls cost more than arithmetic; forward only.

Not folded but the plain equations, in as few calls as they take. The bias of the keys cancels and is left out; that of
the values goes through the attention unchanged and joins the output's. Heads are views that join the batch, and the
residual is added by the last product of matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.folded_whole_map import in_order_of


def forward_small_map(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> Tensor:
    """As `forward_whole_map`."""
    heads, dim, temperature, adds_x = options
    batch, tokens, _ = x.shape
    qkv, maps = weights.qkv, x.mT
    widths = [dim, dim, qkv.shape[0] - 2 * dim]
    # split, len and None as an index would each be a Python function in front of what is called here.
    to_queries, to_keys, to_values = qkv.expand(batch, -1, -1).split_with_sizes(widths, 1)
    keys, values = torch.bmm(to_keys, maps), torch.bmm(to_values, maps)
    output, constant = weights.proj, weights.proj_bias
    if weights.qkv_bias is None:
        queries = torch.bmm(to_queries, maps)
    else:
        query_bias, _, value_bias = weights.qkv_bias.split_with_sizes(widths)
        queries = torch.baddbmm(query_bias.unsqueeze(1), to_queries, maps)
        constant = torch.mv(output, value_bias) if constant is None else torch.addmv(constant, output, value_bias)
    if temperature != 1.0:
        queries /= temperature
        keys /= temperature
    by_head = (batch * heads, -1, tokens)
    context = torch.bmm(values.view(by_head), keys.view(by_head).softmax(2).mT)  # [B * heads, e, d]
    attended = torch.bmm(context, queries.view(by_head).softmax(1)).view(batch, -1, tokens)
    if scale is not None:
        output = output * scale[:, None]
        constant = None if constant is None else constant * scale
    out = in_order_of(x, x if adds_x else residual, output.expand(batch, -1, -1), attended)
    return out if constant is None else out.add_(constant)
