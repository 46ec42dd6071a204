"""A run of many processes ends when one of them is gone, within half a minute and with its name.

Collectives only wait: without its peer a process hangs in NCCL until the timeout of minutes, or fails in gloo with the
number of a socket. So each process writes a heartbeat to the store they met at, and a thread of each listens to the
next one's: a ring, so that the store has as much to do for each process however many there are.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

SILENCE = 20.0
"""Seconds without a heartbeat after which a process counts as gone."""

_BEAT = 1.0
_SUSPECTED = 5.0  # as SILENCE, once a collective has failed
_COLLECTIVE = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|process ?group|tcpstore", re.IGNORECASE)


class Watch:
    """One process's heartbeat, and its ear for the next one's.

    Args:
        store: where the processes of the run met; the watch takes its own connection to it.
        rank, size: of this process, and how many there are.
        silence: seconds without a heartbeat after which a process counts as gone.
    """

    def __init__(self, store: distributed.Store, rank: int, size: int, silence: float) -> None:
        self._store = distributed.PrefixStore("visionattn/watch", store.clone())
        self._next = (rank + 1) % size
        self._rank = rank
        self._silence = silence
        self._suspicious = False
        self._stopped = threading.Event()
        self.name = f"rank {rank} ({socket.gethostname()}, process {os.getpid()})"
        self._store.set(f"name/{rank}", self.name)
        self._names = {number: self._store.get(f"name/{number}").decode() for number in (0, self._next)}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def tell(self, error: Exception) -> None:
        """Lets the others know that this process fails; where it fails for want of another, ends it with that name.

        Called where an exception leaves the run. Returns if the error is this process's own, or nobody is missing.
        """
        if not _COLLECTIVE.search(f"{type(error).__name__}: {error}"):
            self.stop()
            try:
                self._store.compare_set("ended", "", f"{self.name} failed: {type(error).__name__}: {_line(error)}")
                time.sleep(2 * _BEAT)  # the store may go with this process: first let the others read it
            except RuntimeError:
                pass  # it has gone already
            return
        self._suspicious = True
        self._thread.join(self._silence + 2 * _SUSPECTED)
        self.stop()

    def _run(self) -> None:
        heard, when, beats = b"", time.monotonic(), 0
        while not self._stopped.wait(_BEAT):
            try:
                beats += 1
                self._store.set(f"beat/{self._rank}", str(beats))
                if self._store.check(["ended"]):
                    self._end(self._store.get("ended").decode())
                beat = self._store.get(f"beat/{self._next}") if self._store.check([f"beat/{self._next}"]) else b""
                if beat != heard:
                    heard, when = beat, time.monotonic()
                elif time.monotonic() - when > (_SUSPECTED if self._suspicious else self._silence):
                    text = f"{self._names[self._next]} is gone: killed, out of memory, or its machine is down"
                    self._end(self._store.compare_set("ended", "", text).decode())
            except RuntimeError:  # the store's end of the connection is closed
                if not self._stopped.wait(_BEAT):
                    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
                    self._end(f"{'the first torchrun' if agent else self._names[0]} is gone: nobody can meet there")

    def _end(self, why: str) -> None:
        """Ends this process; the first of a run to come here says why."""
        try:
            first = self._store.add("said", 1) == 1
        except RuntimeError:
            first = True
        if first:
            print(f"visionattn: error: {why}; the others ended too, go on by --resume auto", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(1)  # the main thread may wait in a collective for ever


_watch: Watch | None = None


def begin_watch(silence: float = SILENCE) -> None:
    """Watches over the processes of the default group, which this process has just joined."""
    global _watch
    store = distributed.distributed_c10d._get_default_store()
    _watch = Watch(store, distributed.get_rank(), distributed.get_world_size(), silence)


def end_watch() -> None:
    global _watch
    if _watch is not None:
        _watch.stop()
    _watch = None


@contextmanager
def in_company() -> Iterator[None]:
    """An exception that leaves this block is told to the other processes, or ends this one with a missing one's name.

    Alone, a process has nobody to tell.
    """
    try:
        yield
    except Exception as error:
        if _watch is not None:
            _watch.tell(error)
            end_watch()
        raise


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
