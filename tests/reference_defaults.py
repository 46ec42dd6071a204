"""The defaults of the constructors whose golden vectors are recorded, so that a file may leave them unsaid."""

from __future__ import annotations

from typing import Any

_BLOCK = {"window_size": 7, "shift_size": 0}
_NON_LOCAL = {
    "reduction": 2,
    "use_scale": True,
    "mode": "embedded_gaussian",
    "sub_sample": False,
    "zeros_init": True,
}

DEFAULTS: dict[tuple[str, str], dict[str, Any]] = {
    ("a2", "DoubleAttentionLayer"): {"k": 1},
    ("aft_full", "AFTFull"): {"hidden_dim": 64},
    ("aft_local", "AFTLocal"): {"hidden_dim": 64, "s": 256},
    ("aft_simple", "AFTSimple"): {"hidden_dim": 64},
    ("aft_simple", "AFTSimpleAttention"): {"causal": False},
    ("favor_features", "Favor"): {"stabilize": False, "softmax_temp": None},
    ("fourier", "dct"): {"norm": None},
    ("gmlp_block", "gMLPBlock"): {"heads": 1, "attn_dim": None, "causal": False, "circulant_matrix": False},
    ("gmlp_sgu", "SpatialGatingUnit"): {"heads": 1, "causal": False, "circulant_matrix": False},
    ("gmlp_timm_block", "SpatialGatingBlock"): {"mlp_ratio": 4},
    ("image_linear_attention", "ImageLinearAttention"): {"heads": 8, "norm_queries": True},
    ("lambda", "LambdaLayer"): {"heads": 4, "dim_u": 1, "dk": 16, "du": 1, "Nh": 4, "r": 23},
    ("lat", "SelfAttention"): {
        "causal": False,
        "blindspot_size": 1,
        "n_local_attn_heads": 0,
        "local_attn_window_size": 128,
        "receives_context": False,
    },
    ("linformer", "LinformerSelfAttention"): {"k": 256, "heads": 8, "one_kv_head": False, "share_kv": False},
    ("mega_ema", "MultiHeadEMA"): {"ndim": 2, "bidirectional": False},
    ("mega_gated_attn", "MovingAverageGatedAttention"): {
        "chunk_size": -1,
        "max_positions": 1024,
        "rel_pos_bias": "simple",
        "attention_activation": "softmax",
        "bidirectional": False,
    },
    ("mega_lucid", "MegaLayer"): {
        "dim": 128,
        "ema_heads": 16,
        "attn_dim_qk": 64,
        "attn_dim_value": 256,
        "laplacian_attn_fn": False,
        "causal": True,
    },
    ("nonlocal", "NonLocal1d"): _NON_LOCAL,
    ("nonlocal", "NonLocal2d"): _NON_LOCAL,
    ("nonlocal", "NonLocal3d"): _NON_LOCAL,
    ("performer", "FastAttention"): {"causal": False, "generalized_attention": False, "no_projection": False},
    ("performer", "SelfAttention"): {"causal": False, "heads": 8, "dim_head": 64, "generalized_attention": False},
    ("reformer", "FullQKAttention"): {"causal": False},
    ("reformer", "LSHAttention"): {
        "bucket_size": 64,
        "n_hashes": 8,
        "causal": False,
        "allow_duplicate_attention": True,
        "attend_across_buckets": True,
    },
    ("samformer", "SAMFormerArchitecture"): {"use_revin": True},
    ("smyrf", "SmyrfAttention"): {"r": 1, "norm_factor": 1},
    ("swin1_block", "SwinTransformerBlock"): _BLOCK,
    ("swin1_mmseg", "ShiftWindowMSA"): {"shift_size": 0},
    ("swin1_timm", "SwinTransformerBlock"): {**_BLOCK, "num_heads": 4, "dynamic_mask": False},
    ("swin1_timm", "WindowAttention"): {"window_size": [7, 7]},
    ("swin2_block", "SwinTransformerBlock"): _BLOCK,
    ("transformer_ls_1d", "LongShortAttention"): {
        "heads": 8,
        "dim_head": 64,
        "causal": True,
        "window_size": 128,
        "segment_size": 16,
        "r": 1,
    },
    ("transformer_ls_vision", "AttentionLS"): {
        "num_heads": 8,
        "qkv_bias": False,
        "qk_scale": None,
        "rpe": False,
        "nglo": 1,
        "dp_rank": 2,
        "w": 2,
    },
}
"""By family and class, of the keywords that a test reads."""


def without_defaults(row: dict[str, Any]) -> dict[str, Any]:
    """The row of index.json without the keywords that say what the reference does unasked."""
    defaults = DEFAULTS.get((row["family"], row["cls"].split(".")[-1]), {})
    kept = {name: value for name, value in row["kwargs"].items() if name not in defaults or value != defaults[name]}
    return row | {"kwargs": kept}
