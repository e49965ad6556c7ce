# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs pieces of work side by side, and never waits longer for them than somebody wants the result."""

from __future__ import annotations

from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Callable, Iterable, Optional

from .errors import DriftguardError

POLL_SECONDS = 0.25

Work = Callable[[], None]


@dataclass
class _Piece:
    work: Work
    failure: Optional[DriftguardError] = None
    done: bool = False


class _Worker(Thread):
    """Does one piece after the other until none is waiting.

    Not of a pool: Python would wait at its end for whatever hangs.
    """

    def __init__(self, waiting: SimpleQueue[_Piece], end: Event) -> None:
        super().__init__(daemon=True)
        self._waiting = waiting
        self._end = end

    def run(self) -> None:
        while not self._end.is_set():
            try:
                piece = self._waiting.get_nowait()
            except Empty:
                return
            try:
                piece.work()
            except DriftguardError as failure:
                piece.failure = failure
            piece.done = True


def side_by_side(work: Iterable[Work], at_once: int, meanwhile: Work) -> None:
    """Do all of it; the first failure is raised when all has ended.

    :param at_once: how many at the same time.
    :param meanwhile: called four times a second. When it raises, nothing more is begun, and what hasn't ended yet is
        not waited for: it ends with this process.
    :raises DriftguardError: what a piece of work or ``meanwhile`` raised.
    """
    pieces = [_Piece(one) for one in work]
    waiting: SimpleQueue[_Piece] = SimpleQueue()
    for piece in pieces:
        waiting.put(piece)
    end = Event()
    workers = [_Worker(waiting, end) for _number in range(min(at_once, len(pieces)))]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(POLL_SECONDS)
            while worker.is_alive():
                meanwhile()
                worker.join(POLL_SECONDS)
    finally:
        end.set()
    for piece in pieces:
        if piece.failure is not None:
            raise piece.failure
        if not piece.done:
            raise DriftguardError(
                "work side by side", "an end of every piece", "one that broke off, see the module's stderr",
                "this is a defect: please report it with that traceback")
