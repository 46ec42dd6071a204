"""What ends a run from outside, in words that a person can act on."""

from __future__ import annotations

import errno
import re
import time
from pathlib import Path

from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from visionattn.engine.checkpoint import good_checkpoint

_DEAD_WORKER = re.compile(r"DataLoader worker \(?(pid.*?)\)? (?:is killed by signal|exited unexpectedly)")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def name_failure(error: Exception, work_dir: str | Path) -> None:
    """Returns, unless the error is a loader's dead worker's or the disk's.

    Raises:
        ChildProcessError: a loader's worker was killed.
        OSError: the disk is full or read-only, and the error does not say which file.
    """
    dead = _dead_worker(error)
    disk = isinstance(error, OSError) and error.filename is None and error.errno in _DISK
    if dead is None and not disk:
        return
    good = good_checkpoint(work_dir)
    way_out = f"then go on from {good} by --resume auto" if good else "then begin again: there is no checkpoint yet"
    if dead is None:
        assert isinstance(error, OSError)
        raise OSError(error.errno, f"{error.strerror}; make room, {way_out}", str(work_dir)) from error
    raise ChildProcessError(
        f"a loader worker ({dead[1]}) was killed, most often because the memory ran out: lower num_workers or "
        f"batch_size, {way_out}"
    ) from error


def _dead_worker(error: Exception) -> re.Match[str] | None:
    """What torch says of a loader's dead worker, if that is behind the error.

    torch raises it wherever the signal of the death finds the program: in the midst of another's clean-up, whose own
    error then hides it. A worker that dies while it hands a batch over is first seen as a connection that ends; torch
    says so only when the system has told it of the death.
    """
    behind: BaseException | None = error
    while behind is not None:
        found = _DEAD_WORKER.search(str(behind))
        if found is not None:
            return found
        behind = behind.__cause__ or behind.__context__
    if isinstance(error, ConnectionError | EOFError):
        try:
            for _ in range(20):
                _error_if_any_worker_fails()
                time.sleep(0.05)
        except RuntimeError as death:
            return _DEAD_WORKER.search(str(death))
    return None
