# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a connection to Redis is made, as redis-py takes it, of an address and a module's options."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from .errors import DriftguardError
from .host_files import read_text
from .redis_url import RedisAddress
from .untrusted import check_seconds

LEAST_TIMEOUT = 0.01


def client_options(
    address: RedisAddress, password: Optional[str], ca_file: Optional[str], timeout: float,
) -> dict[str, Any]:
    """What redis-py's connections are made with, but for their class.

    :param password: wins over the address's.
    :param ca_file: CA bundle that signed the server's certificate; the system's own by default.
    :param timeout: seconds to wait for the connection and for each answer.
    :raises DriftguardError: options that can't be right together, or no CA bundle there.
    """
    check_seconds("redis_timeout", timeout, LEAST_TIMEOUT)
    options = {
        "host": address.host, "port": address.port, "db": address.database, "username": address.username,
        "password": password or address.password, "socket_timeout": timeout, "socket_connect_timeout": timeout,
    }
    if ca_file:
        _check_ca_file(address, ca_file)
    # redis-py 4 doesn't check the certificate's name unless told to.
    return {**options, "ssl_ca_certs": ca_file, "ssl_check_hostname": True} if address.tls else options


def _check_ca_file(address: RedisAddress, ca_file: str) -> None:
    if not address.tls:
        raise DriftguardError(
            "option redis_url", "rediss://, since redis_ca_file is given", "redis://, without TLS",
            "write rediss://, or drop redis_ca_file")
    if not read_text(Path(ca_file)):
        raise DriftguardError(
            "option redis_ca_file", "CA certificates on the machine where this module runs", f"nothing at {ca_file}",
            "put the file there, or mend the path")
