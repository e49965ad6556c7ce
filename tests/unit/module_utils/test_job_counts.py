# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What workers' metrics say of their jobs: read from any answer, however hostile, within bounds of time and length."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import Callable, Iterator

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils import metrics_gateway
from ansible_collections.driftguard.workers.plugins.module_utils.job_counts import Counts, Tally, read_counts, unjudged
from ansible_collections.driftguard.workers.plugins.module_utils.metrics_gateway import MAX_ANSWER, fetch, fetch_all
from hypothesis import given
from hypothesis import strategies as st

NAME = "driftguard_worker_jobs_total"
OK = b"HTTP/1.1 200 OK\r\n"


def metrics(**outcomes: float) -> str:
    lines = [f'{NAME}{{queue="q",outcome="{outcome}"}} {value}\n' for outcome, value in outcomes.items()]
    return f"# HELP {NAME} Jobs\n# TYPE {NAME} counter\n{''.join(lines)}"


def test_what_ended_well_and_what_failed_is_counted() -> None:
    text = metrics(completed=5.0, failed=2, dead=1.0, lost=7, other=9).replace("}}", "}")
    text += f'{NAME}{{outcome="completed",queue="r"}} 1e+02 1700000000000\n'
    text += 'driftguard_worker_jobs_created{queue="q",outcome="completed"} 1.7e9\n'
    assert read_counts(text) == Counts(105, 3)


@pytest.mark.parametrize("text", [
    "", "up 1\n", f"x{NAME}{{}} 5\n", f"{NAME}_more 5\n", "\0" * 5000, f'{NAME}{{outcome="failed"}} 1e+300\n',
    f'{NAME}{{outcome="failed"}} 1e999\n', f'{NAME}{{outcome="failed"}} 1.2.3\n'])
def test_what_has_no_counts_has_none(text: str) -> None:
    assert read_counts(text) is None


@pytest.mark.parametrize("line", [
    f"{NAME} 5", f'{NAME}{{outcome="failed"}} -5', f'{NAME}{{outcome="failed"}} NaN', f'{NAME}{{outcome="failed"}}',
    f'{NAME}{{queue=",outcome=\\"failed\\""}} 5', f'{NAME}{{queue=",outcome=",outcome="lost"}} 5',
    f'{NAME}{{myoutcome="failed"}} 5', f'{NAME}{{outcome="failed"}} 5 5 5'])
def test_lines_that_say_nothing_of_an_outcome_count_nothing(line: str) -> None:
    assert read_counts(f"# TYPE {NAME} counter\n{line}\n") == Counts()


@given(st.text(max_size=300) | st.lists(st.sampled_from([
    NAME, "{", "}", '"', 'outcome="failed"', "\\", "\n", " ", "1e5", ".", "+", ","])).map("".join))
def test_any_text_is_read(text: str) -> None:
    found = read_counts(text)
    assert found is None or found.jobs >= 0


def test_a_long_answer_is_read_in_little_time() -> None:
    for text in (f"{NAME}{{" * (MAX_ANSWER // 30), f"{NAME}{{" + "}" * MAX_ANSWER, f"{NAME}{{" + ',outcome="' * 90_000):
        begun = time.process_time()
        read_counts(text)
        assert time.process_time() - begun < 20


def test_only_what_came_since_the_first_look_counts_also_over_a_restart() -> None:
    tally = Tally()
    for done, failed in ((100, 50), (110, 50), (3, 1), (5, 1)):
        tally.take("a", metrics(completed=done, failed=failed))
    tally.take("b", metrics())
    tally.take("c", None)
    tally.take("d", "up 1\n")
    assert (tally.sum, tally.silent) == (Counts(15, 1), {"c", "d"})
    tally.take("c", metrics(completed=7))
    tally.take("c", metrics(completed=8))
    assert (tally.sum, tally.silent) == (Counts(16, 1), {"d"})


@pytest.mark.parametrize(("counts", "instances", "most", "why"), [
    (Counts(5, 15), 1, 0.5, ""), (Counts(5, 14), 1, 0.5, "19 jobs ended, fewer than 20"),
    (Counts(), 0, 0.5, "no instance has metrics"), (Counts(90, 90), 1, None, "no rate was asked for")])
def test_why_a_rate_isnt_judged(counts: Counts, instances: int, most: float | None, why: str) -> None:
    assert unjudged(counts, instances, most, 20).startswith(why)
    assert bool(unjudged(counts, instances, most, 20)) == bool(why)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that answers each connection so; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _peer = listener.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(4096)
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])


def got(answer: bytes) -> str | None:
    with answering(lambda connection: connection.sendall(answer)) as port:
        return fetch("127.0.0.1", port, "/metrics", time.monotonic() + 20)


@pytest.mark.parametrize(("answer", "text"), [
    (OK + b"\r\nhello", "hello"), (OK + b"Content-Length: 5\r\n\r\nhello", "hello"),
    (OK + b"content-length:5\r\nX: y\r\n\r\nhello", "hello"), (OK + b"\r\n\xff", "\ufffd"), (OK + b"\r\n", ""),
    (b"HTTP/1.0 200\r\n\r\nx", "x"),
    (b"", None), (b"hello", None), (OK, None), (b"HTTP/1.1 404 Not Found\r\n\r\nhello", None),
    (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\nx", None), (b"HTTP/1.1 2000 OK\r\n\r\nx", None),
    (OK + b"Content-Length: 9\r\n\r\nhello", None), (OK + b"Content-Length: 3\r\n\r\nhello", None),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", None),
    (OK + b"Content-Encoding: gzip\r\n\r\nx", None), (OK + b"\r\n" + b"x" * (MAX_ANSWER + 1), None),
])
def test_only_a_whole_plain_answer_is_one(answer: bytes, text: str | None) -> None:
    assert got(answer) == text


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    sent = []

    def pour(connection: socket.socket) -> None:
        connection.sendall(OK + b"\r\n")
        for _ in range(24):
            connection.sendall(b"x" * MAX_ANSWER)
            sent.append(MAX_ANSWER)

    with answering(pour) as port:
        assert fetch("127.0.0.1", port, "/", time.monotonic() + 60) is None
    assert len(sent) < 20, "what the sockets' buffers hold, and no more"


def test_an_answer_that_drips_ends_in_time_and_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then would keep every single wait short."""
    monkeypatch.setattr(metrics_gateway, "PATIENCE", 1.0)
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(OK)
        while not stop.wait(0.05):
            connection.sendall(b"X")

    with answering(drip) as port:
        asked = {"a": ["127.0.0.1"], "b": ["127.0.0.1"], "c": []}
        assert fetch_all(asked, port, "/") == dict.fromkeys(asked)
        stop.set()


def test_the_first_address_that_answers_counts() -> None:
    with answering(lambda connection: connection.sendall(OK + b"\r\nhello")) as port:
        assert fetch_all({"a": ["127.0.0.2", "127.0.0.1"], "b": ["no address"]}, port, "/") == {"a": "hello", "b": None}


def test_nobody_is_nobody_to_ask() -> None:
    assert fetch_all({}, 1, "/") == {}
