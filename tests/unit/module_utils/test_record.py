# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record's state table, row by row and for any sequence; and that nothing that isn't a record is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.record import (
    MAX_ALLOWED,
    ROLLING,
    SETTLED,
    Record,
    ReleaseRef,
    check_generation,
    parse_record,
    release_ref,
    render_compact,
    render_env,
    render_json,
    rolling,
    rolling_again,
    settled,
)
from hypothesis import given
from hypothesis import strategies as st
from support.releases import release

A, B, C, D, X = (release(letter) for letter in "abcde")
RELEASES = [release(letter) for letter in "abcdef0123"]


def record(phase: str, *allowed: ReleaseRef, target: ReleaseRef | None = None, generation: int = 7) -> Record:
    return Record("demo", generation, phase, target or allowed[-1], allowed)


def parse(text: str) -> Record:
    return parse_record(text, "key demo:release", "demo", "mend it")


SETTLED_X = record(SETTLED, X)
ROLLING_AX = record(ROLLING, A, X)
ROLLING_ABX = record(ROLLING, A, B, X)

ROLLS = [
    ("first deploy", None, B, None, (B,)),
    ("record lost, A still runs", None, B, [A], (A, B)),
    ("record lost, B runs already", None, B, [B, A], (B, A)),
    ("settled", SETTLED_X, B, None, (X, B)),
    ("settled, nothing seen of it: hosts out of reach may run it", SETTLED_X, B, [], (X, B)),
    ("settled, a stale worker seen: it is not let back in", SETTLED_X, B, [X, C], (X, B)),
    ("cut off half-way, another target", ROLLING_AX, B, [A, X], (A, X, B)),
    ("cut off half-way, nothing known", ROLLING_AX, B, None, (A, X, B)),
    ("cut off before the first container", ROLLING_AX, B, [A], (A, B)),
    ("cut off after the last container: A may run elsewhere", ROLLING_AX, B, [X], (A, X, B)),
    ("cut off twice, the middle one gone", ROLLING_ABX, C, [A, X], (A, X, C)),
    ("cut off twice, all running", ROLLING_ABX, C, [A, B, X], (A, B, X, C)),
    ("cut off twice, nothing known", ROLLING_ABX, C, None, (A, X, C)),
    ("rollback of a half-done roll", ROLLING_AX, A, [A, X], (A, X)),
    ("rollback before anything moved", ROLLING_AX, A, [A], (A,)),
    ("back to an abandoned one that runs no more", ROLLING_ABX, B, [X], (A, X, B)),
]


@pytest.mark.parametrize(
    ("current", "target", "running", "allowed"), [row[1:] for row in ROLLS], ids=[r[0] for r in ROLLS]
)
def test_roll(
    current: Record | None,
    target: ReleaseRef,
    running: list[ReleaseRef] | None,
    allowed: tuple[ReleaseRef, ...],
) -> None:
    assert rolling(current, "demo", target, 9, running) == Record("demo", 9, ROLLING, target, allowed)


@pytest.mark.parametrize("current", [SETTLED_X, ROLLING_AX, ROLLING_ABX])
@pytest.mark.parametrize("running", [None, [], [A, X]])
def test_roll_to_the_record_s_own_target_changes_nothing(current: Record, running: list[ReleaseRef] | None) -> None:
    assert rolling(current, "demo", X, 9, running) is current


@pytest.mark.parametrize("current", [None, SETTLED_X, ROLLING_AX, record(ROLLING, A, X, target=A)])
def test_a_record_as_it_was_is_written_back(current: Record | None) -> None:
    assert rolling_again(current, "demo", B, [A, B, X], 9) == Record("demo", 9, ROLLING, B, (A, B, X))


def test_one_that_says_so_already_is_left() -> None:
    assert rolling_again(ROLLING_ABX, "demo", X, [A, B, X], 9) is ROLLING_ABX


