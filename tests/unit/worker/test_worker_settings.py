# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: the names, the defaults, and an answer to every wrong value."""

from __future__ import annotations

from typing import MutableMapping

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from driftguard_worker import settings as environment
from driftguard_worker.errors import ExitStatus
from driftguard_worker.settings import Settings, SettingsError

Environment = MutableMapping[str, str]
SECRET = "hunter2-hunter2"


def problems_of(values: dict[str, str], worker_environment: Environment) -> dict[str, str]:
    worker_environment.update(values)
    with pytest.raises(SettingsError) as caught:
        environment.load()
    assert all(problem.status is ExitStatus.SETTINGS for problem in caught.value.problems)
    return {problem.subject: str(problem) for problem in caught.value.problems}


def test_defaults(worker_environment: Environment) -> None:
    loaded = environment.load()
    assert (loaded.worker_concurrency, loaded.health_port, loaded.log_level) == (1, 8081, "info")
    assert (loaded.queue_prefix, loaded.git_sha, loaded.build_date) == ("demo", "unknown", "unknown")
    assert loaded.production is False


def test_prefix_of_the_queues_can_be_set(worker_environment: Environment) -> None:
    worker_environment["BULLMQ_PREFIX"] = "fiskal"
    assert environment.load().queue_prefix == "fiskal"


@pytest.mark.parametrize("name", ["WORKER_ENV", "NODE_ENV"])
def test_either_variable_means_production(worker_environment: Environment, name: str) -> None:
    worker_environment[name] = "production"
    assert environment.load().production is True


def test_level_in_any_case(worker_environment: Environment) -> None:
    worker_environment["LOG_LEVEL"] = "WARNING"
    assert environment.load().log_level == "warning"


def test_empty_is_unset(worker_environment: Environment) -> None:
    worker_environment.update({name.upper(): "" for name in Settings.model_fields})
    worker_environment.update(WORKER_TYPE="extractor", WORKER_FLEET="demo", REDIS_URL="redis://redis")
    assert environment.load().health_port == 8081


@pytest.mark.parametrize("value", [None, ""])
def test_every_missing_variable_is_named_at_once(worker_environment: Environment, value: str | None) -> None:
    for name in ("WORKER_TYPE", "WORKER_FLEET", "REDIS_URL"):
        worker_environment.pop(name)
        if value is not None:
            worker_environment[name] = value
    problems = problems_of({}, worker_environment)
    assert set(problems) == {"WORKER_TYPE", "WORKER_FLEET", "REDIS_URL"}
    assert all("found nothing (unset or empty)" in text for text in problems.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_TYPE", "Extractor"),
        ("WORKER_TYPE", "extractor-"),
        ("WORKER_TYPE", "a:b"),
        ("WORKER_TYPE", "a\n"),
        ("WORKER_TYPE", "a" * 42),
        ("WORKER_FLEET", "d"),
        ("WORKER_FLEET", "demo-"),
        ("WORKER_HOST", "two words"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "many"),
        ("HEALTH_PORT", "65536"),
        ("HEALTH_HOST", "localhost"),
        ("LOG_LEVEL", "chatty"),
        ("BULLMQ_PREFIX", "a b"),
        ("GIT_SHA", "\udcff"),
    ],
)
def test_wrong_value_is_quoted_with_its_remedy(worker_environment: Environment, name: str, value: str) -> None:
    problems = problems_of({name: value}, worker_environment)
    assert list(problems) == [name]
    assert ascii(value)[:80] in problems[name]
    assert "remedy: " in problems[name]


def test_every_field_has_its_help() -> None:
    assert set(environment._HELP) == {name.upper() for name in Settings.model_fields}


def test_the_url_is_never_shown(worker_environment: Environment) -> None:
    worker_environment["REDIS_URL"] = f"redis://:{SECRET}@redis"
    loaded = environment.load()
    assert SECRET not in repr(loaded) + str(loaded) + loaded.model_dump_json()


def test_only_exact_names_count(worker_environment: Environment) -> None:
    worker_environment["worker_concurrency"] = "9"
    assert environment.load().worker_concurrency == 1


@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(sorted(name.upper() for name in Settings.model_fields)),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    )
)
def test_any_environment_gives_settings_or_named_problems(
    worker_environment: Environment, values: dict[str, str]
) -> None:
    worker_environment.update(values)
    named: set[str] = set()
    try:
        environment.load()
    except SettingsError as error:
        named = {problem.subject for problem in error.problems}
    for name in values:
        worker_environment.pop(name)
    worker_environment.update(WORKER_TYPE="extractor", WORKER_FLEET="demo", REDIS_URL="redis://redis:6379/0")
    assert named <= set(values)
