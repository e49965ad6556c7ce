# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Redis that would drop jobs when it starts again is refused before a deploy begins; the remedy keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from support.modules import ModuleRun, run_module
from support.redis_server import RedisServer

FULL = ("allkeys", "allchannels", "+@all")


class Boss(RedisServer):
    """A server that is asked in the name of a user of its own, as one whose default user is off has to be."""

    def client(self, **arguments: Any) -> Any:
        return super().client(**{"username": "boss", **arguments})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    running = Boss(tmp_path, keeps_users=True)
    (tmp_path / "users.acl").write_text(f"user boss on >{running.password} ~* &* +@all\n", encoding="utf-8")
    running.start()
    try:
        yield running
    finally:
        running.kill()


def rules(server: RedisServer, user: str, *words: str) -> None:
    """Change a user, and save it."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", user, *words)
        client.execute_command("ACL", "SAVE")


def lock(server: RedisServer, state: str = "held", user: str = "boss") -> ModuleRun:
    url = server.bare_url.replace("://", f"://{user}@")
    return run_module("worker_lock", fleet="demo", state=state, redis_url=url, redis_password=server.password)


def kept(server: RedisServer) -> list[str]:
    """What is there after a restart, of two writes in one go and one by itself."""
    with server.client() as client, client.pipeline(transaction=True) as both:
        both.set("one", "1").set("two", "2").execute()
        client.set("three", "3")
    server.restart()
    with server.client() as client:
        return sorted(str(key) for key in client.keys("*") if "demo" not in str(key))


@pytest.mark.parametrize("words", [("reset",), ("off", "resetkeys"), ("-@all", "+ping")], ids=" ".join)
def test_refused_before_anything_begins(server: RedisServer, words: tuple[str, ...]) -> None:
    rules(server, "default", *words)
    failed = lock(server).must_fail("user default", "leave to write everything", "ACL SETUSER default")
    assert server.password not in str(failed)
    with server.client() as client:
        assert client.keys("*") == []
    lock(server, "read").must_pass()


def test_the_remedy_keeps_what_the_server_held(server: RedisServer) -> None:
    rules(server, "default", "reset", *FULL)
    lock(server).must_pass()
    assert kept(server) == ["one", "three", "two"]


def test_without_the_remedy_the_server_would_have_dropped_it(server: RedisServer) -> None:
    rules(server, "default", "reset")
    with server.client() as client:
        version = tuple(int(part) for part in client.info("server")["redis_version"].split(".")[:2])
    if version >= (8, 2):
        pytest.skip("this Redis may read all of its file in anybody's name")
    assert kept(server) == ["three"]


def test_one_that_may_not_ask_is_no_reason_to_refuse(server: RedisServer) -> None:
    rules(server, "guest", "on", f">{server.password}", *FULL, "-acl")
    rules(server, "default", "reset")
    lock(server, user="guest").must_pass()


def test_without_the_file_there_is_nothing_to_read(server: RedisServer) -> None:
    rules(server, "default", "reset")
    with server.client() as client:
        client.config_set("appendonly", "no")
    lock(server).must_pass()
