# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions and files stay short. When a number gets in the way of clarity, change it and say why in the commit."""

from __future__ import annotations

import statistics

import pytest
from meta.rules import measures
from meta.rules.files import below, read
from meta.rules.report import expect_none

MAIN = 25
MEDIAN = 8
NINE_OF_TEN = 25
LONGEST = 50
FILE = 300
# Tests may be longer: cases that belong together stay together. The guard is one file by its contract: it is mounted
# into containers and run by an interpreter that finds nothing else.
LONGER = {"tests/": 400, "files/guard/version_guard.py": 470}
CODE = ("plugins/", "files/", "tools/")
PYTHON = (*CODE, "tests/", "molecule/")


def lengths(*places: str) -> list[tuple[int, str]]:
    """All functions below some places: lines of code, and where."""
    return [
        (function.lines, f"{path}: {function.name}")
        for path in below(*places, suffix=".py") for function in measures.functions(read(path))]


@pytest.mark.parametrize("place", CODE)
def test_most_functions_are_short(place: str) -> None:
    found = sorted(lines for lines, _where in lengths(place))
    assert statistics.median(found) <= MEDIAN
    assert found[int(len(found) * 0.9)] <= NINE_OF_TEN


def test_no_function_is_long() -> None:
    expect_none({where: [f"{lines} lines"] for lines, where in lengths(*PYTHON) if lines > LONGEST})


def test_main_of_a_module_is_tiny() -> None:
    mains = [(lines, where) for lines, where in lengths("plugins/modules/") if where.endswith(": main")]
    assert mains, "no module was looked at"
    expect_none({where: [f"{lines} lines"] for lines, where in mains if lines > MAIN})


def test_files_are_short() -> None:
    counted = {path: measures.file_lines(read(path)) for path in below(*PYTHON, suffix=".py")}
    assert counted
    expect_none({path: [f"{lines} lines"] for path, lines in counted.items() if lines > _limit(path)})


def _limit(path: str) -> int:
    return next((limit for start, limit in LONGER.items() if path.startswith(start)), FILE)


SAMPLE = '''
DOCUMENTATION = """
options: {}
"""


def outer():
    """A docstring
    of two lines."""
    # a comment

    def inner():
        return (1,
                2)
    text = """three
    lines
    long"""
    return inner, text


class Thing:
    async def method(self): return 1


def nothing():
    """Only this."""
'''


def test_lines_of_code_are_counted() -> None:
    found = {function.name: function.lines for function in measures.functions(SAMPLE)}
    assert found == {"outer": 7, "inner": 2, "method": 1, "nothing": 0}


def test_lines_of_a_file_are_counted_without_its_documentation() -> None:
    assert measures.file_lines(SAMPLE) == len(SAMPLE.splitlines()) - 3
