"""SIGTERM: the end that a cluster announces. Work stops where nothing is half done, and a checkpoint is written."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from cli import rank
from files import is_owned

EXIT_CODE = 128 + signal.SIGTERM
RANK_0_SAVES_WITHIN = 25  # seconds; the launcher kills its ranks after 30


class Terminated(BaseException):
    """SIGTERM has come. Like KeyboardInterrupt no Exception, so that no library takes it for a fault of its own."""


class Terminable:
    """While it is entered, SIGTERM raises Terminated on rank 0, which holds the checkpoint to be saved.

    The other ranks work on, so that rank 0 never waits in a collective for one that has left; they end when rank 0 has
    given up its folder.

    Args:
        save_dir: the folder that rank 0 owns.
    """

    def __init__(self, save_dir: str) -> None:
        self.save_dir = save_dir
        self.asked = self.held = self.raised = False

    def __enter__(self) -> Terminable:
        self.before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        signal.signal(signal.SIGTERM, self.before)
        if self.raised and kind is not None and kind is not Terminated:
            raise Terminated from None  # Paddle makes an error of its own of what a backward method raises

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """What must not be cut through: SIGTERM waits for its end."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        if self.asked and not rank():
            raise Terminated

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # the launcher repeats it
            return
        self.asked = True
        if rank():
            threading.Thread(target=self._leave_after_rank_0, daemon=True).start()
        elif not self.held:
            self.raised = True
            raise Terminated

    def _leave_after_rank_0(self) -> None:
        end = time.monotonic() + RANK_0_SAVES_WITHIN
        while is_owned(self.save_dir, ".lock") and time.monotonic() < end:
            time.sleep(0.2)
        os._exit(EXIT_CODE)
