"""Agents in jails: each attempt is a program with a work copy of its own, and a session of the gateway for its model.

The program has no network. Its only way out is the gateway's Unix socket, which is bound into the jail; a forwarder
offers it on the jail's own loopback. Whatever it leaves in the work copy when it ends, or is ended, is its answer.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TYPE_CHECKING

from code_repair_rl.edits import EditError, diff
from code_repair_rl.errors import CrrlError, MachineryFailed
from code_repair_rl.grading.copies import installed_copies
from code_repair_rl.grading.policy import graded_tree
from code_repair_rl.grading.repository import packages
from code_repair_rl.rollouts.agent_programs import AgentProgram, Endpoint, environment_of, python_for
from code_repair_rl.rollouts.ask import derived_seed
from code_repair_rl.rollouts.completion import Engine, Sampling
from code_repair_rl.rollouts.episode import Ending, Episode
from code_repair_rl.rollouts.gateway import Gateway, path_of
from code_repair_rl.rollouts.sessions import Session, SessionLimits
from code_repair_rl.sandbox import GIB, MIB, Cause, Job, JobResult, Limits, Sandbox, select_backend
from code_repair_rl.tasks import HintLevel, RepositoryTests, Task

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader

_log = logging.getLogger(__name__)

_WORK = "work"
_SOCKET = "/gateway/gateway.sock"
_PORT = 8000
"""On the jail's own loopback, where nobody else is."""
_DISK_BYTES = 512 * MIB
_COLLECT_SECONDS = 30.0
"""Many attempts that reach their deadline together are read back together."""
_MOST_NOTES = 20
_MOST_NEW_BYTES = MIB
"""A new file that is larger is nobody's source code."""
_EVIDENCE_CHARACTERS = 2000
_LEFT_OUT = (".git/", ".pytest_cache/", ".hypothesis/", ".mypy_cache/", ".ruff_cache/")


@dataclass(frozen=True, slots=True)
class _Jail:
    """What all attempts of a call share."""

    sandbox: Sandbox
    python: str
    stop: Event
    """Ends all of them."""


