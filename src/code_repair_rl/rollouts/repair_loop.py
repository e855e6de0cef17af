"""`repair-loop`, the smallest agent: edit, run the visible tests, read the failure, edit again.

It needs no shell and no tools, so that a model of any size can be trained in it, on one processor core. All attempts of
a phase go forward together: one call of the engine samples the next answer of each, one call of the grader runs the
visible tests upon all of them. What an attempt is told depends on visible tests only; what it is paid for is the
caller's, by all tests, on what it leaves behind.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from code_repair_rl.edits import Changes, EditError, Tolerance, diff, parse
from code_repair_rl.grading.policy import protected_paths
from code_repair_rl.grading.verdict import Outcome, TestStatus, Verdict
from code_repair_rl.grading.visible import visible_only
from code_repair_rl.rollouts.ask import derived_seed
from code_repair_rl.rollouts.chat_format import ChatFormat, chat_format
from code_repair_rl.rollouts.completion import Completion, Engine, FinishReason, Sampling
from code_repair_rl.rollouts.episode import ChatMessage, Ending, Episode, Turn
from code_repair_rl.tasks import HintLevel, RepositoryTests, Task
from code_repair_rl.tasks.prompts import messages

if TYPE_CHECKING:
    from code_repair_rl.grading import Grader

_TOLERANCE = Tolerance.INDENTATION
"""As the grader's own: what it would refuse must not be built upon."""

_ENDED = {
    Outcome.TIMEOUT: "The edited code does not end in time.",
    Outcome.OUT_OF_MEMORY: "The edited code takes too much memory.",
    Outcome.CRASHED: "The edited code ends its own process.",
    Outcome.OUTPUT_LIMIT: "The edited code prints too much.",
    Outcome.TAMPERED: "The edited code interferes with its tests.",
}


@dataclass(frozen=True, slots=True)
class RepairLoop:
    """Up to `max_turns` answers, each an edit; ends as soon as the visible tests pass.

    Where a task has no visible tests, the first edit that applies is the last; a classification has a single answer.
    """

    max_turns: int = 3
    undo: bool = True
    """Whether a failed edit is undone, so that each answer edits the task's own files; else answers build on one
    another."""
    max_feedback_characters: int = 300

    @property
    def description(self) -> str:
        """See `Agent.description`."""
        kept = "" if self.undo else ", edits kept"
        return f"repair-loop ({self.max_turns} turns{kept}, feedback {self.max_feedback_characters})"

    @property
    def words_its_prompt(self) -> bool:
        """See `Agent.words_its_prompt`."""
        return False

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
        """See `Agent.attempt`."""
        written = chat_format(engine)
        groups = [
            [_Attempt.begun(task, asked, prompt, written) for _ in range(attempts_per_task)]
            for task in tasks
            for asked in [messages(task, hint)]
            for prompt in [engine.encode(asked)]
        ]
        everyone = [one for group in groups for one in group]
        for number in range(self.max_turns):
            _end_where_full(everyone, written.context_tokens, sampling.max_new_tokens)
            living = [one for one in everyone if one.ending is None]
            if not living:
                break
            on_phase("sample")
            answers = _first_answers(engine, groups, sampling) if number == 0 else None
            if answers is None:
                seeded = dataclasses.replace(sampling, seed=derived_seed(sampling.seed, "turn", number))
                drawn = engine.generate([one.prompt for one in living], completions_per_prompt=1, sampling=seeded)
                answers = [group[0] for group in drawn]
            version = int(getattr(engine, "weights_version", 0))
            for one, answer in zip(living, answers, strict=True):
                if not answer.text and not answer.token_ids and answer.finish_reason is FinishReason.LENGTH:
                    one.end(Ending.CONTEXT_FULL, "the server found the conversation too long")
                else:
                    one.take(answer, version)
            living = [one for one in living if one.ending is None]
            on_phase("grade")
            for one, found in zip(living, _tried(living, grader, self.undo), strict=True):
                self._go_on(one, _repeated(one, found), written, last=number == self.max_turns - 1)
        return [[one.episode() for one in group] for group in groups]

    def _go_on(self, one: _Attempt, found: _Found, written: ChatFormat, *, last: bool) -> None:
        """End the attempt, or tell it what came of its edit."""
        if found.broken is not None:
            one.end(Ending.INFRASTRUCTURE, found.broken)
        elif found.works:
            one.end(Ending.FINISHED, "")
        elif last:
            one.end(Ending.OUT_OF_TURNS, found.told)
        else:
            one.tell(self._feedback(found), written)

    def _feedback(self, found: _Found) -> str:
        told = shortened(found.told, self.max_feedback_characters)
        if not found.applied:
            return f"{told}\nAnswer with one edit block only."
        if self.undo:
            return f"{told}\nYour edit was undone. Answer with another edit block only."
        return f"{told}\nYour edit was kept. Answer with one more edit block only."


