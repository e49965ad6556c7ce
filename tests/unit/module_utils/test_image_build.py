# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds side by side: one failure stops the others, a signal stops all, and no secret is shown."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import image_build
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.image_build import (
    Buildx,
    interruptible,
    masked,
    run_all,
)
from ansible_collections.driftguard.workers.plugins.module_utils.processes import run

LONG = ["sleep", "60"]


def build_error(text: str) -> DriftguardError:
    return DriftguardError("build", "x", text, "y")


class TestRunAll:
    def test_results_by_name(self) -> None:
        assert run_all({"a": lambda: 1, "b": lambda: 2}, True, lambda: None) == {"a": 1, "b": 2}
        assert run_all({"a": lambda: 1, "b": lambda: 2}, False, lambda: None) == {"a": 1, "b": 2}

    def test_they_run_at_the_same_time(self) -> None:
        meet = threading.Barrier(2, timeout=10)
        assert run_all({"a": lambda: bool(meet.wait() + 1), "b": lambda: bool(meet.wait() + 1)}, True, lambda: None)

    def test_one_after_the_other_stays_in_this_thread(self) -> None:
        seen = run_all(dict.fromkeys("ab", threading.get_ident), False, lambda: None)
        assert set(seen.values()) == {threading.get_ident()}

    def test_the_first_failure_is_raised_and_the_others_are_killed(self, tmp_path: Path) -> None:
        started = threading.Event()

        def long() -> int:
            started.set()
            return run(LONG).status

        def fails() -> int:
            started.wait(10)
            raise build_error("mine")

        before = time.monotonic()
        with pytest.raises(DriftguardError, match="mine"):
            run_all({"long": long, "fails": fails}, True, Buildx(tmp_path).halt)
        assert time.monotonic() - before < 10

    def test_a_builder_that_was_halted_starts_nothing_more(self, tmp_path: Path) -> None:
        builder = Buildx(tmp_path)
        builder.halt()
        with pytest.raises(DriftguardError, match="it was stopped"):
            builder.stamp("base", b"", {}, 5)


class TestInterruptible:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    @pytest.mark.parametrize("parallel", [True, False])
    def test_a_signal_ends_all_builds_and_is_an_error(
            self, tmp_path: Path, number: signal.Signals, parallel: bool) -> None:
        seen: list[int] = []

        def long() -> int:
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
            seen.append(run(LONG).status)
            return 0

        before = time.monotonic()
        with pytest.raises(DriftguardError, match=f"{number.name} stopped it"), interruptible():
            run_all({"a": long, "b": lambda: run(LONG).status if parallel else 0}, parallel, Buildx(tmp_path).halt)
        assert time.monotonic() - before < 10
        assert seen == ([-signal.SIGKILL] if parallel else [])

    def test_a_second_signal_does_not_break_into_the_cleaning_up(self) -> None:
        cleaned = []

        def work() -> None:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                cleaned.append(True)

        with pytest.raises(DriftguardError, match="SIGTERM"), interruptible():
            work()
        assert cleaned

    def test_it_is_not_taken_for_an_ordinary_failure_on_the_way(self) -> None:
        def careless() -> None:
            with suppress(Exception):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)

        with pytest.raises(DriftguardError, match="SIGTERM"), interruptible():
            careless()

    def test_handlers_are_put_back_and_what_is_ignored_stays_so(self) -> None:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            own = signal.getsignal(signal.SIGTERM)
            with interruptible():
                assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
                assert signal.getsignal(signal.SIGTERM) is not own
            assert signal.getsignal(signal.SIGTERM) is own
        finally:
            signal.signal(signal.SIGHUP, before)


class TestMasked:
    def test_every_line_of_a_secret_and_what_contains_another_first(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("hunter2\nhunter22\n\nab\n")
        assert masked("got hunter22, hunter2 ab", [str(secret)]) == "got ********, ******** ab"

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"\xff\xfe\ntoken1\n")
        assert masked("token1", [str(secret)]) == "********"

    def test_a_bundle_of_certificates_is_no_password(self, tmp_path: Path) -> None:
        secret = tmp_path / "bundle"
        secret.write_text("-----BEGIN\n" * 10000)
        assert masked("-----BEGIN", [str(secret)]) == "-----BEGIN"


def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriftguardError, match=r"secret token: .*No such file"):
        image_build.check_secrets({"token": str(tmp_path / "nope")})
    with pytest.raises(DriftguardError, match=r"secret token: .*directory"):
        image_build.check_secrets({"token": str(tmp_path)})


class FakeEngine:
    """Tags, and what was removed."""

    def __init__(self, tags: list[str]) -> None:
        self._tags = tags
        self.removed: list[str] = []

    def tags_of(self, _repository: str) -> list[str]:
        return self._tags

    def remove_image(self, tag: str) -> None:
        self.removed.append(tag)


def test_only_old_temporary_tags_are_swept() -> None:
    now = 1_767_323_045.5
    young = [image_build.temporary_tag("demo", "base", now - age) for age in (0, 60, 86_399)]
    old = image_build.temporary_tag("demo", "base", now - 86_402)
    engine = FakeEngine([*young, old, "driftguard.local/build:somebodys"])
    image_build.sweep(engine, now)  # type: ignore[arg-type]
    assert engine.removed == [old]
