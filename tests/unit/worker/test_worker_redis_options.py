# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection options: everything in the URL counts, nothing secret gets out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftguard_worker import redis_options
from driftguard_worker.redis_options import RedisOptions
from driftguard_worker.settings import Settings, SettingsError

SECRET = "hunter2-hunter2"


def options(url: str, **more: Any) -> RedisOptions:
    return redis_options.from_settings(Settings(WORKER_TYPE="ocr", WORKER_FLEET="demo", REDIS_URL=url, **more))


def problem(url: str, **more: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        options(url, **more)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_host_port_user_password_database() -> None:
    found = options(f"redis://alice:{SECRET}@redis.example:6380/3")
    assert found.arguments == {
        "host": "redis.example",
        "port": 6380,
        "username": "alice",
        "password": SECRET,
        "db": 3,
    }
    assert found.where == "redis://redis.example:6380/3"


def test_escaped_characters_are_restored() -> None:
    found = options("redis://:p%40ss%2Fw%3Ard%25@redis")
    assert found.arguments["password"] == "p@ss/w:rd%"


def test_query_counts() -> None:
    found = options("rediss://redis?db=4&ssl_cert_reqs=none&socket_keepalive=true&health_check_interval=7")
    assert (found.arguments["db"], found.arguments["ssl_cert_reqs"]) == (4, "none")
    assert (found.arguments["socket_keepalive"], found.arguments["health_check_interval"]) == (True, 7)


def test_tls_verifies_unless_told_otherwise() -> None:
    pool: Any = options("rediss://redis").client().connection_pool
    connection = pool.make_connection()
    assert connection.ssl_context.check_hostname is True
    assert connection.ssl_context.cert_reqs.name == "CERT_REQUIRED"


def test_unix_socket() -> None:
    found = options(f"unix://alice:{SECRET}@/run/redis.sock?db=2")
    assert found.arguments == {
        "unix_socket_path": "/run/redis.sock",
        "username": "alice",
        "password": SECRET,
        "db": 2,
    }
    assert found.where == "unix:///run/redis.sock database 2"


def test_password_file_wins_over_the_url(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("from the file \n", encoding="utf-8")
    assert options("redis://:from-url@redis", REDIS_PASSWORD_FILE=path).arguments["password"] == "from the file "


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_line_end_is_no_part_of_the_password(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(f"{SECRET}{ending}".encode())
    assert options("redis://redis", REDIS_PASSWORD_FILE=path).arguments["password"] == SECRET


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "empty"), (b"\n", "empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 4097, "more than 4096 characters")],
)
def test_unusable_password_file(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    text = problem("redis://redis", REDIS_PASSWORD_FILE=path)
    assert text.startswith("REDIS_PASSWORD_FILE: ")
    assert found in text
    assert str(path) in text


@pytest.mark.parametrize("variable", ["REDIS_PASSWORD_FILE", "REDIS_CA_FILE"])
@pytest.mark.parametrize(("name", "found"), [("none", "No such file"), ("", "directory")])
def test_unreadable_files(tmp_path: Path, variable: str, name: str, found: str) -> None:
    text = problem("rediss://redis", **{variable: tmp_path / name})
    assert text.startswith(f"{variable}: ")
    assert found in text


def test_authority_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate", encoding="utf-8")
    assert "no certificate in it" in problem("rediss://redis", REDIS_CA_FILE=path)


def test_authority_without_tls(tmp_path: Path) -> None:
    assert "use rediss:// in REDIS_URL" in problem("redis://redis", REDIS_CA_FILE=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://redis",
        "redis",
        f"redis://user:{SECRET}/{SECRET}@redis:6379",
        f"redis://:{SECRET}?x@redis",
        f"redis://:{SECRET}@",
        "redis://redis:port",
        "redis://redis:99999",
        "redis://redis/zero",
        "redis://redis/0/1",
        "redis://redis?db=zero",
        "redis://redis?decode_responses=true",
        "redis://redis?connection_class=x",
        "rediss://redis?ssl_cert_reqs=perhaps",
        "redis://[::1",
        "redis://\udcff",
    ],
)
def test_url_that_is_not_understood_in_full_is_refused(url: str) -> None:
    text = problem(url)
    assert text.startswith("REDIS_URL: expected ")
    assert "; remedy: " in text


def test_bullmq_gets_no_option_that_it_sets_itself() -> None:
    set_by_bullmq = {"decode_responses", "retry", "retry_on_error", "single_connection_client"}
    assert not set_by_bullmq & set(options("redis://u:p@redis:1/1?socket_keepalive=true").arguments)


def test_each_user_gets_a_connection_of_its_own() -> None:
    found = options("redis://redis")
    assert found.client().connection_pool is not found.client().connection_pool


def test_password_is_not_in_the_representation() -> None:
    found = options(f"redis://:{SECRET}@redis")
    assert SECRET not in repr(found)
    assert found.secrets == (SECRET,)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@settings(deadline=None)
@given(user=TEXT, password=TEXT, port=st.integers(1, 65535), database=st.integers(0, 15))
def test_whatever_is_escaped_comes_back(user: str, password: str, port: int, database: int) -> None:
    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@redis:{port}/{database}"
    found = options(url).arguments
    assert found == {"host": "redis", "port": port, "username": user, "password": password, "db": database}


@settings(deadline=None)
@given(st.text(max_size=80))
def test_no_url_escapes_as_another_error(rest: str) -> None:
    for url in (rest, f"redis://{rest}", f"unix://{rest}", f"redis://h?{rest}"):
        with suppress(SettingsError):
            options(url)
