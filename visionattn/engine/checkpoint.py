"""Which checkpoint a work dir's run stopped at."""

from __future__ import annotations

from pathlib import Path


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint that the run in `work_dir` wrote last; None if there is none.

    Its path is the one recorded, or the same name in `work_dir`, should the folder have been moved.
    """
    record = Path(work_dir) / "last_checkpoint"
    if not record.is_file():
        return None
    recorded = Path(record.read_text().strip())
    moved = Path(work_dir) / recorded.name
    return next((str(path) for path in (recorded, moved) if path.is_file()), None)
