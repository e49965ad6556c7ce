# Copyright: driftguard.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Completing a job, fetching the next and asking the fence in one go: the answer is younger than what was fetched."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import NoScriptError

from driftguard_worker.bull import BullWorker, NotOurs
from driftguard_worker.fence import Question
from driftguard_worker.jobs import Queue

NEXT = [["name", "job"], "2", 0, 0]
ANSWER = "1767225600000000 mark"
QUESTION = Question("sha", "demo:release", (1, "sha1"))


class Script:
    """A script that is loaded when it is called, and not when its hash is."""

    sha = "finished"

    async def __call__(self, keys: Any, args: Any) -> Any:
        assert (keys, args) == (["key"], ["argument"])
        return NEXT


class Pipe:
    """A pipeline with the answers that it will give."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def evalsha(self, sha: str, *_arguments: Any) -> None:
        self.asked.append(sha)

    async def execute(self, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        return self._answers


def complete_and_take(*answers: Any) -> tuple[Any, str]:
    pipe = Pipe(list(answers))

    async def job_of(_data: Any, job_id: Any, *_limits: Any) -> Any:
        return job_id

    scripts = SimpleNamespace(
        commands={"moveToFinished": Script()}, moveToCompletedArgs=lambda *_given: (["key"], ["argument"]))
    backend = SimpleNamespace(scripts=scripts, conn=SimpleNamespace(pipeline=lambda transaction: pipe))
    worker = BullWorker(
        SimpleNamespace(on=lambda *_given: None, backend=backend, nextJobFromJobData=job_of), Queue("q"))
    found = asyncio.run(worker.complete_and_take(SimpleNamespace(id="1", opts={}), None, "token", QUESTION))
    assert pipe.asked == ["finished", "sha"]
    return found


def test_both_answers_come_in_one_go() -> None:
    assert complete_and_take(NEXT, ANSWER) == ("2", ANSWER)


def test_an_answer_that_is_older_than_the_fetched_job_is_none() -> None:
    assert complete_and_take(NoScriptError("NOSCRIPT"), ANSWER) == ("2", "")


def test_a_job_that_is_another_s_is_said() -> None:
    with pytest.raises(NotOurs, match="code -2"):
        complete_and_take(-2, ANSWER)