@pytest.mark.parametrize("allowed", [[], [A, B], [X, X], [X, *[release(f"{number:02x}") for number in range(32)]]])
def test_what_no_record_says_is_not_written(allowed: list[ReleaseRef]) -> None:
    with pytest.raises(DriftguardError, match="option allowed"):
        rolling_again(SETTLED_X, "demo", X, allowed, 9)


@pytest.mark.parametrize("current", [None, SETTLED_X, ROLLING_AX, ROLLING_ABX])
def test_settle_allows_the_target_alone(current: Record | None) -> None:
    assert settled(current, "demo", B, 9) == Record("demo", 9, SETTLED, B, (B,))


def test_settle_what_is_settled_changes_nothing() -> None:
    assert settled(SETTLED_X, "demo", X, 9) is SETTLED_X


steps = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.none() | st.sets(st.integers(0, 9))), max_size=30)


@given(steps)
def test_any_sequence_keeps_what_runs_and_what_was_settled_and_does_not_grow(
    plan: list[tuple[bool, int, set[int] | None]],
) -> None:
    current: Record | None = None
    for generation, (settle, index, seen) in enumerate(plan, start=1):
        target = RELEASES[index]
        running = None if seen is None else {RELEASES[other] for other in seen}
        before = current
        if settle:
            current = settled(before, "demo", target, generation)
            assert current.allowed == (target,)
        else:
            current = rolling(before, "demo", target, generation, running)
            assert current.target == target
            assert target in current.allowed
            if before is not None and before.target != target:
                assert current.allowed[0] == before.allowed[0]
                assert set(current.allowed) <= {*before.allowed, target}
                assert {*before.allowed} & (running or set()) <= {*current.allowed}
                assert len(current.allowed) <= 2 + (1 if running is None else len(running))
        assert parse(render_json(current)) == parse(render_compact(current)) == current


def test_nothing_known_never_piles_up() -> None:
    current = settled(None, "demo", A, 1)
    for generation in range(2, 200):
        current = rolling(current, "demo", RELEASES[generation % 10], generation, None)
        assert len(current.allowed) <= 3


def test_a_lost_record_allows_no_more_than_a_reader_takes() -> None:
    crowd = [release("a", f"{number:x}") for number in range(16)] + [
        release("b", f"{number:x}") for number in range(16)
    ]
    crowd += [release("c", f"{number:x}") for number in range(16)]
    current = rolling(None, "demo", X, 1, crowd)
    assert (len(current.allowed), current.allowed[-1]) == (MAX_ALLOWED, X)
    # What came last is what hosts run; the first is what they could go back to.
    assert (current.allowed[0], current.allowed[-2]) == (crowd[0], crowd[-1])
    assert parse(render_json(current)) == current


def test_guard_json_is_byte_for_byte_this() -> None:
    assert (
        render_json(record(ROLLING, A, B))
        == f'''{{
  "allowed": [
    {{
      "releaseId": "{A.release_id}",
      "sha": "{A.sha}"
    }},
    {{
      "releaseId": "{B.release_id}",
      "sha": "{B.sha}"
    }}
  ],
  "fleet": "demo",
  "generation": 7,
  "phase": "rolling",
  "schema": 1,
  "target": {{
    "releaseId": "{B.release_id}",
    "sha": "{B.sha}"
  }}
}}
'''
    )


def test_guard_env_is_byte_for_byte_this() -> None:
    assert render_env(record(ROLLING, A, B)) == (
        "SCHEMA=1\nFLEET=demo\nGENERATION=7\nPHASE=rolling\n"
        f"TARGET={B.release_id}:{B.sha}\nALLOWED={A.release_id}:{A.sha}\nALLOWED={B.release_id}:{B.sha}\n"
    )


