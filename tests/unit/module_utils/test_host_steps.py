# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules' work in one call: in order, up to the first that fails, each as its own module would."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.host_steps import run_steps
from ansible_collections.driftguard.workers.plugins.module_utils.module_base import FailedResult, Result, Work

SPEC = {
    "number": {"type": "int", "default": 1}, "word": {"type": "str"}, "other": {"type": "str"},
    "password": {"type": "str", "no_log": True}}


class Fake:
    """What run_steps uses of AnsibleModule, and what the steps' works saw."""

    def __init__(self, *steps: dict[str, Any], check: bool = False, diff: bool = False) -> None:
        blank: dict[str, Any] = {
            "options": {}, "take": {}, "looks": False, "unless_changed": False, "only_if": "", "unless": "",
            "may_fail": False}
        self.params: dict[str, Any] = {
            "steps": [{**blank, "name": step["module"], **step} for step in steps], "attendance": None,
            "heartbeat": 20.0}
        self.check_mode, self._diff = check, diff
        self.no_log_values: set[str] = set()
        self.seen: list[tuple[str, dict[str, Any], bool]] = []
        self.warnings: list[str] = []
        self.warn = self.warnings.append
        self.takes_long: Callable[[], Result] = lambda: Result(True, {})

    def run(self) -> Result:
        """Run the steps."""
        works = {
            "stopped": self._work("stopped", self._stopped),
            "long": self._work("long", lambda _part: self.takes_long()),
            "good": self._work("good", lambda _part: Result(False, {"revision": 7, "none": None})),
            "deep": self._work("deep", lambda _part: Result(False, {"release": {"sha": "abc"}, "kept": True})),
            "changes": self._work("changes", lambda _part: Result(True, {}, "old\n", "new\n", "a file")),
            "bad": self._work("bad", self._bad), "half": self._work("half", self._half)}
        return run_steps(self, works)

    def _work(self, name: str, action: Any) -> Work:
        def work(part: Any) -> Result:
            self.seen.append((name, part.params, part.check_mode))
            result: Result = action(part)
            return result

        return Work(SPEC, work, {"required_together": [("word", "other")]})

    def _stopped(self, _part: Any) -> Result:
        (Path(self.params["attendance"]) / "stop").touch()
        return Result(True, {})

    @staticmethod
    def _bad(_part: Any) -> Result:
        raise DriftguardError("a thing", "this", "that", "mend it")

    @staticmethod
    def _half(part: Any) -> Result:
        part.warn("half done")
        raise FailedResult(DriftguardError("a thing", "all", "half", "mend it"), {"steps": ["one"]}, changed=True)


def test_in_order_each_with_its_options_and_its_result() -> None:
    fake = Fake({"module": "good", "options": {"number": "5"}}, {"module": "changes"})
    result = fake.run()
    plain = {"word": None, "other": None, "password": None}
    assert fake.seen == [("good", {"number": 5, **plain}, False), ("changes", {"number": 1, **plain}, False)]
    assert result.changed
    assert result.values == {
        "by_step": {"good": {"changed": False, "revision": 7, "none": None}, "changes": {"changed": True}}}


def test_what_an_earlier_step_returned_is_taken() -> None:
    fake = Fake(
        {"module": "good", "name": "first"},
        {"module": "good", "take": {"number": "first.revision", "password": "first.none", "word": "first.not_there"}})
    fake.run()
    assert [options["number"] for _name, options, _check in fake.seen] == [1, 7]
    assert (fake.seen[1][1]["password"], fake.seen[1][1]["word"]) == (None, None)


def test_a_part_of_what_was_returned_is_taken() -> None:
    fake = Fake(
        {"module": "deep"},
        {"module": "good", "take": {"word": "deep.release.sha", "other": "deep.release.sha"}},
        {"module": "good", "name": "none", "take": {"word": "deep.release.none", "other": "deep.kept.none"}})
    fake.run()
    assert [options["word"] for _name, options, _check in fake.seen[1:]] == ["abc", None]


@pytest.mark.parametrize(("asked", "done"), [
    ("deep.kept", True), ("deep.release.sha", True), ("deep.none", False), ("first.none", False),
    ("left.revision", False)])
def test_a_step_is_left_out_unless_another_said_so(asked: str, done: bool) -> None:
    fake = Fake(
        {"module": "good", "name": "first"}, {"module": "deep"},
        {"module": "good", "name": "left", "only_if": "first.none"}, {"module": "changes", "only_if": asked})
    result = fake.run()
    assert [name for name, _options, _check in fake.seen] == ["good", "deep", *(["changes"] if done else [])]
    assert (result.changed, "left" in result.values["by_step"]) == (done, False)


@pytest.mark.parametrize(("asked", "done"), [
    ("deep.kept", False), ("deep.release.sha", False), ("deep.none", True), ("left.revision", True)])
def test_a_step_is_left_out_if_another_said_so(asked: str, done: bool) -> None:
    fake = Fake(
        {"module": "deep"}, {"module": "good", "name": "left", "unless": "deep.kept"},
        {"module": "changes", "unless": asked})
    assert fake.run().changed == done
    assert [name for name, _options, _check in fake.seen] == ["deep", *(["changes"] if done else [])]


@pytest.mark.parametrize(("before", "done"), [("good", True), ("changes", False)])
def test_a_step_is_left_out_once_something_would_change(before: str, done: bool) -> None:
    fake = Fake(
        {"module": before, "name": "first", "looks": True}, {"module": "deep", "unless_changed": True},
        {"module": "good", "only_if": "deep.kept"})
    fake.run()
    assert [name for name, _options, _check in fake.seen] == [before, *(["deep", "good"] if done else [])]


