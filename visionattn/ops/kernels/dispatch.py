"""Which case a Triton kernel serves: the only place that decides, and that says why not.

Each op of this package (`torch.ops.visionattn.*`) has an eager twin in plain PyTorch that is the truth; the kernels do
the same with less traffic. Where one cannot serve a case the plain form does, and the logger "visionattn.kernels" says
why at level DEBUG. Triton is imported when the first kernel is launched, never before.
"""

from __future__ import annotations

import logging
import math
import os
import sysconfig
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

log = logging.getLogger("visionattn.kernels")


class Served(NamedTuple):
    """The largest case of a kernel."""

    key_width: int  # channels per head of q and k
    value_width: int  # of v
    features: int = 0  # random features, where there are any
    positions: int = 0  # of a window, where there are windows


TABLE = {
    "efficient_attention": Served(key_width=128, value_width=512),
    "folded_attention": Served(key_width=128, value_width=128),  # of all heads, as `folded_rows` has them; of the map
    "feature_attention": Served(key_width=128, value_width=128, features=512),
    "window_attention": Served(key_width=64, value_width=64, positions=256),
}
"""What the kernels serve, on CUDA devices of `CAPABILITY` or more, in `DTYPES`."""

LARGE_SHARED = 160 * 1024
LITTLE_SHARED = {
    "feature_attention": Served(key_width=64, value_width=64, features=512),
    "window_attention": Served(key_width=32, value_width=32, positions=256),
}
"""What replaces rows of `TABLE` on devices with less than `LARGE_SHARED` bytes of shared memory per program (compute
capability 8.6, 8.9 and 12.0), where the wider kernels could not be launched."""

FOLDED_PRODUCTS = {"half": (128 * 128, 128 * 64), "float32": (64 * 32, 32 * 32)}
"""The most that the two widths of "folded_attention" may make: a program holds five such matrices. The second numbers
are for devices with less than `LARGE_SHARED`."""


class ServedVolume(NamedTuple):
    """The largest case of a kernel of stereo matching; a volume of one image has fewer than 2**31 elements."""

    growth: int = 1  # of an extent, where the answer is finer than what goes in


VOLUMES = {
    "group_correlation": ServedVolume(),
    "assembled_convolution": ServedVolume(),
    "upsampled_soft_argmax": ServedVolume(growth=8),
}
"""As `TABLE`, of the kernels that take maps and volumes."""

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
_MOST_ELEMENTS = 2**31 - 1
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")  # as Triton
_TRITON_INSTALLED = find_spec("triton") is not None
_ORDINARY = (Tensor, torch.nn.Parameter)
# os.environ answers "not there" by two exceptions, which small maps feel; its own table, where it has one, does not.
_VARIABLES = getattr(os.environ, "_data", os.environ)
_SWITCH = os.environ.encodekey("VISIONATTN_KERNELS") if _VARIABLES is not os.environ else "VISIONATTN_KERNELS"
_ON, _OFF = ("on", "1", "true", "yes", ""), ("off", "0", "false", "no")


def kernels_allowed() -> bool:
    """False if the environment says VISIONATTN_KERNELS=off: then everything runs in its plain form.

    Raises:
        ValueError: it says neither on nor off.
    """
    return _SWITCH not in _VARIABLES or _is_on(os.environ["VISIONATTN_KERNELS"])


def _is_on(value: str) -> bool:
    word = value.strip().lower()
    if word not in _ON + _OFF:
        raise ValueError(f"VISIONATTN_KERNELS={value} is neither on nor off; off runs everything in its plain form")
    return word in _ON


def missing_for_builds() -> str | None:
    """What Triton lacks here to build what launches its kernels: it compiles a few lines of C at the first one."""
    if os.name == "nt":  # Triton for Windows brings its own compiler
        return None
    if not os.environ.get("CC") and which("gcc") is None and which("clang") is None:
        return "Triton finds no C compiler: install gcc or clang, or name one in CC"
    # Debian's own scheme of paths is not where Python's headers are.
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    headers = Path(sysconfig.get_path("include", scheme))
    if not (headers / "Python.h").exists():
        return f"Triton finds no Python.h in {headers}: install Python's headers, python3-dev or the like"
    return None