@dataclass(frozen=True, slots=True)
class _Found:
    """What came of one answer."""

    applied: bool
    works: bool
    """By all that may be known: the visible tests pass, or there are none."""
    told: str
    """What is wrong, in words; empty where it works."""
    broken: str | None = None
    """Our machinery failed, and how."""


@dataclass(slots=True)
class _Attempt:
    """One attempt under way."""

    task: Task
    visible: Task | None
    messages: list[ChatMessage]
    prompt: tuple[int, ...]
    """What the engine is given for the next answer: the whole conversation so far."""
    new_ids: tuple[int, ...]
    """Of it what came after the last answer."""
    turns: list[Turn] = field(default_factory=list)
    changed: Mapping[str, str | None] = field(default_factory=dict)
    """The work copy: path to text where it differs from the task's files; None where the file is gone."""
    text: str = ""
    """What is graded if this is where it ends: an edit of the task's own files."""
    ending: Ending | None = None
    evidence: str = ""
    began: float = field(default_factory=time.monotonic)
    wall_seconds: float = 0.0

    @classmethod
    def begun(cls, task: Task, asked: Sequence[ChatMessage], prompt: tuple[int, ...], written: ChatFormat) -> _Attempt:
        return cls(task, visible_only(task), list(asked), prompt, prompt if written.splices else ())

    @property
    def files(self) -> Mapping[str, str]:
        """The work copy as a whole."""
        return _overlaid(self.task.files, self.changed) if self.changed else self.task.files

    def take(self, answer: Completion, weights_version: int) -> None:
        """Add what was sampled; its tokens are never made again from its text."""
        self.turns.append(
            Turn(self.new_ids, answer.token_ids, answer.logprobs, answer.text, answer.finish_reason, weights_version)
        )
        self.messages.append({"role": "assistant", "content": answer.text})

    def tell(self, feedback: str, written: ChatFormat) -> None:
        """Add what the environment answers. Where tokens are told, those sampled go on as they are, and only what is
        new is tokenised."""
        self.messages.append({"role": "user", "content": feedback})
        if not written.splices:
            self.prompt = written.encode(self.messages)
            return
        answer = self.turns[-1]
        stopped = answer.finish_reason is FinishReason.STOP
        self.new_ids = written.encode_tail(self.messages, len(self.messages) - 2, stopped=stopped)
        self.prompt = (*self.prompt, *answer.token_ids, *self.new_ids)

    def end(self, ending: Ending, evidence: str) -> None:
        self.ending, self.evidence = ending, evidence
        self.wall_seconds = time.monotonic() - self.began

    def episode(self) -> Episode:
        assert self.ending is not None
        given = len(self.messages) if self.messages[-1]["role"] == "assistant" else len(self.messages) - 1
        return Episode(
            task_id=self.task.task_id,
            turns=tuple(self.turns),
            ending=self.ending,
            files_after={} if self.ending is Ending.INFRASTRUCTURE else dict(self.files),
            patch=self.text,
            messages=tuple(self.messages[:given] if self.turns else self.messages),
            wall_seconds=self.wall_seconds,
            evidence=self.evidence,
        )


def shortened(text: str, most: int) -> str:
    """The beginning and the end of `text`, at most so many characters."""
    if len(text) <= most:
        return text
    head = (most - 5) * 2 // 3
    return f"{text[:head]} ... {text[len(text) - (most - 5 - head) :]}"


def _first_answers(engine: Engine, groups: Sequence[Sequence[_Attempt]], sampling: Sampling) -> list[Completion]:
    """A group's first answers share one prompt, which is computed once."""
    living = [group for group in groups if group and group[0].ending is None]
    count = len(living[0])
    drawn = engine.generate([group[0].prompt for group in living], completions_per_prompt=count, sampling=sampling)
    return [answer for group in drawn for answer in group]