@dataclass(frozen=True, slots=True)
class JailedAgent:
    """An `Agent` (see there) that runs a program for every attempt."""

    program: AgentProgram
    max_turns: int = 30
    deadline_seconds: float = 300.0
    """Of one attempt: its jail, the agent, all waiting for the model, reading back what it left."""
    context_tokens: int | None = None
    """Shorter than the model's own."""
    concurrency: int = 8
    """Attempts at once."""
    memory_bytes: int = 4 * GIB
    backend: str = "auto"
    environment: Path | None = None
    """The virtual environment the agent is installed in; None looks in the usual places (see `python_for`)."""

    @property
    def description(self) -> str:
        """See `Agent.description`."""
        context = f", context {self.context_tokens}" if self.context_tokens else ""
        return f"{self.program.name} ({self.max_turns} turns, {self.deadline_seconds:g} s{context})"

    @property
    def words_its_prompt(self) -> bool:
        """See `Agent.words_its_prompt`; what does not fit into the context ends the attempt."""
        return True

    def attempt(
        self,
        engine: Engine,
        grader: Grader,
        tasks: Sequence[Task],
        *,
        hint: HintLevel | str,
        attempts_per_task: int,
        sampling: Sampling,
        on_phase: Callable[[str], None],
    ) -> list[list[Episode]]:
        """See `Agent.attempt`; the engine samples on the calling thread."""
        on_phase("sample")
        jail = _Jail(select_backend(self.backend), python_for(self.program, self.environment), Event())
        _require_git()
        with (
            Gateway(engine, sampling=sampling) as gateway,
            ThreadPoolExecutor(self.concurrency, thread_name_prefix="crrl-agent") as pool,
        ):
            work = [
                pool.submit(self._episode, gateway, jail, task, hint, derived_seed(sampling.seed, place, number))
                for place, task in enumerate(tasks)
                for number in range(attempts_per_task)
            ]
            try:
                gateway.serve_while(work)
            except BaseException:
                jail.stop.set()  # who waits for the pool waits for the jails
                for one in work:
                    one.cancel()
                gateway.close()
                raise
            found = [one.result() for one in work]
        return [found[at : at + attempts_per_task] for at in range(0, len(found), attempts_per_task)]

    def _episode(self, gateway: Gateway, jail: _Jail, task: Task, hint: HintLevel | str, seed: int) -> Episode:
        """One attempt; whatever fails, an adapter's mistake too, stops no other."""
        try:
            return self._attempted(gateway, jail, task, hint, seed)
        except Exception as error:
            _log.exception("an attempt failed")
            evidence = f"{type(error).__name__}: {error}"
            return Episode(task_id=task.task_id, turns=(), ending=Ending.INFRASTRUCTURE, evidence=evidence)

    def _attempted(self, gateway: Gateway, jail: _Jail, task: Task, hint: HintLevel | str, seed: int) -> Episode:
        """One attempt; where the jail itself failed before the model was asked anything, one more."""
        for last in (False, True):
            began = time.monotonic()
            session = gateway.open_session(seed=seed, limits=SessionLimits(self.max_turns, self.context_tokens))
            try:
                result = jail.sandbox.run(self._job(gateway, session, jail, task, hint), stop=jail.stop)
                if result.cause is Cause.TIMEOUT:
                    gateway.await_batch()  # it knows whether the time was the model's to lose
            except (CrrlError, OSError) as error:
                result = JobResult(-1, b"", b"", 0.0, Cause.INFRASTRUCTURE, error=str(error))
            finally:
                gateway.close_session(session, "the agent has ended")
            if result.cause is not Cause.INFRASTRUCTURE or session.requests or last or jail.stop.is_set():
                break
        return _episode_of(task, session, result, time.monotonic() - began)

    def _job(self, gateway: Gateway, session: Session, jail: _Jail, task: Task, hint: HintLevel | str) -> Job:
        # Without a network of its own a jail has this port for itself; without a jail the gateway is reached directly.
        isolated = jail.sandbox.name != "unsafe_local"
        endpoint = Endpoint(
            base_url=f"http://127.0.0.1:{_PORT}{path_of(session)}" if isolated else gateway.base_url(session),
            api_key=gateway.token,
            model=gateway.model,
            deadline_seconds=self.deadline_seconds,
            context_tokens=min(session.context_tokens, self.context_tokens or session.context_tokens),
        )
        launch = self.program.launch(instructions(task, hint), endpoint, jail.python)
        told = {
            "argv": launch.argv,
            "environment": dict(launch.environment),
            "files": dict(launch.files),
            "folder": _WORK,
            "gateway": {"socket": _SOCKET, "port": _PORT} if isolated else None,
        }
        return Job(
            argv=("python", "-I", "-S", "-B", "-c", _agent_job()),
            files={f"{_WORK}/{path}": text for path, text in task.files.items()},
            stdin=json.dumps(told),
            read_only={
                **{folder: folder for folder in environment_of(jail.python)},
                **({_SOCKET: str(gateway.socket_path), **self._covers(task, gateway, jail)} if isolated else {}),
            },
            python_path=packages(),
            collect=(_WORK,),
            collect_bytes=_DISK_BYTES,
            collect_seconds=_COLLECT_SECONDS,
            limits=Limits(
                wall_seconds=self.deadline_seconds,
                cpu_seconds=max(1, int(self.deadline_seconds)),
                memory_bytes=self.memory_bytes,
                processes=256,
                disk_bytes=_DISK_BYTES,
                file_bytes=_DISK_BYTES,
                open_files=1024,
                output_bytes=16 * MIB,
            ),
        )

    def _covers(self, task: Task, gateway: Gateway, jail: _Jail) -> dict[str, str]:
        """See `_hidden`; nothing is covered where the agent itself is installed in this environment and needs it."""
        here = jail.python == sys.executable and self.program.python_module is not None
        return {} if here else _hidden(task, gateway.socket_path.parent)


def instructions(task: Task, hint: HintLevel | str) -> str:
    """What an agent is asked to do: the description, at most one hint, and what counts."""
    level = HintLevel(hint)
    parts = [task.description.strip()]
    tests = task.tests
    if level is HintLevel.FAILING_CALL:
        if task.hints.failing_call:
            parts.append(f"Failing: {task.hints.failing_call}")
        elif isinstance(tests, RepositoryTests):
            parts.append("Failing tests:\n" + "\n".join(tests.fail_to_pass[:10]))
    lines = {
        HintLevel.SUSPICIOUS_LINES: task.hints.suspicious_lines,
        HintLevel.EXACT_LINE: task.hints.exact_lines,
    }.get(level, ())
    if lines:
        shown = "\n".join(f"{line.path}:{line.number}: {line.text.strip()}" for line in lines)
        parts.append(f"Suspicious lines:\n{shown}")
    parts.append(
        "Change the source code in the current folder so that its tests pass. Changes to tests and to their "
        "configuration do not count."
    )
    return "\n\n".join(part for part in parts if part)


def _episode_of(task: Task, session: Session, result: JobResult, wall_seconds: float) -> Episode:
    chain = session.longest()
    ending, evidence = _ending(session, result, answered=bool(chain.turns))
    after: Mapping[str, str] = {}
    patch = ""
    if ending is not Ending.INFRASTRUCTURE:
        after, unreadable = _work_copy(task, result)
        if result.cause is not Cause.FINISHED and not result.files:  # killed from outside: nobody could read it back
            after, unreadable = dict(task.files), ["the work copy was lost"]
        patch, notes = _patch(task, after)
        left_out = "\n".join([*notes, *unreadable])[:_EVIDENCE_CHARACTERS]
        evidence = f"{left_out}\n{evidence[-max(1, _EVIDENCE_CHARACTERS - len(left_out)) :]}" if left_out else evidence
        if ending is Ending.FINISHED and dict(task.files) == after:
            ending = Ending.NO_DIFF
    return Episode(
        task_id=task.task_id,
        turns=chain.turns,
        ending=ending,
        files_after=after,
        patch=patch,
        messages=chain.messages,
        answers=chain.answers,
        tools=chain.tools,
        forks=session.forks,
        rewrites=session.rewrites,
        broken_tool_calls=session.broken_tool_calls,
        wall_seconds=wall_seconds,
        evidence=evidence,
    )