GOOD = record(ROLLING, A, B).as_json()
BAD_VALUES = [
    ("schema", 2),
    ("schema", "1"),
    ("schema", None),
    ("schema", True),
    ("schema", 1.0),
    ("fleet", "other"),
    ("fleet", None),
    ("fleet", ["demo"]),
    ("generation", 0),
    ("generation", -1),
    ("generation", 1.0),
    ("generation", True),
    ("generation", "7"),
    ("generation", 10**15 + 1),
    ("generation", 10**400),
    ("phase", "done"),
    ("phase", None),
    ("phase", ["settled"]),
    ("target", None),
    ("target", "x"),
    ("target", {}),
    ("target", C.as_json()),
    ("allowed", []),
    ("allowed", None),
    ("allowed", {}),
    ("allowed", "ab"),
    ("allowed", [A.as_json(), B.as_json(), A.as_json()]),
    ("allowed", [B.as_json(), 1]),
    ("allowed", [B.as_json()] * 40),
    ("phase", SETTLED),
    ("target", {"releaseId": B.release_id, "sha": A.sha}),
    ("target", {"releaseId": B.release_id + "\n", "sha": B.sha}),
    ("target", {"releaseId": B.release_id, "sha": B.sha.upper()}),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES, ids=[f"{key}-{str(value)[:30]}" for key, value in BAD_VALUES])
def test_no_other_value_passes(key: str, value: Any) -> None:
    with pytest.raises(DriftguardError) as caught:
        parse(json.dumps({**GOOD, key: value}))
    assert caught.value.subject == "key demo:release"
    assert caught.value.remedy == "mend it"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "1",
        '"x"',
        "{",
        "\0",
        "{}" * 2,
        "[" * 100_000,
        '{"a":' * 5000,
        "x" * 70_000,
        '{"generation": 1e999}',
        render_json(record(ROLLING, A, B)).replace('"phase"', '"fleet": "demo", "phase"'),
        '{"generation": ' + "9" * 5000 + "}",
        '{"schema": NaN}',
        '\ud800{"a":1}',
        '{"a":"\\ud800"}',
    ],
)
def test_no_other_text_passes_or_breaks_the_reader(text: str) -> None:
    with pytest.raises(DriftguardError) as caught:
        parse(text)
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values))
def test_a_record_with_any_values_passes_or_is_refused(changes: dict[str, Any]) -> None:
    text = json.dumps({**GOOD, **changes})
    try:
        taken = parse(text)
    except DriftguardError:
        return
    assert taken.target in taken.allowed
    assert taken.generation >= 1


def test_an_unknown_key_is_left_to_later_versions() -> None:
    assert parse(json.dumps({**GOOD, "note": "x"})) == record(ROLLING, A, B)


def test_the_id_of_a_release_begins_with_its_commit() -> None:
    assert release_ref(A.release_id, A.sha) == A
    assert release_ref(A.release_id, B.sha) is None
    assert release_ref(None, A.sha) is None


@pytest.mark.parametrize("generation", [-1, 0, 6, 10**15 + 1])
def test_an_overtaken_or_impossible_number_is_refused(generation: int) -> None:
    with pytest.raises(DriftguardError):
        check_generation("key", generation, 7)


@pytest.mark.parametrize("generation", [7, 8, 10**15])
def test_the_same_or_a_later_number_passes(generation: int) -> None:
    check_generation("key", generation, 7)


def test_allows() -> None:
    assert ROLLING_AX.allows(A.release_id, A.sha)
    assert not ROLLING_AX.allows(A.release_id, B.sha)
    assert not ROLLING_AX.allows(B.release_id, B.sha)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_record_with_a_word_that_only_python_takes_for_a_number_is_refused(word: str) -> None:
    text = render_json(SETTLED_X).rstrip()
    assert text.endswith("}")
    with pytest.raises(DriftguardError, match="mend it"):
        parse(f'{text[:-1].rstrip()}, "later": {word}}}')
    assert parse(f'{text[:-1].rstrip()}, "later": 1}}') == SETTLED_X
