# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof as a table for people."""

from __future__ import annotations

from typing import Mapping, Sequence

from . import verdicts
from .untrusted import clean

MAX_CELL = 80
MAX_LINE = 500

_COLUMNS = ("service", "instance", "host", "sha", "image", "started", "state", "verdict")
_TITLES = ("SERVICE", "INSTANCE", "HOST", "SHA", "IMAGE", "STARTED", "STATE", "VERDICT")


def table(rows: Sequence[Mapping[str, str]], sha: str) -> list[str]:
    """Lines of the table; under each row that isn't fine, what was found and the remedy.

    :param rows: rows as ``Row.to_dict`` gives them.
    :param sha: the release's full SHA, for the head and foot lines.
    """
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[place]) for line in [_TITLES, *cells]) for place in range(len(_COLUMNS))]
    lines = [f"Expected GIT_SHA: {sha or 'unknown'}", "", _line(_TITLES, widths)]
    for row, line in zip(rows, cells):
        lines.append(_line(line, widths))
        if row["verdict"] != verdicts.OK:
            lines += [f"    found:  {clean(row['found'], MAX_LINE)}", f"    remedy: {clean(row['remedy'], MAX_LINE)}"]
    wrong = sum(row["verdict"] != verdicts.OK for row in rows)
    lines.append("")
    if not rows:
        lines.append("[MISSING] No worker found: nothing is proved")
    elif wrong:
        lines.append(f"[FAILED] {wrong} of {len(rows)} not as expected")
    else:
        lines.append(f"[OK] All {len(rows)} workers run {sha[:7]}, proved by container, image and registration")
    return lines


def _cells(row: Mapping[str, str]) -> tuple[str, ...]:
    image = row["image"].partition(":")[2][:12] or row["image"]
    texts = (
        row["service"], row["instance"], row["host"], row["sha"][:7] or "-", image or "-", row["started"][:19] or "-",
        row["state"] or "-", f"[{row['verdict']}]")
    # Names of other people's containers and services come from labels that anybody may have written.
    return tuple(clean(text, MAX_CELL) for text in texts)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