_MISSING = missing_for_builds() if _TRITON_INSTALLED and torch.version.cuda else None


def why_none(device: torch.device) -> str | None:
    """Why no kernel serves anything on this device; None if they do."""
    return _unready(device)


def asked_for(t: Tensor) -> bool:
    """A kernel could be meant: t is on a CUDA device, or Triton's interpreter runs (TRITON_INTERPRET=1)."""
    return t.is_cuda or INTERPRETED


def serves(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, projection: Tensor | None = None
) -> bool:
    """Whether the kernel of this name takes the case; where not, the log says why."""
    return nothing_against(name, why_not(name, q, k, v, mask, projection))


def serves_windows(qkv: Tensor, mask: Tensor | None, window: Sequence[int]) -> bool:
    """As `serves`, for window attention; the arguments are those of the op."""
    return nothing_against("window_attention", why_not_windows(qkv, mask, window))


def why_not(
    name: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, projection: Tensor | None = None
) -> str | None:
    """Why the kernel of this name does not take the case; None if it does.

    Args:
        name: a key of `TABLE`.
        q, k, v, mask: as the op takes them.
        projection: that of random features, where there are any.
    """
    tensors = (q, k, v, *(t for t in (mask, projection) if t is not None))
    return (
        _unready(q.device)
        or _unusual(tensors)
        or _unlike((q, k, v), tensors)
        or _misfit(q, k, v, mask, projection)
        or _too_large(_served(name, q.device), tensors, 0 if projection is None else projection.shape[0])
    )


def serves_volume(
    name: str, tensors: tuple[Tensor, ...], *, elements: int = 0, extents: tuple[tuple[int, int], ...] = ()
) -> bool:
    """Whether the kernel of this name takes these maps and volumes; where not, the log says why."""
    return nothing_against(name, why_not_volume(name, tensors, elements=elements, extents=extents))


def why_not_volume(
    name: str, tensors: tuple[Tensor, ...], *, elements: int = 0, extents: tuple[tuple[int, int], ...] = ()
) -> str | None:
    """Why the kernel of this name does not take the case; None if it does.

    Args:
        name: a key of `VOLUMES`.
        tensors: what goes in, [B, ...].
        elements: of one image's answer.
        extents: how many points of a grid become how many finer ones, for each of its axes.
    """
    return (
        _unready(tensors[0].device)
        or _unusual(tensors)
        or _unlike(tensors, tensors)
        or _too_large_volume(VOLUMES[name], tensors, elements, extents)
    )


def why_not_windows(qkv: Tensor, mask: Tensor | None, window: Sequence[int]) -> str | None:
    """As `why_not`, for window attention.

    Args:
        qkv: [B, H, W, 3, heads, D].
        mask: as the op takes it.
        window: of both axes.
    """
    # As the others see it, [B, heads, H, W, D].
    q, k, v = qkv.permute(0, 4, 3, 1, 2, 5).unbind(2)
    positions, most = math.prod(window), TABLE["window_attention"].positions
    too_many = f"a window of {positions} positions is above {most}" if positions > most else None
    return why_not("window_attention", q, k, v, mask) or too_many


def serves_folded(maps: Sequence[Tensor | None], weights: Sequence[Tensor | None], key_dim: int, heads: int) -> bool:
    """As `serves`, for the folded mixer of efficient attention."""
    return nothing_against("folded_attention", why_not_folded(maps, weights, key_dim, heads))


