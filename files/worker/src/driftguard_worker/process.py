# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
"""The worker as a process: reads the settings, runs, and turns every failure into an exit status."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import NamedTuple, Optional

from . import logs, redis_options
from . import settings as environment
from .cli import become_another
from .errors import ExitStatus, WorkerError
from .identity import Identity
from .jobs import Handlers
from .redis_options import RedisOptions
from .reference import DRAINER, handlers_of
from .runtime import Replacement, Runtime, Task
from .server import listen
from .settings import Settings, SettingsError

__all__ = ["run"]


class _Setup(NamedTuple):
    settings: Settings
    redis: RedisOptions
    identity: Identity


def run(started: float, handlers: Optional[Handlers], parked: bool) -> int:
    """Run one worker.

    :param started: ``time.monotonic()`` at the start of the process.
    :param handlers: the application's; none for those of the reference fleet.
    :param parked: never take a job, see :class:`Task`.
    :returns: the exit status; what caused it is in the log.
    """
    logs.configure("info", {})
    log = logs.get("driftguard_worker")
    try:
        return asyncio.run(_serve(_set_up(), started, handlers, parked))
    except Replacement as replacement:
        become_another(replacement.parked)
    except SettingsError as error:
        for problem in error.problems:
            _report(log, problem)
        return ExitStatus.SETTINGS
    except WorkerError as error:
        _report(log, error)
        return error.status
    except Exception:
        # The one broad handler: a mistake in the program must end as one line and its own status.
        log.critical("internal error", exc_info=True, exit_status=int(ExitStatus.INTERNAL), remedy=_REMEDY_INTERNAL)
        return ExitStatus.INTERNAL


def _set_up() -> _Setup:
    settings = environment.load()
    redis = redis_options.from_settings(settings)
    identity = Identity.of_this_process(settings)
    context = {
        "fleet": identity.fleet,
        "service": identity.service,
        "worker": identity.worker_id,
        "sha": identity.git_sha,
    }
    logs.configure(settings.log_level, context, redis.secrets)
    return _Setup(settings, redis, identity)


async def _serve(setup: _Setup, started: float, handlers: Optional[Handlers], parked: bool) -> ExitStatus:
    settings = setup.settings
    # Inside a container every address is the container's own; outside, a health port is nobody else's business.
    default = "0.0.0.0" if setup.identity.container_id else "127.0.0.1"
    listener = listen(str(settings.health_host or default), settings.health_port)
    logs.get("driftguard_worker").info(
        "starting",
        address="{}:{}".format(*listener.getsockname()),
        redis=setup.redis.where,
        concurrency=settings.worker_concurrency,
        queue_prefix=settings.queue_prefix,
        production=settings.production,
        expected_sha=settings.expected_git_sha,
    )
    task = Task(
        handlers=handlers_of(settings.worker_type) if handlers is None else handlers,
        drains=handlers is None and settings.worker_type == DRAINER,
        classification=settings.classification,
        prefix=settings.queue_prefix,
        concurrency=settings.worker_concurrency,
        drain=settings.worker_drain_seconds,
        production=settings.production,
        parked=parked,
    )
    runtime = Runtime(setup.identity, setup.redis, listener, started, task)
    status = await runtime.run()
    if runtime.abandoned:
        # Their handlers would hold up an orderly end; what they do from now on isn't theirs any more.
        sys.stdout.flush()
        os._exit(status)
    return status


def _report(log: logs.Logger, problem: WorkerError) -> None:
    log.error(
        str(problem),
        subject=problem.subject,
        expected=problem.expected,
        found=problem.found,
        remedy=problem.remedy,
        exit_status=int(problem.status),
    )


_REMEDY_INTERNAL = "report it with this line; LOG_LEVEL=debug shows the stack"
