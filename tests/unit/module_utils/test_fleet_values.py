# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as people write them, and as YAML 1.1 hands them over: read exactly, or refused with what was expected."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import fleet_values as values
from ansible_collections.driftguard.workers.plugins.module_utils.fleet_values import Unfit
from ansible_collections.driftguard.workers.plugins.module_utils.names import SERVICE_PATTERN
from hypothesis import given
from hypothesis import strategies as st

MEBI = 1024**2
HUGE = pytest.param(10**5000, id="a number too long for str()")
NEVER_A_NUMBER: list[Any] = [
    None, True, False, "", " ", "-1", "+1", "0x10", "0o17", "1e3", "1_000", "٣", "\N{FULLWIDTH DIGIT ONE}", "½", "NaN",
    "inf", float("nan"), float("inf"), 10**400, HUGE, -5, "9" * 5000, [], [1], {}, b"1", "1\n2", "1;2", "${X}", "1 2",
]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=5)


@pytest.mark.parametrize(("written", "size"), [
    ("512M", 512 * MEBI), ("512m", 512 * MEBI), ("512MB", 512 * MEBI), ("512MiB", 512 * MEBI), ("512Mi", 512 * MEBI),
    (" 512 M ", 512 * MEBI), ("2G", 2048 * MEBI), ("1.5g", 1536 * MEBI), ("6144k", 6 * MEBI), ("6291456", 6 * MEBI),
    (6291456, 6 * MEBI), ("6291457b", 6 * MEBI + 1), ("6M", 6 * MEBI), ("1048576G", 2**50), (2**50, 2**50),
])
def test_sizes(written: Any, size: int) -> None:
    assert values.size(written) == size


@pytest.mark.parametrize("written", [
    *NEVER_A_NUMBER, "5M", 6291455, 2**50 + 1, "1048577G", "1T", "M", "0.5", 1.5, "1.5.5g", "1,5g", "512 M B", "512\nM",
    "5\N{KELVIN SIGN}", "512 \N{CYRILLIC CAPITAL LETTER EM}",
])
def test_what_is_no_size(written: Any) -> None:
    with pytest.raises(Unfit, match="a size"):
        values.size(written)


@given(st.integers(min_value=6 * MEBI, max_value=2**50))
def test_a_size_survives_being_written(size: int) -> None:
    assert values.size(values.size_text(size)) == size


def test_a_size_is_written_short() -> None:
    assert [values.size_text(size) for size in (2**30, 3 * 2**29, 2**23 + 1024, 2**23 + 1)] == [
        "1g", "1536m", "8193k", "8388609b"]


@pytest.mark.parametrize(("written", "seconds"), [
    ("90", 90), (90, 90), ("90s", 90), ("1m30s", 90), ("1h", 3600), ("1h1m1s", 3661), (" 5s ", 5), (0, 0), ("0s", 0),
    ("24h", 86400), (86400, 86400), ("2m", 120), (80, 80),
])
def test_durations(written: Any, seconds: int) -> None:
    assert values.duration(written) == seconds


@pytest.mark.parametrize("written", [
    *NEVER_A_NUMBER, "s", "1m30", "30s1m", "1.5s", 1.5, "1:20", "1 h", "500ms", "1d", "24h1s", 86401, "9" * 11, "1H",
])
def test_what_is_no_duration(written: Any) -> None:
    with pytest.raises(Unfit, match="a duration"):
        values.duration(written)


@pytest.mark.parametrize("written", [0, "0", "0s", "0h0m0s"])
def test_a_positive_duration_is_not_zero(written: Any) -> None:
    assert values.positive_duration("1s") == 1
    with pytest.raises(Unfit, match="at least 1s"):
        values.positive_duration(written)


@pytest.mark.parametrize("written", [1, "1", " 7 ", "100", 100, "007"])
def test_whole_numbers_within_their_bounds(written: Any) -> None:
    assert values.whole(1, 100)(written) == int(written)


@pytest.mark.parametrize("written", [*NEVER_A_NUMBER, 0, 101, "101", 1.0, "1.0", 2.5, "2,5"])
def test_what_is_no_whole_number(written: Any) -> None:
    with pytest.raises(Unfit, match="a whole number from 1 to 100"):
        values.whole(1, 100)(written)


@pytest.mark.parametrize(("written", "number"), [
    ("0.5", 0.5), (0.5, 0.5), (2, 2.0), ("2", 2.0), (0.01, 0.01), (1024, 1024.0), (" 1.25 ", 1.25), (0.12345, 0.123),
])
def test_cpus(written: Any, number: float) -> None:
    assert values.cpus(written) == number


