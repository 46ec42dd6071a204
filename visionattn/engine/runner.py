"""mmengine's Runner with checkpoints that execute nothing, and a terminal that says what matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import join_path
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS, LOOPS, Registry
from mmengine.runner import BaseLoop
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop
from mmengine.runner import LogProcessor as MMEngineLogProcessor
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner import checkpoint as checkpoints
from torch.utils.data import DataLoader

from visionattn.engine.checkpoint import RESUMABLE, CheckpointHook, latest_checkpoint
from visionattn.engine.config import import_scope
from visionattn.engine.failures import name_failure
from visionattn.engine.fsdp import FullyShardedModel, like_model, whole
from visionattn.engine.launch import join_processes
from visionattn.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from visionattn.engine.plain import plain
from visionattn.engine.reading import make_mmengine_read_safely
from visionattn.engine.redraw_features import RedrawFeaturesHook
from visionattn.engine.report import ReportHook
from visionattn.engine.run_content import restore_content, run_content
from visionattn.engine.run_state import generators_of_this_process, set_generators
from visionattn.engine.sampler import make_repeatable
from visionattn.engine.sharded_checkpoint import write_sharded
from visionattn.engine.signals import StopOnSignalHook
from visionattn.engine.terminal import LogProcessor, RunSummaryHook, make_terminal_quiet
from visionattn.engine.watch import in_company
from visionattn.engine.wrapping import wrap
from visionattn.registry import RUNNERS
from visionattn.weights.durable import save_durably
from visionattn.weights.loading import Fitted, fitted, load_state_dict
from visionattn.weights.reading import find_state_dict
from visionattn.weights.sharded import SUFFIX, is_sharded, open_sharded

make_mmengine_read_safely()

_OF_WORKERS = ("persistent_workers", "prefetch_factor")
_EXACT_LOOPS = {MMEngineIterBasedTrainLoop: IterBasedTrainLoop, MMEngineEpochBasedTrainLoop: EpochBasedTrainLoop}
_begun: Counter[str] = Counter()


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """Trains, validates and tests as mmengine's Runner does.

    Differs: every file is read with the allow-list of `visionattn.weights` and no fallback; resuming executes nothing
    of the checkpoint (mmengine's executes `meta["config"]`); checkpoints are plain data; weights that do not fit are an
    error unless the config says `load_strict=False`; the terminal shows a summary and progress, the log file all.
    """

    _timestamp: str
    _load_from: str | None
    _resume: bool
    _generators: dict[str, Any] | None = None
    optim_wrapper: Any
    param_schedulers: Any

    def train(self) -> Any:
        """Trains as mmengine's Runner does; what ends the run from outside is named in one line.

        Raises:
            ChildProcessError: a loader's worker was killed.
            OSError: the disk is full or read-only.
        """
        try:
            with in_company():
                return super().train()
        except Exception as error:
            name_failure(error, self.work_dir)
            raise
        finally:
            for hook in self.hooks:
                if isinstance(hook, StopOnSignalHook):
                    hook.put_back()
            self.call_hook("when_training_ends")

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable[..., Any] = "default",
    ) -> None:
        """Takes up a run where its checkpoint left it; what follows is what would have followed, bit for bit.

        Weights, optimiser, schedulers, counters, scalars; generators, the data's seeds and position, gradients that
        wait for the rest of their step, early stopping.

        Raises:
            ValueError: the file cannot be read safely, is another model's, or holds weights only.
        """
        checkpoint = self._load(filename, strict=True)
        lacking = [key for key in RESUMABLE if key not in checkpoint]
        if lacking:
            raise ValueError(
                f"{filename} holds no {' and no '.join(lacking)}: it cannot be resumed from; "
                "start from its weights with load_from"
            )
        restore_content(
            self,
            checkpoint,
            filename,
            with_optimizer=resume_optimizer,
            with_schedulers=resume_param_scheduler and self.param_schedulers is not None,
        )
        if "run_state" in checkpoint:
            self._generators = generators_of_this_process(checkpoint["run_state"])
        self._has_loaded = True
        self.logger.info(f"resumed {filename} at epoch {self.epoch}, iteration {self.iter}")

    def restore_generators(self) -> None:
        """Puts the generators of a resumed run where its checkpoint has them; the loop's last act before it goes on."""
        if self._generators is not None:
            set_generators(self._generators)
            self._generators = None

    def load_or_resume(self) -> None:
        if self._resume and self._load_from is None and not self._has_loaded:
            self._load_from = latest_checkpoint(self.work_dir)
            self._resume = self._load_from is not None
        super().load_or_resume()

    def load_checkpoint(
        self, filename: str, map_location: str | Callable[..., Any] = "cpu", strict: bool | None = None
    ) -> dict[str, Any]:
        """Loads weights into the model and returns all that the file holds.

        A Swin or ViT may have others' names, with or without "backbone." in front, and another window or image size:
        see `visionattn.load_checkpoint`.

        Args:
            strict: every name and shape must fit; None takes the config's `load_strict`, True if it has none.
        Raises:
            ValueError: the file cannot be read safely, or is another model's.
        """
        strict = self.cfg.get("load_strict", True) if strict is None else strict
        checkpoint = self._load(filename, strict, fitted)
        self.logger.info(f"loaded {filename}")
        return checkpoint

    def _load(self, filename: str, strict: bool, fit: Callable[[Any, Any], Fitted] = Fitted.as_it_is) -> dict[str, Any]:
        model = self._plain_model()
        checkpoint: dict[str, Any]
        if isinstance(self.model, FullyShardedModel) and is_sharded(filename):
            checkpoint = open_sharded(filename)  # of which this process reads its part
            checkpoint["state_dict"] = like_model(checkpoint["state_dict"], model)
        else:
            checkpoint = checkpoints._load_checkpoint(str(filename), logger="current")
            checkpoint = {**checkpoint, "state_dict": find_state_dict(checkpoint)}
        try:
            self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
            found = fit(model, checkpoint["state_dict"])
            if found.dialect or found.resized:
                self.logger.info(f"{filename}: {found}")
            report = load_state_dict(model, like_model(found.state, model), strict=strict)
        except ValueError as error:
            message = str(error).replace("strict=False loads", "load_strict=False in the config loads")
            raise ValueError(f"{filename}: {message}") from error
        if not report.complete:
            self.logger.warning(f"{filename}: {report}")
        self._has_loaded = True
        return checkpoint

    def _plain_model(self) -> Any:
        """The model without what distributes it or averages its predictions."""
        model: Any = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return model

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        """Writes the run as plain data, whole or not at all: `torch.load(weights_only=True)` reads it.

        Every process must call it; the first one writes. With a `filename` that ends in .sharded each writes its part.

        Raises:
            OSError: the disk is full, the folder read-only: what was there before is as it was.
            TypeError: a state dict holds what plain data cannot say; the message has its name.
            ValueError: file_client_args, which mmengine has deprecated.
        """
        if file_client_args is not None:
            raise ValueError("file_client_args is deprecated by mmengine; use backend_args")
        content = run_content(
            self,
            dict(meta or {}),
            by_epoch,
            with_optimizer=save_optimizer,
            with_schedulers=save_param_scheduler and self.param_schedulers is not None,
        )
        path = join_path(out_dir, filename, backend_args=backend_args)
        if Path(path).suffix == SUFFIX:
            if is_main_process():
                self.call_hook("before_save_checkpoint", checkpoint=content)
            write_sharded(content, Path(path))
            return
        content = whole(content)
        if not is_main_process():
            return
        self.call_hook("before_save_checkpoint", checkpoint=content)
        if "://" in path:
            checkpoints.save_checkpoint(plain(content, "checkpoint"), path, backend_args=backend_args)
        else:
            save_durably(plain(content, "checkpoint"), path)

    @cached_property
    def config_text(self) -> str:
        text: str = self.cfg.pretty_text  # formatting it takes longer than writing many a checkpoint
        return text

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        import_scope(self.cfg)
        join_processes(self.launcher, **env_cfg.get("dist_cfg", {}))
        super().setup_env(env_cfg)
        # Logger, message hub and log folder go by this name: two runs that one process begins in a second are two.
        _begun[self._timestamp] += 1
        if _begun[self._timestamp] > 1:
            self._timestamp = f"{self._timestamp}_{_begun[self._timestamp]}"

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: Any) -> Any:
        if not self.distributed or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        return wrap(
            model, model_wrapper_cfg, self.cfg.get("sync_bn"), bool(self.cfg.get("find_unused_parameters", False))
        )

    def _init_model_weights(self) -> None:
        if not isinstance(self.model, FullyShardedModel):  # that one initialises before it shards
            super()._init_model_weights()

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader[Any] | dict[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader[Any]:
        if isinstance(dataloader, dict) and not dataloader.get("num_workers"):
            # num_workers=0 on the command line leaves behind what the config says of workers; PyTorch refuses that.
            dataloader = {name: value for name, value in dataloader.items() if name not in _OF_WORKERS}
        loader = MMEngineRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        make_repeatable(loader, seed or 0)
        return loader

    def build_train_loop(self, loop: BaseLoop | dict[str, Any]) -> BaseLoop:
        """mmengine's loops are built as ours of the same names."""
        if isinstance(loop, dict):
            by_epoch = MMEngineEpochBasedTrainLoop if loop.get("by_epoch") else MMEngineIterBasedTrainLoop
            exact = _EXACT_LOOPS.get(_named(LOOPS, loop["type"]) if "type" in loop else by_epoch)
            if exact is not None:
                options = {name: value for name, value in loop.items() if name not in ("type", "by_epoch", "_scope_")}
                return exact(**options, runner=self, dataloader=self._train_dataloader)
        return super().build_train_loop(loop)

    def register_hook(self, hook: Hook | dict[str, Any], priority: str | int | None = None) -> None:
        """mmengine's CheckpointHook is built as ours."""
        if isinstance(hook, dict) and _named(HOOKS, hook["type"]) is MMEngineCheckpointHook:
            hook = {**hook, "type": CheckpointHook}
        super().register_hook(hook, priority)

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(log_level, log_file, **kwargs)
        make_terminal_quiet(logger)
        return logger

    def build_log_processor(self, log_processor: MMEngineLogProcessor | dict[str, Any]) -> MMEngineLogProcessor:
        if isinstance(log_processor, dict) and "type" not in log_processor:
            return LogProcessor(**log_processor)
        return super().build_log_processor(log_processor)

    def build_evaluator(self, evaluator: Any) -> Any:
        built = super().build_evaluator(evaluator)
        for metric in built.metrics:
            if getattr(metric, "out", self) is None:  # a metric that writes files, and was not told where
                metric.out = Path(self.work_dir) / "evaluation"
        return built

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """mmengine's; and, unless the config says None for them, what keeps a run from losing anything."""
        hooks = {
            "non_finite": {"type": "visionattn.NonFiniteHook"},
            "stop_on_signal": {"type": "visionattn.StopOnSignalHook"},
            **(hooks or {}),
        }
        ours = ("non_finite", "stop_on_signal")
        super().register_default_hooks({name: hook for name, hook in hooks.items() if hook or name not in ours})
        self.register_hook(RedrawFeaturesHook(), priority="VERY_HIGH")  # before a checkpoint is saved
        self.register_hook(RunSummaryHook())
        self.register_hook(ReportHook())


def _named(registry: Registry, kind: Any) -> Any:
    """What a config's type stands for: a class itself, or its name in the current scope."""
    with registry.switch_scope_and_registry(None) as current:
        return current.get(kind) if isinstance(kind, str) else kind
