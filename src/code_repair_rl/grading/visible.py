"""The tests that a model may be shown: what an agent runs while it works, never what it is judged by alone."""

from __future__ import annotations

from code_repair_rl.tasks import FunctionTests, RepositoryTests, Task


def visible_only(task: Task) -> Task | None:
    """`task` with its visible tests only, or None where it has none.

    Of function tests these are the examples of the description. Of repository tests they are the pass-to-pass tests,
    which stand in the tree that is worked on, and the fail-to-pass tests that the description names; without one of the
    latter there is nothing to tell whether a repair worked. Verdicts on the task that is returned depend on nothing
    hidden, so that whatever they say may be shown.
    """
    if isinstance(task.tests, FunctionTests):
        if not task.tests.visible:
            return None
        return task.model_copy(update={"tests": task.tests.model_copy(update={"check": "", "hidden": ()})})
    if isinstance(task.tests, RepositoryTests):
        named = tuple(test for test in task.tests.fail_to_pass if test in task.description.split())
        if not named:
            return None
        return task.model_copy(update={"tests": task.tests.model_copy(update={"fail_to_pass": named})})
    return None


def has_visible_tests(task: Task) -> bool:
    """Whether there is a test that may be shown."""
    return visible_only(task) is not None


def visible_names(task: Task) -> frozenset[str]:
    """The repository tests of a task that may be shown; empty for other tests, whose results say it themselves."""
    shown = visible_only(task)
    if shown is None or not isinstance(shown.tests, RepositoryTests):
        return frozenset()
    return frozenset((*shown.tests.fail_to_pass, *shown.tests.pass_to_pass))