def _end_where_full(everyone: Sequence[_Attempt], context_tokens: int, max_new_tokens: int) -> None:
    """An answer that could not have its full length is not asked for."""
    for one in everyone:
        if one.ending is None and len(one.prompt) + max_new_tokens > context_tokens:
            one.end(Ending.CONTEXT_FULL, f"{len(one.prompt)} tokens leave no room for {max_new_tokens} more")


def _tried(living: Sequence[_Attempt], grader: Grader, undo: bool) -> list[_Found]:
    """Apply each attempt's last answer, and run the visible tests where it applied."""
    before = [one.task.files if undo else one.files for one in living]
    read = [_read(one, files) for one, files in zip(living, before, strict=True)]
    jobs = [
        (one.visible.model_copy(update={"files": files}), one.turns[-1].text)
        for one, files, found in zip(living, before, read, strict=True)
        if one.visible is not None and isinstance(found, Changes)
    ]
    verdicts = iter(grader.grade_many(jobs))
    tried: list[_Found] = []
    for one, files, found in zip(living, before, read, strict=True):
        if isinstance(found, _Found):
            one.text = one.text if one.changed else one.turns[-1].text
            tried.append(found)
            continue
        verdict = next(verdicts) if one.visible is not None else None
        if verdict is None or verdict.applied:
            _keep(one, files, found, undo)
        tried.append(_Found(True, True, "") if verdict is None else _by_visible_tests(verdict))
    return tried


def _repeated(one: _Attempt, found: _Found) -> _Found:
    """Say so where the answer is one that was given before: what small models do most after a failure."""
    given = [turn.text.strip() for turn in one.turns]
    if found.works or given[-1] not in given[:-1]:
        return found
    return dataclasses.replace(found, told=f"You gave this answer before. {found.told}")


def _read(one: _Attempt, files: Mapping[str, str]) -> Changes | _Found:
    turn = one.turns[-1]
    if isinstance(one.task.oracle, str):  # a label edits nothing, and there is nothing to run
        return _Found(True, True, "")
    tests = one.task.tests
    protected = protected_paths(tests) if isinstance(tests, RepositoryTests) else ()
    try:
        changes = parse(turn.text).changes(files, tolerance=_TOLERANCE, protected=protected)
    except EditError as error:
        if turn.finish_reason is FinishReason.LENGTH:
            return _Found(False, False, "Your answer was cut off: it is too long.")
        hint = f"; {error.hint}" if error.hint else ""
        return _Found(False, False, f"Your edit was not applied: {error.what}{hint}.")
    if not changes.texts:
        return _Found(False, False, "Your edit changes nothing.")
    return changes


def _keep(one: _Attempt, files: Mapping[str, str], changes: Changes, undo: bool) -> None:
    """Make the edit the state of the work copy, and word it as an edit of the task's own files."""
    if undo:
        one.changed, one.text = changes.texts, one.turns[-1].text
        return
    whole = {**one.changed, **changes.texts}
    one.changed = {path: text for path, text in whole.items() if one.task.files.get(path) != text}
    before = {path: one.task.files[path] for path in one.changed if path in one.task.files}
    after = {path: text for path, text in one.changed.items() if text is not None}
    one.text = str(diff(before, after))


def _by_visible_tests(verdict: Verdict) -> _Found:
    """What may be told of a verdict on visible tests."""
    if verdict.outcome is Outcome.NO_VERDICT:
        return _Found(True, False, "", broken="; ".join(verdict.evidence))
    if verdict.passed:
        return _Found(True, True, "")
    evidence = verdict.evidence[0] if verdict.evidence else ""
    if verdict.outcome is Outcome.EDIT_REJECTED:
        return _Found(False, False, f"Your edit was not applied: {evidence}")
    if verdict.outcome is Outcome.SYNTAX_ERROR:
        return _Found(True, False, f"The edited code does not compile: {evidence}")
    failing = [test for test in verdict.tests if test.status is TestStatus.FAILED]
    words = [_ENDED[verdict.outcome]] if verdict.outcome in _ENDED else []
    words += [f"Test fails: {test.detail or test.name}" for test in failing[:2]]
    return _Found(True, False, "\n".join(words) or f"The tests fail: {evidence}")


def _overlaid(files: Mapping[str, str], changed: Mapping[str, str | None]) -> dict[str, str]:
    after = {path: text for path, text in files.items() if path not in changed}
    after.update({path: text for path, text in changed.items() if text is not None})
    return after
