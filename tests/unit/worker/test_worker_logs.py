# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs: one JSON object a line, whoever logs and whatever is in it."""

from __future__ import annotations

import json
import logging
from typing import Any, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftguard_worker import logs

SECRET = "hunter2-hunter2"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    yield
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])
    structlog.reset_defaults()


def lines(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_holds_event_fields_and_context(capsys: Capture) -> None:
    logs.configure("info", {"worker": "ocr:ab12", "sha": "a" * 40})
    logs.get("part").info("hello", number=1)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "hello",
        "number": 1,
        "level": "info",
        "logger": "part",
        "worker": "ocr:ab12",
        "sha": "a" * 40,
    }


def test_libraries_log_the_same_way(capsys: Capture) -> None:
    logs.configure("info", {"worker": "ocr:ab12"})
    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn")
    (line,) = lines(capsys)
    assert (line["event"], line["worker"], line["logger"]) == ("from uvicorn", "ocr:ab12", "uvicorn.error")


def test_level_holds_for_both(capsys: Capture) -> None:
    logs.configure("error", {})
    logs.get("part").warning("no")
    logging.getLogger("library").warning("no")
    logs.get("part").error("yes")
    assert [line["event"] for line in lines(capsys)] == ["yes"]


def test_configured_again_nothing_is_doubled(capsys: Capture) -> None:
    logs.configure("info", {})
    logs.configure("info", {"worker": "w"})
    logs.get("part").info("once")
    assert [line["worker"] for line in lines(capsys)] == ["w"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(), st.text())
def test_no_value_can_forge_a_line(capsys: Capture, event: str, value: str) -> None:
    logs.configure("info", {})
    capsys.readouterr()
    logs.get("part").info(event, value=value)
    logging.getLogger("library").error("%s", value)
    output = capsys.readouterr().out
    assert output.count("\n") == len(output.splitlines()) == 2
    assert json.loads(output.splitlines()[0])["value"] == value


def test_secrets_are_masked_wherever_they_come_from(capsys: Capture) -> None:
    logs.configure("info", {"worker": f"w {SECRET}"}, [SECRET])
    logs.get("part").info(f"event {SECRET}", value=f"redis://:{SECRET}@redis")
    logging.getLogger("library").error("library %s", SECRET)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logs.get("part").exception("failed")
    output = capsys.readouterr().out
    assert SECRET not in output
    assert "redis://:***@redis" in output


def test_a_failure_is_one_line_with_its_place_and_no_stack(capsys: Capture) -> None:
    logs.configure("info", {})
    try:
        raise ValueError("wrong")
    except ValueError:
        logs.get("part").exception("failed")
    (line,) = lines(capsys)
    assert line["error"] == "ValueError: wrong"
    assert line["at"].startswith(f"{__name__}:")
    assert "Traceback" not in json.dumps(line)


def test_debug_shows_the_stack_still_in_one_line(capsys: Capture) -> None:
    logs.configure("debug", {})
    try:
        raise ValueError("wrong")
    except ValueError:
        logging.getLogger("library").exception("failed")
    (line,) = lines(capsys)
    assert "Traceback" in line["exception"]
