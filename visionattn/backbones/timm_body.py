"""timm's feature extractors: building one without a download, its module names, its weights from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionattn.weights.loading import load_state_dict
from visionattn.weights.reading import find_state_dict, read_checkpoint

_ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})


def timm_model_names() -> list[str]:
    """Names of timm's models, without the tags of their weights."""
    import timm

    return list(timm.list_models())


def create_body(model_name: str, out_indices: Sequence[int] | None, options: Mapping[str, Any]) -> Any:
    """timm's `features_only` model with random weights; for any input size where timm has an option for that.

    Raises:
        KeyError: timm has no such model.
        ValueError: timm cannot build it with these options, or has no such stage.
    """
    import timm

    if not timm.is_model(model_name):
        close = get_close_matches(model_name, timm_model_names(), n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise KeyError(f"timm has no model {model_name!r}{hint}")
    arguments = {**options, "pretrained": False, "features_only": True}
    if out_indices is not None:
        arguments["out_indices"] = tuple(out_indices)
    if getattr(timm.get_pretrained_cfg(model_name, allow_unregistered=True), "fixed_input_size", False):
        for any_size in _ANY_SIZE:
            try:
                return timm.create_model(model_name, **{**any_size, **arguments})
            except TypeError as error:
                if next(iter(any_size)) not in str(error):
                    break
            except Exception:  # the plain attempt below says what it is
                break
    try:
        return timm.create_model(model_name, **arguments)
    except Exception as error:
        if isinstance(error, IndexError) or (isinstance(error, AssertionError) and "index" in str(error)):
            arguments.pop("out_indices", None)
            plain: Any = timm.create_model(model_name, **arguments)
            stages = len(plain.feature_info)
            raise ValueError(f"out_indices={out_indices}: {model_name} has the stages 0 to {stages - 1}") from error
        reason = str(error) or type(error).__name__
        raise ValueError(f"timm cannot build {model_name!r} as a backbone with {dict(options)}: {reason}") from error


def body_path(body: nn.Module, name: str) -> str | None:
    """Where a feature extractor keeps the module that the plain model has under `name`; None if it lacks it.

    Some of timm's extractors hold the model whole, others take it apart and join the first two names.
    """
    modules = dict(body.named_modules())
    return next((path for path in _spellings(name) if path in modules), None)


def load_timm_checkpoint(body: nn.Module, path: str | Path) -> None:
    """Loads the weights of the plain timm model into its feature extractor.

    What the extractor cut off (classifier, late stages) is passed over, as are buffers that newer versions of timm
    compute; everything the extractor has must be in the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, or belongs to another model.
    """
    state = find_state_dict(read_checkpoint(path))
    own = body.state_dict()
    computed = {
        f"{prefix}.{name}" for prefix, module in body.named_modules() for name in module._non_persistent_buffers_set
    }
    tops = {name.partition(".")[0] for name in own} - {"body", "model"}
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        spellings = _spellings(name)
        spelling = next((s for s in spellings if s in own), None)
        if spelling is None and not computed.intersection(spellings):
            spelling = next((s for s in spellings if s.partition(".")[0] in tops), None)  # a deeper model's block
        if spelling is not None:
            renamed[spelling] = value
    try:
        load_state_dict(body, renamed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _spellings(name: str) -> tuple[str, ...]:
    return name, name.replace(".", "_", 1), f"body.{name}", f"model.{name}"