def why_not_folded(
    maps: Sequence[Tensor | None], weights: Sequence[Tensor | None], key_dim: int, heads: int
) -> str | None:
    """As `why_not`, for the folded mixer of efficient attention.

    Args:
        maps: x [B, N, C], then what else there is that need not be of the weights' dtype.
        weights: of the layers; None where one has no bias.
        key_dim: of all heads.
        heads: that it is divided into.
    """
    given, layers = ([t for t in tensors if t is not None] for tensors in (maps, weights))
    x = given[0]
    return (
        _unready(x.device)
        or _unusual((*given, *layers))
        or _unlike((*layers,), (*layers, *given))
        or _misfit_map(given, weights, key_dim, heads)
        or _too_large_map(x, (*given, *layers), layers[0].dtype, folded_rows(key_dim, heads))
    )


def folded_rows(key_dim: int, heads: int) -> int:
    """Rows of a tile that holds the queries of all heads: each head, and their number, as powers of two."""
    width = key_dim // heads
    return max(16, (1 << (heads - 1).bit_length()) * (1 << (width - 1).bit_length()))


def nothing_against(name: str, reason: str | None) -> bool:
    """True without a reason against the kernel of this name; a reason goes to the log."""
    if reason is not None and not torch.compiler.is_compiling():
        log.debug("%s: the plain form, because %s", name, reason)
    return reason is None


def on_device_of(t: Tensor) -> AbstractContextManager[object]:
    """Kernels are launched on the tensor's device inside."""
    return torch.cuda.device_of(t)  # type: ignore[no-untyped-call]


def _unready(device: torch.device) -> str | None:
    if not kernels_allowed():
        return "VISIONATTN_KERNELS=off"
    if not _TRITON_INSTALLED:
        return "triton is not installed"
    if INTERPRETED:
        return None
    if device.type != "cuda" or torch.version.hip is not None:
        return f"the device is no CUDA device but {device.type}"
    if _MISSING is not None:
        return _MISSING
    properties = torch.cuda.get_device_properties(device)
    return None if (properties.major, properties.minor) >= CAPABILITY else f"compute capability is below {CAPABILITY}"


def _unlike(numbers: tuple[Tensor, ...], tensors: tuple[Tensor, ...]) -> str | None:
    """What is wrong with the dtype of the numbers, or with the device of all tensors."""
    first = numbers[0]
    if any(t.dtype != first.dtype for t in numbers):
        return f"the tensors differ in dtype: {', '.join(str(t.dtype) for t in numbers)}"
    if first.dtype not in DTYPES:
        return f"{first.dtype} is not served"
    return None if all(t.device == first.device for t in tensors) else "the tensors are on several devices"


def _misfit(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, projection: Tensor | None) -> str | None:
    """Shapes that a kernel would read beside the tensors for; the plain form broadcasts them, or has the error."""
    if not (q.shape[:2] == k.shape[:2] and q.shape[-1] == k.shape[-1] and k.shape[:-1] == v.shape[:-1]):
        return f"q {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)} do not fit each other"
    if mask is not None and (mask.dtype != torch.bool or mask.shape != (k.shape[0], math.prod(k.shape[2:-1]))):
        return f"the mask is {mask.dtype} {list(mask.shape)}, not one bool for every key"
    if projection is not None and projection.shape[1:] != q.shape[-1:]:
        return f"the projection is {list(projection.shape)}, q {q.shape[-1]} wide"
    return None


def _too_large(served: Served, tensors: tuple[Tensor, ...], features: int) -> str | None:
    q, _, v, *_ = tensors
    if any(t.numel() == 0 for t in tensors):
        return "there are no elements"
    if q.shape[-1] > served.key_width:
        return f"a head's key width {q.shape[-1]} is above {served.key_width}"
    if v.shape[-1] > served.value_width:
        return f"a head's value width {v.shape[-1]} is above {served.value_width}"
    if features > served.features:
        return f"{features} features are more than {served.features}"
    if any(_span(t) > _MOST_ELEMENTS for t in tensors) or math.prod(q.shape[1:-1]) * v.shape[-1] > _MOST_ELEMENTS:
        return "a head, or an image's answer, spans 2**31 elements of memory or more"
    return None


