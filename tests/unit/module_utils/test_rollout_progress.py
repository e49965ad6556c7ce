# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress lines: what is written is what is read; what a host makes up is cleaned, bounded or dropped."""

from __future__ import annotations

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.rollout_progress import (
    EVENTS,
    MAX_LINE,
    Step,
    parsed,
    shown,
    written,
)
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text(max_size=200)


@given(st.sampled_from(EVENTS), NAMES, NAMES, st.floats(0, 86400))
def test_whatever_a_container_is_called_its_line_is_one_line(
    event: str, service: str, container: str, seconds: float,
) -> None:
    line = written(Step(event, service, container, seconds))
    assert line.count("\n") == 1
    step = parsed(line[:-1])
    assert step is not None
    assert (step.event, step.seconds) == (event, round(seconds, 1))


@given(st.text(max_size=400))
def test_whatever_a_host_sends_is_dropped_or_safe_to_show(line: str) -> None:
    step = parsed(line)
    assert step is None or shown("web1", step).isprintable()


@given(st.sampled_from(EVENTS), NAMES, NAMES)
def test_control_characters_are_not_shown(event: str, service: str, container: str) -> None:
    step = parsed(f"{event}\t\x1b[31m{service[:50]}\t{container[:50]}\r\t1.0")
    assert step is None or shown("web1", step).isprintable()


@pytest.mark.parametrize("line", [
    "", "healthy", "healthy\ta\tb", "healthy\ta\tb\tx", "healthy\ta\tb\tnan", "healthy\ta\tb\tinf", "healthy\ta\tb\t-1",
    "rm -rf\ta\tb\t1.0", "healthy\ta\tb\t1.0\tmore", "healthy\t" + "a" * MAX_LINE + "\tb\t1.0",
])
def test_what_is_no_line_is_dropped(line: str) -> None:
    assert parsed(line) is None


def test_a_line_for_a_person() -> None:
    step = Step("healthy", "extractor", "demo-workers-extractor-1", 4.25)
    assert shown("web1", step, 6) == (
        "web1    extractor       demo-workers-extractor-1            healthy      4.2 s")