def _hidden(task: Task, folder: Path) -> dict[str, str]:
    """Mounts that cover installed copies of what the task is about: the answer could be read there.

    Covered are the packages of this environment and of its interpreter; an agent's own environment is the agent's.

    Args:
        task: whose modules they are.
        folder: where the nothing that covers them is made.
    """
    (folder / "nothing").mkdir(exist_ok=True)
    (folder / "nothing.py").touch()
    return {
        found: str(folder / ("nothing" if Path(found).is_dir() else "nothing.py"))
        for found in installed_copies(task, packages())
    }


def _ending(session: Session, result: JobResult, *, answered: bool) -> tuple[Ending, str]:
    """How an attempt ended, and the last that was heard of it."""
    said = (result.stdout + b"\n" + result.stderr).decode(errors="replace").strip()[-_EVIDENCE_CHARACTERS:]
    if session.failure:
        return Ending.INFRASTRUCTURE, session.failure
    if result.cause is Cause.INFRASTRUCTURE:
        return Ending.INFRASTRUCTURE, result.error or said
    stopped = session.ended.ending if session.ended is not None else Ending.FINISHED
    if not answered and stopped is not Ending.CONTEXT_FULL:
        # Nothing that the policy did: the agent is not installed well, or never came to ask.
        return Ending.INFRASTRUCTURE, f"the agent ended ({result.cause}) without an answer of the model: {said}"
    if result.cause is Cause.TIMEOUT:
        if session.delayed:
            return Ending.INFRASTRUCTURE, f"the model's server was away for a while, until the time was up: {said}"
        return Ending.OUT_OF_TIME, said
    if result.cause in (Cause.OUT_OF_MEMORY, Cause.OUTPUT_LIMIT):
        return Ending.OVER_LIMITS, f"{result.cause}: {said}"
    if stopped in (Ending.OUT_OF_TURNS, Ending.CONTEXT_FULL):
        return stopped, said
    if result.exit_code != 0:
        return Ending.AGENT_CRASHED, f"exit code {result.exit_code}: {said}"
    return Ending.FINISHED, said


def _work_copy(task: Task, result: JobResult) -> tuple[dict[str, str], list[str]]:
    """The text files that are there, and which were left out.

    A file of the task that is there, but cannot be read back as text (it became a link, or bytes), counts as it was.
    """
    found: dict[str, str] = {}
    unreadable = {place.removeprefix(f"{_WORK}/"): "could not be read back" for place in result.left_out}
    for place, content in result.files.items():
        path = place.removeprefix(f"{_WORK}/")
        if path.startswith(_LEFT_OUT) or "__pycache__/" in path or path.endswith((".pyc", ".pyo")):
            continue
        if path not in task.files and len(content) > _MOST_NEW_BYTES:
            unreadable[path] = f"is new and has {len(content):,} bytes"
            continue
        try:
            found[path] = content.decode()
        except UnicodeDecodeError:
            unreadable[path] = "is not text"
    for path, text in task.files.items():
        above = (path, *map(str, PurePosixPath(path).parents))
        if path not in found and any(place in unreadable for place in above):
            found[path] = text
    return found, [f"{path} {why}, and was left out" for path, why in unreadable.items()][:_MOST_NOTES]


def _patch(task: Task, after: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """What is graded: the source part of what was changed; and what was not taken."""
    counted = dict(after)
    notes: tuple[str, ...] = ()
    if isinstance(task.tests, RepositoryTests):
        tree, notes = graded_tree(task.files, after, task.tests)
        counted = {path: text for path, text in tree.items() if path not in task.tests.test_files or path in task.files}
        counted.update({path: task.files[path] for path in task.tests.test_files if path in task.files})
    try:
        return str(diff(task.files, counted)), notes
    except EditError as error:
        return "", (*notes, f"what was changed cannot be written as an edit: {error}")


def _require_git() -> None:
    if shutil.which("git", path="/usr/local/bin:/usr/bin:/bin") is None:
        raise MachineryFailed(
            "git is not installed, which agents work with", where="agents", mend="install your system's `git` package"
        )


@cache
def _agent_job() -> str:
    return package_files("code_repair_rl.rollouts.inside").joinpath("agent_job.py").read_text(encoding="utf-8")
