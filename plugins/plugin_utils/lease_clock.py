# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a deployment lease is renewed, and when it must be taken for lost. Pure: times are given."""

from __future__ import annotations

RENEWALS_PER_LEASE = 3
TRIES_PER_LEASE = 6


class LeaseClock:
    """The times of one lease, in seconds by a clock that never jumps.

    :param seconds: how long it lasts after each renewal.
    :param now: when this began; it was taken or renewed before, and is asked for at once.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._renewed = now
        self._next = now

    def is_due(self, now: float) -> bool:
        """Whether to renew it now."""
        return now >= self._next

    def renewed(self, asked: float) -> None:
        """It was renewed; it lasts from when that was asked for, not from when the answer came."""
        self._renewed = asked
        self._next = asked + self._seconds / RENEWALS_PER_LEASE

    def failed(self, asked: float) -> None:
        """Nobody could be asked; try again soon."""
        self._next = asked + self._seconds / TRIES_PER_LEASE

    def is_over(self, now: float) -> bool:
        """Whether it may have run out by now."""
        return now - self._renewed >= self._seconds
