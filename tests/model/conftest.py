# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Models for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from model.making import NewModel, models


@pytest.fixture(scope="session")
def new_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewModel]:
    """Makes a world with so many hosts, in place of the one before."""
    with models(tmp_path_factory.mktemp("model")) as new_model:
        yield new_model
