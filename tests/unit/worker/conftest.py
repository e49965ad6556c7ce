# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment of a worker under test."""

from __future__ import annotations

import os
from typing import Iterator, MutableMapping

import pytest

from driftguard_worker.settings import Settings

MINIMAL = {"WORKER_TYPE": "extractor", "WORKER_FLEET": "demo", "REDIS_URL": "redis://redis:6379/0"}


@pytest.fixture
def worker_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[MutableMapping[str, str]]:
    """``os.environ`` with what a worker needs at least, and none of its other variables."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in MINIMAL.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    yield os.environ
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)