@pytest.mark.parametrize("written", [*NEVER_A_NUMBER, 0, 0.009, 1024.5, 1025, 1e300, 1e-9, "1e2", ".5", "0,5", "500m"])
def test_what_is_no_number_of_cpus(written: Any) -> None:
    with pytest.raises(Unfit, match="a number of CPUs"):
        values.cpus(written)


@pytest.mark.parametrize(("written", "truth"), [
    (True, True), (False, False), ("true", True), ("Yes", True), ("FALSE", False), ("no", False)])
def test_booleans(written: Any, truth: bool) -> None:
    assert values.boolean(written) is truth


@pytest.mark.parametrize("written", [None, 1, 0, "on", "off", "1", "", " true", [], {}, 1.0])
def test_what_is_no_boolean(written: Any) -> None:
    with pytest.raises(Unfit, match="true or false"):
        values.boolean(written)


@pytest.mark.parametrize(("written", "text"), [
    ("x", "x"), ("", ""), (5, "5"), (1.5, "1.5"), (True, "true"), (False, "false"), ("  two\nlines ", "  two\nlines "),
    ("čćž 😀", "čćž 😀"), ("x" * values.MAX_TEXT, "x" * values.MAX_TEXT), ("~", "~"), (0o17, "15"),
])
def test_texts_are_kept_to_the_byte(written: Any, text: str) -> None:
    assert values.text(written) == text


@pytest.mark.parametrize("written", [
    None, [], {}, b"x", "a\0b", "\ud800", HUGE, "x" * (values.MAX_TEXT + 1), "č" * (values.MAX_TEXT // 2 + 1)])
def test_what_no_process_can_be_given(written: Any) -> None:
    with pytest.raises(Unfit, match="text"):
        values.text(written)


def test_a_subclass_of_text_becomes_plain_text() -> None:
    class Tagged(str):
        """As Ansible hands templated values to filters."""

        __slots__ = ()

    assert type(values.text(Tagged("x"))) is str
    assert type(values.name_like(SERVICE_PATTERN)(Tagged("x"))) is str
    assert [type(name) for name in values.environment({Tagged("A"): Tagged("x")})] == [str]


@pytest.mark.parametrize("written", ["python worker.py", "", [], [""], ["  "], [None], {"a": 1}, None, 5, ["a", ["b"]]])
def test_what_is_no_command(written: Any) -> None:
    with pytest.raises(Unfit, match=r"list|text"):
        values.command(written)


def test_a_command_keeps_its_arguments() -> None:
    assert values.command(["sh", "-c", "exec $X\n", 5, True, ""]) == ("sh", "-c", "exec $X\n", "5", "true", "")


@pytest.mark.parametrize("written", [
    None, [], "A=b", ["A=b"], {"A B": "x"}, {"1A": "x"}, {"": "x"}, {"A=B": "x"}, {"Č": "x"}, {"A\n": "x"}, {5: "x"},
    {True: "x"}, {"A": None}, {"A": ["x"]}, {"A" * 129: "x"}, {"x" * 10**6: "x"},
])
def test_what_is_no_environment(written: Any) -> None:
    with pytest.raises(Unfit) as error:
        values.environment(written)
    assert len(str(error.value)) < 300


def test_an_environment_is_text() -> None:
    assert values.environment({"A": 1, "B_2": True, "_": "${X}"}) == {"A": "1", "B_2": "true", "_": "${X}"}


@given(ANYTHING)
def test_every_reader_reads_or_says_what_it_expected(value: Any) -> None:
    assert len(values.shown(value)) < 200
    for reader in (
        values.size, values.duration, values.positive_duration, values.whole(1, 9), values.cpus, values.boolean,
        values.text, values.texts, values.command, values.environment, values.name_like(SERVICE_PATTERN),
    ):
        with suppress(Unfit):
            reader(value)


@pytest.mark.parametrize(("value", "text"), [
    ({"DB_PASSWORD": "s3cret"}, "a dictionary of 1"), (["s3cret"], "a list of 1"), (("s3cret",), "a list of 1"),
    ("it's", '"it\'s"'), ("a\x1b[31m\nb", "'a\\x1b[31m\\nb'"), (None, "None"), (True, "True"),
    (10**70, "a number of more than 60 digits"),
])
def test_a_message_shows_no_content_and_no_control_characters(value: Any, text: str) -> None:
    assert values.shown(value) == text