def test_one_that_is_null_counts_as_not_given() -> None:
    fake = Fake({"module": "good", "options": {"number": None, "word": None}})
    fake.run()
    assert fake.seen[0][1]["number"] == 1


@pytest.mark.parametrize("may_fail", [False, True])
def test_one_that_is_stopped_in_a_step_begins_no_other(tmp_path: Path, may_fail: bool) -> None:
    fake = Fake({"module": "stopped"}, {"module": "good", "may_fail": may_fail}, {"module": "changes"})
    fake.params["attendance"] = str(tmp_path)
    with pytest.raises(DriftguardError, match="interrupted"):
        fake.run()
    assert [name for name, _options, _check in fake.seen] == ["stopped"]


def test_a_beat_that_ended_early_in_a_long_step_is_no_news_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, looks = [1000.0], threading.Semaphore(0)
    # Those of other tests look on, at other directories: nobody ends them.
    others, sleep = threading.enumerate(), time.sleep

    def sleeps(seconds: float) -> None:
        if threading.current_thread() in others:
            sleep(seconds)
        else:
            looks.release()

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleeps)

    def takes_long() -> Result:
        (tmp_path / "beat").write_text("2\n")
        while looks.acquire(blocking=False):
            pass
        for _ in range(2):
            assert looks.acquire(timeout=10)
        now[0] += 21
        return Result(True, {})

    fake = Fake({"module": "long"}, {"module": "changes"})
    fake.params["attendance"], fake.takes_long = str(tmp_path), takes_long
    with pytest.raises(DriftguardError, match="nothing heard of it for 20 s"):
        fake.run()
    assert [name for name, _options, _check in fake.seen] == ["long"]


@pytest.mark.parametrize(("module", "changed", "values"), [("bad", False, {}), ("half", True, {"steps": ["one"]})])
def test_the_first_failure_ends_it_and_says_what_was_done(module: str, changed: bool, values: dict[str, Any]) -> None:
    fake = Fake({"module": "good"}, {"module": module}, {"module": "changes"})
    with pytest.raises(FailedResult) as caught:
        fake.run()
    assert [name for name, _options, _check in fake.seen] == ["good", module]
    assert (caught.value.subject, caught.value.remedy, caught.value.changed) == ("a thing", "mend it", changed)
    assert caught.value.values["failed_step"] == module
    told = caught.value.values["by_step"]
    assert list(told) == ["good", module]
    assert told[module] == {"failed": True, "changed": changed, **values, **caught.value.as_result()}
    assert fake.warnings == (["half done"] if module == "half" else [])


def test_a_step_that_may_fail_ends_nothing() -> None:
    fake = Fake({"module": "half", "may_fail": True}, {"module": "good", "only_if": "half.kept"}, {"module": "deep"})
    result = fake.run()
    assert [name for name, _options, _check in fake.seen] == ["half", "deep"]
    assert (result.changed, result.values["by_step"]["half"]["failed"]) == (True, True)
    assert "failed_step" not in result.values


def test_what_changed_before_a_failure_counts() -> None:
    with pytest.raises(FailedResult) as caught:
        Fake({"module": "changes"}, {"module": "bad"}).run()
    assert caught.value.changed


@pytest.mark.parametrize("bad", [
    {"options": {"number": "many"}}, {"options": {"nobody": 1}}, {"options": {"word": "alone"}},
    {"take": {"number": "later.revision"}}, {"take": {"number": "first"}}, {"take": {"number": "first."}},
    {"name": "first"}, {"unless": "later.kept"}, {"unless": "first"}, {"only_if": "later.kept"}, {"only_if": "first"},
    {"only_if": "first."},
])
def test_bad_options_cost_nothing(bad: dict[str, Any]) -> None:
    fake = Fake({"module": "changes", "name": "first"}, {"module": "good", **bad})
    with pytest.raises(DriftguardError, match=r"step (good|first)"):
        fake.run()
    assert fake.seen == []


def test_secrets_are_known_before_anything_is_said() -> None:
    fake = Fake({"module": "good", "options": {"password": "s3cret-one"}}, {"module": "good"})
    with pytest.raises(DriftguardError, match="two steps of that name"):
        fake.run()
    assert "s3cret-one" in fake.no_log_values


@pytest.mark.parametrize(("check", "looks", "seen"), [
    (False, False, False), (False, True, True), (True, False, True), (True, True, True)])
def test_a_step_may_only_look_and_none_does_more_than_the_run(check: bool, looks: bool, seen: bool) -> None:
    fake = Fake({"module": "good", "looks": looks}, check=check)
    fake.run()
    assert fake.seen[0][2] is seen


def test_differences_are_shown_together_but_for_those_that_only_look() -> None:
    steps = (
        {"module": "changes"}, {"module": "changes", "name": "again"},
        {"module": "changes", "name": "look", "looks": True})
    one = {"before": "old\n", "after": "new\n", "before_header": "a file", "after_header": "a file"}
    assert Fake(*steps, diff=True).run().values["diff"] == [one, one]
    assert "diff" not in Fake(*steps).run().values
    with pytest.raises(FailedResult) as caught:
        Fake({"module": "changes"}, {"module": "bad"}, diff=True).run()
    assert caught.value.values["diff"] == [one]