def _misfit_map(maps: Sequence[Tensor], weights: Sequence[Tensor | None], key_dim: int, heads: int) -> str | None:
    x, (qkv, _, proj, _) = maps[0], weights
    assert qkv is not None
    assert proj is not None
    channels, values = x.shape[-1], proj.shape[-1]
    layers_fit = qkv.shape == (2 * key_dim + values, channels) and proj.shape[0] == channels
    if not layers_fit or key_dim % heads or values % heads:
        return f"layers of {list(qkv.shape)} and {list(proj.shape)} do not fit {heads} heads of a map {list(x.shape)}"
    if any(t.shape not in (x.shape, x.shape[-1:]) for t in maps):
        return f"{', '.join(str(list(t.shape)) for t in maps)} are not maps of one shape"
    return None


def _too_large_map(x: Tensor, tensors: Sequence[Tensor], dtype: torch.dtype, rows: int) -> str | None:
    if any(t.numel() == 0 for t in tensors):
        return "there are no elements"
    if any(t.dtype not in DTYPES for t in tensors):
        return f"one of {', '.join(sorted({str(t.dtype) for t in tensors}))} is not served"
    served, width = TABLE["folded_attention"], x.shape[-1]
    if rows > served.key_width:
        return f"the heads' key widths take {rows} rows, above {served.key_width}"
    if width > served.value_width:
        return f"a map's width {width} is above {served.value_width}"
    kind = "float32" if dtype == torch.float32 else "half"
    most = FOLDED_PRODUCTS[kind][_shared_memory(x.device) < LARGE_SHARED]
    if rows * width > most:
        return f"{rows} rows of keys by a width of {width} are above {most} in {dtype} on this device"
    if any(_span(t, 1) > _MOST_ELEMENTS for t in tensors):
        return "an image spans 2**31 elements of memory or more"
    return None


def _served(name: str, device: torch.device) -> Served:
    if name in LITTLE_SHARED and _shared_memory(device) < LARGE_SHARED:
        return LITTLE_SHARED[name]
    return TABLE[name]


def _shared_memory(device: torch.device) -> int:
    """Bytes that a program may have at most."""
    if device.type != "cuda":
        return LARGE_SHARED
    most: int = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    return most


def _too_large_volume(
    served: ServedVolume, tensors: tuple[Tensor, ...], elements: int, extents: tuple[tuple[int, int], ...]
) -> str | None:
    if any(t.numel() == 0 for t in tensors):
        return "there are no elements"
    for coarse, fine in extents:
        if not coarse <= fine <= served.growth * coarse:
            return f"{coarse} points of an axis become {fine}, not 1 to {served.growth} times as many"
    if elements > _MOST_ELEMENTS or any(_span(t, 1) > _MOST_ELEMENTS for t in tensors):
        return "an image spans 2**31 elements of memory or more"
    return None


def _span(t: Tensor, start: int = 2) -> int:
    """How far apart, in elements, one image's (and head's) first and last element lie: int32 must hold it."""
    first = min(start, t.dim() - 1)
    return sum((size - 1) * stride for size, stride in zip(t.shape[first:], t.stride()[first:], strict=True))


def _unusual(tensors: tuple[Tensor, ...]) -> str | None:
    """What an opaque op with one derivative cannot follow."""
    if torch.compiler.is_compiling():
        if torch.compiler.is_exporting():
            return "an exported program has to run without this package"
    elif torch._C._get_tracing_state() is not None:
        return "the model is being traced"
    elif any(type(t) not in _ORDINARY for t in tensors):
        return "a tensor is of a subclass"
    # Under torch.compile as well: the op's derivatives in forward mode would silently be 0.
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "a torch.func transform or a forward-mode derivative is at work"
    return None
