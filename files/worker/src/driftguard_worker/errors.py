# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""Exit statuses, and the one error that carries them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitStatus", "WorkerError"]


class ExitStatus(IntEnum):
    """What the process says when it ends; docs/worker.md holds the same table.

    Values above 64 are those of BSD's sysexits.h.
    """

    CLEAN = 0
    GUARD = 1
    SETTINGS = 2
    PORT = 69
    INTERNAL = 70
    NOT_DEREGISTERED = 75
    REFUSED = 77


class WorkerError(Exception):
    """A failure that ends the worker and that a person can act on.

    :param status: the exit status that it causes.
    :param subject: what it is about: a variable, a file, an address. Never a secret.
    :param expected: what was asked for.
    :param found: what is there.
    :param remedy: what the reader should do next.
    """

    def __init__(self, status: ExitStatus, subject: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(status, subject, expected, found, remedy)
        self.status = status
        self.subject = subject
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.subject}: expected {self.expected}; found {self.found}; remedy: {self.remedy}"
