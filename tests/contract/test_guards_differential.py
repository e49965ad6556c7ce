# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python guard says the same as the sh guard and the Node guard, byte for byte, whatever they are given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Sequence

import pytest
from contract.guard_cases import CONTRACT, FIXTURES, Files, render_env, render_json
from contract.guard_programs import Guard, Workshop, all_guards, guard_command, node_guards, open_workshop, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NEW, OLD = (FIXTURES["records"][f"settled on {name}"]["target"] for name in ("new", "old"))
TWIN = {"releaseId": NEW["releaseId"][:13] + "f" * 12, "sha": NEW["sha"]}
GOOD_IMAGE: bytes = FIXTURES["imageFiles"]["new"].encode()
GOOD_RECORD = FIXTURES["records"]["settled on new"]
GOOD = {"NODE_ENV": b"production", "GIT_SHA": NEW["sha"].encode()}
SHELLS = [guard for guard in all_guards() if not guard.is_python]
PYTHONS = [guard for guard in all_guards() if guard.is_python]
LIMITS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

odd = st.binary(max_size=200).map(lambda value: value.replace(b"\0", b""))
edges = st.binary(max_size=3).map(lambda value: value.replace(b"\0", b""))
words = st.sampled_from([
    os.fsencode(word) for word in [*CONTRACT["devRunners"]["names"], "node", "flask", "--debug", "x", "-", "", "--"]])
commands = st.lists(st.one_of(words, odd, st.builds(lambda a, word, b: a + word + b, edges, words, edges)), max_size=4)
known = st.sampled_from([sha.encode() for sha in (
    NEW["sha"], OLD["sha"], NEW["sha"][:7], NEW["sha"][:6], NEW["sha"][:39] + "0", NEW["sha"].upper(), "unknown", "")])
near = st.builds(lambda sha, extra, front: extra + sha if front else sha + extra, known, edges, st.booleans())
shas = st.one_of(known, known, near, st.none(), odd)
guards = st.tuples(st.sampled_from(PYTHONS), st.sampled_from([*SHELLS, *node_guards()]))
# Node itself reads NODE_OPTIONS.
shell_guards = st.tuples(st.sampled_from(PYTHONS), st.sampled_from(SHELLS))


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """An image file with a few stretches of it replaced by something else."""
    text: bytes = GOOD_IMAGE
    pieces = [b"", b'  "x": "y",\n', *(bytes([byte]) for byte in b'\n\r \t",}\\a\0\xff'), OLD["sha"].encode()]
    for _ in range(draw(st.integers(1, 2))):
        at, length = draw(st.integers(0, len(text))), draw(st.integers(0, 5))
        text = text[:at] + draw(st.one_of(st.sampled_from(pieces), st.binary(max_size=8))) + text[at + length:]
    return text


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A record that allows this release or doesn't, mostly without a fault; both files can express its faults."""
    releases = st.sampled_from([NEW, OLD, TWIN])
    target, others = draw(releases), draw(st.lists(releases, max_size=2, unique_by=str))
    rolling = {"phase": "rolling", "target": target, "allowed": [*(o for o in others if o != target), target]}
    record = {**GOOD_RECORD, **draw(st.sampled_from([rolling, {"target": target, "allowed": [target]}]))}
    broken = {"releaseId": "latest", "sha": NEW["sha"]}
    faults: dict[str, st.SearchStrategy[Any]] = {
        "schema": st.just(2), "fleet": st.text("ab0-Z", max_size=34), "phase": st.sampled_from(["settled", "done"]),
        "generation": st.sampled_from([0, -1, 1, 10**15, 10**15 + 1, 10**16, 10**30]),
        "target": st.sampled_from([broken, OLD]), "allowed": st.lists(st.one_of(releases, st.just(broken)), max_size=4)}
    for key in draw(st.lists(st.sampled_from(sorted(faults)), max_size=1)):
        record[key] = draw(faults[key])
    return record


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@LIMITS
@given(pair=guards, git_sha=shas, expected=shas, production=st.booleans(), recorded=st.booleans(), worker=odd)
def test_same_for_any_version(
    shop: Workshop, pair: tuple[Guard, Guard], git_sha: Optional[bytes], expected: Optional[bytes], production: bool,
    recorded: bool, worker: bytes,
) -> None:
    environment = {"GIT_SHA": git_sha, "EXPECTED_GIT_SHA": expected, "WORKER_TYPE": worker,
                   "WORKER_ENV": b"production" if production else b"test"}
    same(shop, pair, environment, record=GOOD_RECORD if recorded else None)


@LIMITS
@given(pair=shell_guards, command=commands, options=st.one_of(st.none(), words, odd))
def test_same_for_any_command_line(
    shop: Workshop, pair: tuple[Guard, Guard], command: list[bytes], options: Optional[bytes],
) -> None:
    same(shop, pair, {**GOOD, "NODE_OPTIONS": options}, command)


@LIMITS
@given(pair=guards, command=commands)
def test_same_for_any_command(shop: Workshop, pair: tuple[Guard, Guard], command: list[bytes]) -> None:
    same(shop, pair, GOOD, command)


@LIMITS
@given(pair=guards, expected=shas, stamped=st.booleans())
def test_same_for_any_expectation(
    shop: Workshop, pair: tuple[Guard, Guard], expected: Optional[bytes], stamped: bool,
) -> None:
    same(shop, pair, {**GOOD, "EXPECTED_GIT_SHA": expected}, image=GOOD_IMAGE if stamped else None)


@LIMITS
@given(pair=guards, image=st.one_of(st.none(), images()), recorded=st.booleans())
def test_same_for_any_image_file(
    shop: Workshop, pair: tuple[Guard, Guard], image: Optional[bytes], recorded: bool,
) -> None:
    same(shop, pair, GOOD, image=image, record=GOOD_RECORD if recorded else None)


@LIMITS
@given(pair=guards, record=records(), production=st.booleans())
def test_same_for_any_record(
    shop: Workshop, pair: tuple[Guard, Guard], record: dict[str, Any], production: bool,
) -> None:
    same(shop, pair, GOOD if production else {"GIT_SHA": GOOD["GIT_SHA"]}, record=record)


def same(
    shop: Workshop, pair: tuple[Guard, Guard], environment: Mapping[str, Optional[bytes]],
    command: Sequence[bytes] = (), image: Optional[bytes] = GOOD_IMAGE, record: Optional[dict[str, Any]] = None,
) -> None:
    files = _files(shop.place(), image, record)
    variables = {os.fsencode(name): value for name, value in environment.items() if value is not None}
    variables[b"LC_ALL"] = b"C"  # bash counts characters, where the others count bytes
    told = []
    for guard in pair:
        asked = guard_command(guard, shop.guards, files, ["--check"])
        outcome = run([*map(os.fsencode, asked), b"node", *command], variables)
        told.append((outcome.status, outcome.stdout, outcome.stderr.replace("/guard.env", "/guard.json")))
        assert outcome.status in (0, 1)
    assert told[0] == told[1]


def _files(place: Path, image: Optional[bytes], record: Optional[dict[str, Any]]) -> Files:
    if image is not None:
        (place / "image.json").write_bytes(image)
    if record is not None:
        (place / "guard.json").write_text(render_json(record), encoding="utf-8")
        (place / "guard.env").write_text(render_env(record), encoding="utf-8")
    return Files(place / "image.json", place if record is not None else None)
