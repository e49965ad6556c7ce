# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Redis URL is honoured in all its parts, and nothing of one is repeated in a failure."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from ansible_collections.driftguard.workers.plugins.module_utils.errors import DriftguardError
from ansible_collections.driftguard.workers.plugins.module_utils.redis_url import (
    RedisAddress,
    parse_redis_url,
    passwords_in,
)
from hypothesis import given
from hypothesis import strategies as st

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "address", "place"),
    [
        ("redis://r", RedisAddress("r", 6379, 0, None, None, False), "r:6379/0"),
        ("redis://r:6380/3", RedisAddress("r", 6380, 3, None, None, False), "r:6380/3"),
        ("redis://r/?db=5", RedisAddress("r", 6379, 5, None, None, False), "r:6379/5"),
        ("redis://r?family=0", RedisAddress("r", 6379, 0, None, None, False), "r:6379/0"),
        ("rediss://u:p@r:1/2", RedisAddress("r", 1, 2, "u", "p", True), "r:1/2"),
        ("redis://:p%2Fw%40@r", RedisAddress("r", 6379, 0, None, "p/w@", False), "r:6379/0"),
        ("redis://u%3A@r", RedisAddress("r", 6379, 0, "u:", None, False), "r:6379/0"),
        ("redis://[::1]:7/1", RedisAddress("::1", 7, 1, None, None, False), "[::1]:7/1"),
    ],
)
def test_parts(url: str, address: RedisAddress, place: str) -> None:
    assert parse_redis_url(url) == address
    assert address.place == place


@pytest.mark.parametrize(
    "url",
    [
        "",
        SECRET,
        "r:6379",
        "http://r",
        "redis://",
        "redis:///0",
        "redis://:6379",
        f"redis://:{SECRET}/x@r:1",
        f"redis://u:{SECRET}#x@r",
        "redis://r:99999",
        "redis://r:x",
        f"redis://r:{SECRET}",
        "redis://r/x",
        "redis://r/1/2",
        "redis://r/-1",
        "redis://r/٣",
        "redis://r/0?password=" + SECRET,
        "redis://r/?db=x",
        "redis://[::1",
        f"redis://r {SECRET}",
        "unix:///run/redis.sock",
        "redis://r\n",
        "redis://r/0#" + SECRET,
        "redis://r/123456",
    ],
)
def test_anything_else_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(DriftguardError) as caught:
        parse_redis_url(url)
    assert SECRET not in str(caught.value)


@given(st.text(), st.text())
def test_any_text_is_an_address_or_refused_without_repeating_it(before: str, after: str) -> None:
    said = ""
    try:
        parse_redis_url(f"redis://{before}{SECRET}{after}")
    except DriftguardError as error:
        said = str(error)
    assert SECRET not in said


@given(st.text(min_size=1))
def test_the_password_in_a_url_is_found_for_hiding(password: str) -> None:
    written = quote(password, safe="")
    assert passwords_in(f"redis://user:{written}@r:1/0") == {written, password}


def test_a_url_without_password_hides_nothing() -> None:
    assert passwords_in("redis://r:6379/0") == set()
    assert passwords_in("redis://user@r:6379/0") == set()
