# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""All configuration of a worker, from its environment, in one validated object.

Names are those of the worker deployment runbook. Nothing else in the package reads the environment, but for the start
guard and the health check, which run before and beside the worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional

from pydantic import BeforeValidator, Field, IPvAnyAddress, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import ExitStatus, WorkerError
from .names import DRAIN_SECONDS, FLEET_PATTERN, HEALTH_PORT, SERVICE_PATTERN, UNKNOWN

__all__ = ["Settings", "SettingsError", "load", "wrong"]

_VISIBLE = r"^[!-~]{1,253}$"
_PRINTABLE = r"^[ -~]{1,253}$"
_FOUND_LIMIT = 80


class _Help(NamedTuple):
    expected: str
    remedy: str


_HELP: dict[str, _Help] = {
    "WORKER_TYPE": _Help("the service's name: a-z, 0-9, dashes; at most 41 characters", "set it to the service's name"),
    "WORKER_FLEET": _Help("the fleet's name: a-z, 0-9 and dashes, 2 to 32 characters", "set it to the fleet's name"),
    "WORKER_HOST": _Help("the host's inventory name without spaces", "set it to the inventory name, or leave it out"),
    "WORKER_CONCURRENCY": _Help("a whole number from 1 to 1000", "set the number of jobs to work on at a time"),
    "WORKER_DRAIN_SECONDS": _Help(
        "seconds from 0 to 86400", f"set it below the engine's stop grace period, or leave it out ({DRAIN_SECONDS})"
    ),
    "CLASSIFICATION_ENABLED": _Help("false, or anything else", "leave it out, or set it to false"),
    "REDIS_URL": _Help("redis://, rediss:// or unix://", "set it, for example redis://redis:6379/0"),
    "REDIS_PASSWORD_FILE": _Help("the path of a file", "mount the password as a file and name it here"),
    "REDIS_CA_FILE": _Help("the path of a PEM file", "mount the certificate authority's file and name it here"),
    "BULLMQ_PREFIX": _Help("a key prefix without spaces", "leave it out to use the fleet's name"),
    "HEALTH_HOST": _Help("an IP address to listen on", "leave it out, or set 0.0.0.0 or 127.0.0.1"),
    "HEALTH_PORT": _Help("a port from 0 (any free one) to 65535", f"leave it out to use {HEALTH_PORT}"),
    "LOG_LEVEL": _Help("debug, info, warning or error", "leave it out to use info"),
    "GIT_SHA": _Help("the commit that the image was built from", "never set it: build the image with it"),
    "BUILD_DATE": _Help("the time of the build", "never set it: build the image with it"),
    "EXPECTED_GIT_SHA": _Help("the commit that should run", "set it to the full SHA, or leave it out"),
    "NODE_ENV": _Help("production, or anything else", "set it to production"),
    "WORKER_ENV": _Help("production, or anything else", "set it to production"),
}


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class Settings(BaseSettings):
    """The environment of one worker; an empty variable counts as unset."""

    model_config = SettingsConfigDict(
        alias_generator=str.upper,
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    worker_type: str = Field(pattern=SERVICE_PATTERN)
    worker_fleet: str = Field(pattern=FLEET_PATTERN)
    worker_host: Optional[str] = Field(default=None, pattern=_VISIBLE)
    worker_concurrency: int = Field(default=1, ge=1, le=1000)
    worker_drain_seconds: int = Field(default=DRAIN_SECONDS, ge=0, le=86_400)
    classification_enabled: str = Field(default="true", pattern=_PRINTABLE)
    redis_url: SecretStr
    redis_password_file: Optional[Path] = None
    redis_ca_file: Optional[Path] = None
    bullmq_prefix: Optional[str] = Field(default=None, pattern=_VISIBLE)
    health_host: Optional[IPvAnyAddress] = None
    health_port: int = Field(default=HEALTH_PORT, ge=0, le=65535)
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    git_sha: str = Field(default=UNKNOWN, pattern=_PRINTABLE)
    build_date: str = Field(default=UNKNOWN, pattern=_PRINTABLE)
    expected_git_sha: Optional[str] = Field(default=None, pattern=_PRINTABLE)
    node_env: Optional[str] = Field(default=None, pattern=_PRINTABLE)
    worker_env: Optional[str] = Field(default=None, pattern=_PRINTABLE)

    @property
    def queue_prefix(self) -> str:
        """Prefix of the queues' keys; the fleet's name unless it is set."""
        return self.bullmq_prefix or self.worker_fleet

    @property
    def classification(self) -> bool:
        """The first value of the kill switch: on, unless the variable says ``false``."""
        return self.classification_enabled != "false"

    @property
    def production(self) -> bool:
        """Whether the guard and the fence bind, or only warn."""
        return "production" in (self.worker_env, self.node_env)


class SettingsError(Exception):
    """Variables that are missing or wrong; one :class:`WorkerError` for each."""

    def __init__(self, problems: list[WorkerError]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def load() -> Settings:
    """Read the settings from the environment.

    :raises SettingsError: every variable that is missing or wrong, at once; values of secrets are not quoted.
    """
    try:
        return Settings()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise SettingsError([_problem(item) for item in found]) from None


def wrong(variable: str, found: str, expected: Optional[str] = None, remedy: Optional[str] = None) -> WorkerError:
    """The error for one variable, with the usual expectation and remedy unless others are given.

    :param variable: name of the variable.
    :param found: what it holds or names; never a secret.
    """
    usual = _HELP[variable]
    return WorkerError(ExitStatus.SETTINGS, variable, expected or usual.expected, found, remedy or usual.remedy)


def _problem(item: Any) -> WorkerError:
    variable = str(item["loc"][0])
    return wrong(variable, _found(variable, item))


def _found(variable: str, item: Any) -> str:
    if item["type"] == "missing":
        return "nothing (unset or empty)"
    if variable == "REDIS_URL":
        return "something else (not shown, it may hold a password)"
    return ascii(item["input"])[:_FOUND_LIMIT]
