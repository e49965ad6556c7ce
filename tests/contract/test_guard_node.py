# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Node guard as ``node --require``: it comes before the application and before what NODE_OPTIONS loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from contract.guard_cases import (
    CASES,
    FATAL,
    GUARDS,
    Outcome,
    complaints,
    environment_of,
    reads_options,
    write_files,
)
from contract.guard_programs import Workshop, node_guards, open_workshop, run

NODE = node_guards()[0].interpreter[0]
OPTIONS = [case for case in CASES if reads_options(case)]
BEGAN = "application began\n"


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


def preloaded(shop: Workshop, case: dict[str, Any], *words: str) -> Outcome:
    """Start an application under the guard, which finds a case's files."""
    place = shop.place()
    files = write_files(case, place)
    record = f", record: {str(files.record)!r}" if files.record else ""
    (place / "preload.cjs").write_text(
        f"require({str(shop.guards / 'version-guard.cjs')!r}).protect({{ imageFile: {str(files.image)!r}{record} }});")
    (place / "app.cjs").write_text(f"console.log({BEGAN.strip()!r});")
    program = words or (str(place / "app.cjs"),)
    variables = {**environment_of(case), "PATH": "/usr/bin:/bin"}
    return run([NODE, "--require", str(place / "preload.cjs"), *program], variables)


@pytest.mark.parametrize("case", OPTIONS, ids=[case["name"] for case in OPTIONS])
def test_options_of_node_are_judged_before_node_follows_them(case: dict[str, Any], shop: Workshop) -> None:
    # Without settings for the fence it refuses what the rules let pass, which is another matter.
    outcome = preloaded(shop, case)
    if case["expect"]["status"] == 0:
        assert f"{FATAL}WORKER_FLEET is missing or wrong!" in outcome.stderr, outcome
        assert FATAL + "Running" not in outcome.stderr
    else:
        wrong = [text for text in complaints(case, outcome) if text != "not so: started exactly if allowed"]
        assert not wrong, outcome
    assert BEGAN not in outcome.stdout


@pytest.mark.parametrize("words", [
    ["--import", "tsx", "src/worker.ts"], ["--require", "ts-node/register", "x.ts"],
    ["node_modules/.bin/tsx", "x.ts"]])
def test_runners_beside_it_are_refused(words: list[str], shop: Workshop) -> None:
    outcome = preloaded(shop, {}, *words)
    assert (outcome.status, f"{FATAL}Running via " in outcome.stderr) == (1, True), outcome


def test_what_node_itself_watches_is_refused(shop: Workshop) -> None:
    # So it starts the child of "node --watch x.js", which is told by nothing else.
    outcome = preloaded(shop, {"environment": {"WATCH_REPORT_DEPENDENCIES": "1"}})
    assert (outcome.status, f"{FATAL}Running via --watch in production!" in outcome.stderr) == (1, True), outcome


def test_a_refused_application_is_never_loaded(shop: Workshop) -> None:
    outcome = preloaded(shop, {"environment": {"GIT_SHA": "unknown"}})
    assert (outcome.status, BEGAN in outcome.stdout) == (1, False)
    assert f"{FATAL}GIT_SHA is 'unknown' in production!" in outcome.stderr


def test_without_settings_and_outside_production_it_only_says_so(shop: Workshop) -> None:
    outcome = preloaded(shop, {"environment": {"NODE_ENV": "test", "WORKER_ENV": None, "REDIS_URL": None}})
    assert (outcome.status, BEGAN in outcome.stdout) == (0, True), outcome
    assert "NOTE: REDIS_URL is not set: this worker is neither registered nor fenced" in outcome.stdout


@pytest.mark.parametrize("words", [["--", "node"], ["--check", "--bogus"], ["--record"], []])
def test_as_a_program_it_only_checks(words: list[str]) -> None:
    outcome = run([NODE, str(GUARDS / "version-guard.cjs"), *words], {"PATH": "/usr/bin"})
    assert (outcome.status, outcome.stderr.startswith("version-guard: ")) == (64, True), outcome


def test_its_parts_lie_beside_it_and_need_only_node() -> None:
    known = {"fs", "http", "inspector", "module", "net", "os", "path", "tls", "worker_threads"}
    parts = sorted(Path(GUARDS).glob("version-guard*.cjs"))
    assert len(parts) == 4
    for part in parts:
        text = part.read_text(encoding="utf-8")
        named = {piece.split('"')[0] for piece in text.split('require("')[1:]}
        assert {name for name in named if not name.startswith("./version-guard")} <= known, part
        assert run([NODE, "--check", str(part)], {"PATH": "/usr/bin"}).status == 0
