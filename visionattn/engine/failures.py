"""What ends a run from outside, in words that a person can act on."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from visionattn.engine.checkpoint import good_checkpoint

_DEAD_WORKER = re.compile(r"DataLoader worker \(?(pid.*?)\)? (?:is killed by signal|exited unexpectedly)")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def name_failure(error: OSError | RuntimeError, work_dir: str | Path) -> None:
    """Returns, unless the error is a loader's dead worker's or the disk's.

    Raises:
        ChildProcessError: a loader's worker was killed.
        OSError: the disk is full or read-only, and the error does not say which file.
    """
    dead = _DEAD_WORKER.search(str(error))
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
