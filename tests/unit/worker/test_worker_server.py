# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The listening socket."""

from __future__ import annotations

import signal

import pytest
from starlette.applications import Starlette

from driftguard_worker.errors import ExitStatus, WorkerError
from driftguard_worker.server import HttpServer, listen


def test_any_free_port() -> None:
    with listen("127.0.0.1", 0) as bound:
        assert bound.getsockname()[1] > 0


def test_address_in_use_is_told_with_a_remedy() -> None:
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(WorkerError) as caught:
            listen("127.0.0.1", port)
    assert caught.value.status is ExitStatus.PORT
    assert str(port) in caught.value.subject
    assert caught.value.found == "Address already in use"


def test_foreign_address_is_told() -> None:
    with pytest.raises(WorkerError) as caught:
        listen("203.0.113.1", 0)
    assert caught.value.status is ExitStatus.PORT


def test_signals_stay_the_worker_s() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with HttpServer(Starlette()).capture_signals():
        assert signal.getsignal(signal.SIGTERM) is before
