# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python and the sh guard say the same, byte for byte, whatever they are given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest
from contract.guard_cases import CONTRACT, FIXTURES, Files, render_env, render_json
from contract.guard_programs import Workshop, all_guards, guard_command, open_workshop, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NEW, OLD = (FIXTURES["records"][f"settled on {name}"]["target"] for name in ("new", "old"))
TWIN = {"releaseId": NEW["releaseId"][:13] + "f" * 12, "sha": NEW["sha"]}
SHAS = [NEW["sha"], OLD["sha"], NEW["sha"][:7], NEW["sha"][:39] + "0", "unknown", ""]
WORDS = [*CONTRACT["devRunners"]["names"], "node", "flask", "--debug", "dist/worker.js", "x", "-", "", "--"]
ODD = st.binary(max_size=200).map(lambda value: value.replace(b"\0", b""))
SHELLS = [guard for guard in all_guards() if not guard.is_python]
PYTHONS = [guard for guard in all_guards() if guard.is_python]


def edited(text: str) -> st.SearchStrategy[bytes]:
    """A text as it is, or with a stretch of it replaced by something else."""
    raw = text.encode()
    pieces = st.sampled_from([b"", b'  "x": "y",\n', *(bytes([byte]) for byte in b'\n\r \t",}\\a\0\xff')])

    def change(at: int, length: int, piece: bytes) -> bytes:
        return raw[:at] + piece + raw[at + length:]

    changed = st.builds(change, st.integers(0, len(raw)), st.integers(0, 5), st.one_of(pieces, st.binary(max_size=8)))
    return st.one_of(st.just(raw), changed)


def shas() -> st.SearchStrategy[Optional[bytes]]:
    known = st.sampled_from([os.fsencode(sha) for sha in SHAS])
    near = st.builds(lambda sha, extra, front: extra + sha if front else sha + extra, known, ODD, st.booleans())
    return st.one_of(st.none(), known, known, near, ODD)


def records() -> st.SearchStrategy[dict[str, Any]]:
    """Records that are right or wrong in ways that both files can express."""
    releases = st.sampled_from([NEW, NEW, OLD, TWIN, {"releaseId": "latest", "sha": NEW["sha"]}])
    return st.fixed_dictionaries({
        "schema": st.sampled_from([1, 1, 1, 1, 1, 2]),
        "fleet": st.one_of(st.just("demo"), st.text("ab0-Z", max_size=34)),
        "generation": st.one_of(st.integers(1, 9), st.sampled_from([0, -1, 10**15, 10**15 + 1, 10**16, 10**30])),
        "phase": st.sampled_from(["settled", "rolling", "rolling", "done"]),
        "target": releases,
        "allowed": st.one_of(st.just([NEW]), st.lists(releases, max_size=4)),
    })


words = st.sampled_from([os.fsencode(word) for word in WORDS])
edges = st.binary(max_size=3).map(lambda value: value.replace(b"\0", b""))
arguments = st.lists(st.one_of(words, ODD, st.builds(lambda a, word, b: a + word + b, edges, words, edges)), max_size=4)
environments = st.fixed_dictionaries({
    "NODE_ENV": st.sampled_from([b"production", b"production", b"development", b"production\n", None]),
    "WORKER_ENV": st.sampled_from([b"production", b"test", None, None]),
    "GIT_SHA": shas(), "EXPECTED_GIT_SHA": shas(), "WORKER_TYPE": st.one_of(st.none(), ODD),
    "NODE_OPTIONS": st.one_of(st.none(), st.sampled_from([b"--import tsx", b""]), ODD),
})


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    yield from open_workshop()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    environment=environments, command=arguments, image=st.one_of(st.none(), edited(FIXTURES["imageFiles"]["new"])),
    record=st.one_of(st.none(), records()), shell=st.sampled_from(SHELLS), python=st.sampled_from(PYTHONS))
def test_both_guards_say_the_same(
    shop: Workshop, environment: dict[str, Optional[bytes]], command: list[bytes], image: Optional[bytes],
    record: Optional[dict[str, Any]], shell: Any, python: Any,
) -> None:
    files = _files(shop.place(), image, record)
    variables = {os.fsencode(name): value for name, value in environment.items() if value is not None}
    variables[b"LC_ALL"] = b"C"  # bash counts characters, where the others count bytes
    told = {}
    for guard in (python, shell):
        asked = guard_command(guard, shop.guards, files, ["--check"])
        outcome = run([*map(os.fsencode, asked), b"node", *command], variables)
        told[guard.name] = (outcome.status, outcome.stdout, outcome.stderr.replace("/guard.env", "/guard.json"))
        assert outcome.status in (0, 1)
    assert told[python.name] == told[shell.name]


def _files(place: Path, image: Optional[bytes], record: Optional[dict[str, Any]]) -> Files:
    if image is not None:
        (place / "image.json").write_bytes(image)
    if record is not None:
        (place / "guard.json").write_text(render_json(record), encoding="utf-8")
        (place / "guard.env").write_text(render_env(record), encoding="utf-8")
    return Files(place / "image.json", place if record is not None else None)
