# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of this collection: what was expected, what was found, what to do."""

from __future__ import annotations


class DriftguardError(Exception):
    """A failure that a person can act on.

    :param subject: what it is about; names host, service, key or file.
    :param expected: the state that was asked for.
    :param found: the state that is there.
    :param remedy: what the reader should do next.
    """

    def __init__(self, subject: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(subject, expected, found, remedy)
        self.subject = subject
        self.expected = expected
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.subject}: expected {self.expected}; found {self.found}; remedy: {self.remedy}"

    def as_result(self) -> dict[str, str]:
        """The failure as module return values."""
        return {
            "msg": str(self),
            "subject": self.subject,
            "expected": self.expected,
            "found": self.found,
            "remedy": self.remedy,
        }
