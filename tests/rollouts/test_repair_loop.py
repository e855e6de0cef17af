"""The repair-loop: what it is told, where it ends, what is graded, and which tokens are its own."""

from collections.abc import Iterator

import pytest

from code_repair_rl.grading import Grader, Outcome
from code_repair_rl.grading.visible import visible_only
from code_repair_rl.models import TINY_MODEL, embedded_model_folder, load_model, load_tokenizer
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.ask import Answer, ask, row_of
from code_repair_rl.rollouts.chat_format import TemplateFormat
from code_repair_rl.rollouts.episode import Ending, Episode
from code_repair_rl.rollouts.local import LocalEngine
from code_repair_rl.rollouts.remote import RemoteEngine
from code_repair_rl.rollouts.repair_loop import RepairLoop, shortened
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.runs import RolloutRow
from code_repair_rl.tasks import Example, FunctionTests, Kind, Origin, RepositoryTests, Split, Task
from tests.rollouts.chat_server import Reply, chat_server, completion, failure

SAMPLING = Sampling(temperature=1.0, max_new_tokens=200, seed=3)


def edit(old: str, new: str) -> str:
    return f"<<<<<<< SEARCH\n    return {old}\n=======\n    return {new}\n>>>>>>> REPLACE"


def double(**tests: object) -> Task:
    """`double(x)` answers x; the visible test is double(2) == 4, the hidden one double(5) == 10."""
    parts = {
        "path": "solution.py",
        "entry_point": "double",
        "visible": (Example(call="double(2)", expected="4"),),
        "hidden": (Example(call="double(5)", expected="10"),),
        **tests,
    }
    head = "def double(x):\n"
    return Task(
        task_id="double",
        kind=Kind.REPAIR,
        files={"solution.py": head + "    return x\n"},
        description="Twice x.",
        oracle={"solution.py": head + "    return 2 * x\n"},
        tests=FunctionTests.model_validate(parts),
        split=Split.TRAIN,
        problem="double",
        origin=Origin(source="test"),
        licence="MIT",
    )


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(workers=1) as grader:
        yield grader


def attempted(
    grader: Grader, *answers: str, task: Task | None = None, agent: RepairLoop | None = None, count: int = 1
) -> tuple[Answer, Episode]:
    groups = ask(
        ScriptedEngine(answers),
        grader,
        [task or double()],
        hint="none",
        completions_per_task=count,
        sampling=SAMPLING,
        agent=agent or RepairLoop(),
    )
    answer = groups[0][0]
    assert answer.episode is not None
    return answer, answer.episode


def recorded(answer: Answer) -> RolloutRow:
    return row_of(answer, step=1, group=0, sample=0, hint="none", prompt="")


def test_a_first_edit_that_works_is_the_only_answer(grader: Grader) -> None:
    answer, episode = attempted(grader, edit("x", "x + x"))
    assert (episode.ending, len(episode.turns)) == (Ending.FINISHED, 1)
    assert answer.verdict.passed
    assert answer.completion.sampled == ()
    assert recorded(answer).turns is None
    assert recorded(answer).ending == "finished"


def test_a_failure_is_read_and_repaired(grader: Grader) -> None:
    answer, episode = attempted(grader, edit("x", "x + 1"), edit("x", "2 * x"))
    assert (episode.ending, len(episode.turns)) == (Ending.FINISHED, 2)
    assert answer.verdict.passed
    told = episode.messages[-2]["content"]
    assert "double(2) gave 3, expected 4" in told
    assert "undone" in told


def test_what_the_visible_tests_let_pass_is_judged_by_the_hidden_ones(grader: Grader) -> None:
    answer, episode = attempted(grader, edit("x", "x + 2"))
    assert episode.ending is Ending.FINISHED
    assert answer.verdict.outcome is Outcome.FAILED
    assert not any("double(5)" in str(message["content"]) for message in episode.messages)


def test_nothing_hidden_decides_what_is_told(grader: Grader) -> None:
    """The same answers are told the same, whatever is hidden."""
    wrong = [edit("x", "1 // (x - 5)"), edit("x", "[x] * (x // 3)"), edit("x", "x + 1")]
    said = []
    for hidden in ((Example(call="double(5)", expected="10"),), (Example(call="double('a')", expected="'aa'"),), ()):
        _, episode = attempted(grader, *wrong, task=double(hidden=hidden))
        said.append([message["content"] for message in episode.messages])
    assert said[0] == said[1] == said[2]


def test_a_repeated_answer_is_told_so(grader: Grader) -> None:
    _, episode = attempted(grader, edit("x", "x + 1"), edit("x", "x + 1"), edit("x", "x + 3"))
    told = [message["content"] for message in episode.messages if message["role"] == "user"][1:]
    assert ["before" in words for words in told] == [False, True]


def test_edits_that_are_kept_build_on_one_another_and_are_graded_as_one(grader: Grader) -> None:
    keeping = RepairLoop(undo=False)
    answer, episode = attempted(grader, edit("x", "x + 1"), edit("x + 1", "x + x"), agent=keeping)
    assert answer.verdict.passed
    assert episode.files_after == {"solution.py": "def double(x):\n    return x + x\n"}
    assert "kept" in episode.messages[-2]["content"]
    _, undone = attempted(grader, edit("x", "x + 1"), edit("x + 1", "x + x"))
    assert "not applied" in undone.messages[-2]["content"]


@pytest.mark.parametrize(
    ("bad", "told", "outcome"),
    [
        ("no edit at all", "not applied", Outcome.EDIT_REJECTED),
        ("<<<<<<< SEARCH\n    return x\n=======\n", "not applied", Outcome.EDIT_REJECTED),
        (edit("y", "z"), "not applied", Outcome.EDIT_REJECTED),
        (edit("x", "x"), "changes nothing", Outcome.UNCHANGED),
        (edit("x", "x +"), "does not compile", Outcome.SYNTAX_ERROR),
        ("<<<<<<< SEARCH\n" + "x" * 300, "cut off", Outcome.EDIT_REJECTED),
    ],
)
def test_every_bad_answer_has_its_outcome(grader: Grader, bad: str, told: str, outcome: Outcome) -> None:
    answer, episode = attempted(grader, bad)
    assert (episode.ending, len(episode.turns)) == (Ending.OUT_OF_TURNS, 3)
    assert told in episode.messages[-2]["content"]
    assert answer.verdict.outcome is outcome


def test_the_last_edit_that_applied_is_what_is_graded(grader: Grader) -> None:
    answer, _ = attempted(grader, edit("x", "x + 1"), "nothing", "nothing")
    assert answer.verdict.outcome is Outcome.FAILED
    assert answer.completion.text == edit("x", "x + 1")


def test_without_visible_tests_the_first_edit_that_applies_is_the_last(grader: Grader) -> None:
    answer, episode = attempted(grader, "nothing", edit("x", "x * 2"), task=double(visible=()))
    assert (episode.ending, len(episode.turns)) == (Ending.FINISHED, 2)
    assert answer.verdict.passed


def test_a_classification_has_a_single_answer(grader: Grader) -> None:
    task = double().model_copy(update={"kind": Kind.CLASSIFY, "oracle": "safe", "tests": None})
    answer, episode = attempted(grader, "anything at all", task=task)
    assert (episode.ending, len(episode.turns)) == (Ending.FINISHED, 1)
    assert answer.completion.text == "anything at all"


def test_a_full_context_ends_the_attempt_and_what_was_done_is_graded(grader: Grader) -> None:
    engine = LocalEngine(load_model(TINY_MODEL), load_tokenizer(TINY_MODEL))
    room = engine.context_tokens
    long = double().model_copy(update={"description": "x" * (room - 1000)})
    sampling = Sampling(temperature=1.0, max_new_tokens=400, seed=0)
    groups = ask(
        engine, grader, [long], hint="none", completions_per_task=2, sampling=sampling, agent=RepairLoop(max_turns=9)
    )
    for answer in groups[0]:
        assert answer.episode is not None
        assert answer.episode.ending is Ending.CONTEXT_FULL
        assert 1 <= len(answer.episode.turns) < 9
        assert answer.verdict.score == 0.0
        assert answer.episode.messages[-1]["role"] == "assistant"


def test_a_conversation_that_is_too_long_for_a_server_ends_and_what_was_done_is_graded(grader: Grader) -> None:
    def reply(body: dict[str, object], number: int) -> Reply:
        long = len(body["messages"]) > 2  # type: ignore[arg-type]
        return failure(400, "maximum context length is 9 tokens") if long else completion(edit("x", "x + 1"))

    with chat_server(reply) as (endpoint, _):
        ((answer,),) = ask(
            RemoteEngine(endpoint, "m"), grader, [double()], hint="none", completions_per_task=1, sampling=SAMPLING,
            agent=RepairLoop(),
        )  # fmt: skip
    assert answer.episode is not None
    assert (answer.episode.ending, len(answer.episode.turns)) == (Ending.CONTEXT_FULL, 1)
    assert answer.verdict.score == 0.0 and answer.verdict.applied


def test_a_failure_of_ours_has_no_verdict(grader: Grader) -> None:
    broken = double(visible=(Example(call="double(2)", expected="5"),))  # the oracle itself does not pass
    answer, episode = attempted(grader, edit("x", "x + 1"), task=broken)
    assert episode.ending is Ending.INFRASTRUCTURE
    assert answer.verdict.score is None


def test_what_is_sampled_is_kept_token_for_token_over_the_turns(grader: Grader) -> None:
    """Of a real sampler with random weights: broken words, truncations and all."""
    engine = LocalEngine(load_model(TINY_MODEL), load_tokenizer(TINY_MODEL))
    groups = ask(
        engine,
        grader,
        [double(), double(visible=())],
        hint="none",
        completions_per_task=3,
        sampling=Sampling(temperature=1.0, max_new_tokens=24, seed=1),
        agent=RepairLoop(),
    )
    for answer in (one for group in groups for one in group):
        assert answer.episode is not None
        turns, completion = answer.episode.turns, answer.completion
        assert len(turns) == 3
        conversation: tuple[int, ...] = ()
        for turn in turns:
            conversation += turn.new_ids + turn.token_ids
        assert completion.prompt_ids + completion.token_ids == conversation
        drawn = [token for token, mark in zip(completion.token_ids, completion.sampled, strict=True) if mark]
        assert drawn == [token for turn in turns for token in turn.token_ids]
        told = recorded(answer).turns
        assert told is not None
        assert [turn.role for turn in told] == ["assistant", "user", "assistant", "user", "assistant"]
        assert [turn.end for turn in told][:-1] == [turn.start for turn in told][1:]
        for turn in told:
            assert set(completion.sampled[turn.start : turn.end]) == {turn.role == "assistant"}
        decoded = engine.tokenizer.decode(list(conversation))
        assert decoded.count("<|im_start|>assistant") == 3
        assert decoded.count("Answer with") == 3


def test_the_same_seed_gives_the_same_episodes(grader: Grader) -> None:
    def sampled() -> list[tuple[int, ...]]:
        engine = LocalEngine(load_model(TINY_MODEL), load_tokenizer(TINY_MODEL))
        sampling = Sampling(temperature=1.0, max_new_tokens=16, seed=7)
        groups = ask(
            engine, grader, [double()], hint="none", completions_per_task=2, sampling=sampling, agent=RepairLoop(2)
        )
        return [one.completion.token_ids for group in groups for one in group]

    first = sampled()
    assert first == sampled()
    assert first[0] != first[1]


def test_of_a_repository_the_named_tests_and_those_that_pass_are_visible() -> None:
    tests = RepositoryTests(fail_to_pass=("t.py::test_a", "t.py::test_ab"), pass_to_pass=("t.py::test_c",))
    task = double().model_copy(update={"tests": tests, "description": "These tests fail:\n- t.py::test_ab"})
    visible = visible_only(task)
    assert visible is not None
    assert isinstance(visible.tests, RepositoryTests)
    assert visible.tests.fail_to_pass == ("t.py::test_ab",)
    assert visible.tests.pass_to_pass == ("t.py::test_c",)
    assert visible_only(task.model_copy(update={"description": "It fails."})) is None


@pytest.mark.parametrize("most", [5, 6, 7, 40])
def test_long_feedback_keeps_its_beginning_and_its_end(most: int) -> None:
    found = shortened("b" + "x" * 100 + "e", most)
    assert len(found) == most
    if most == 40:
        assert (found[0], found[-1]) == ("b", "e")


def test_a_repository_is_repaired_by_its_own_tests_and_judged_by_all(grader: Grader) -> None:
    """The description names one failing test; another stays hidden, and one passes already."""
    suite = (
        "from shop import total\n\n\ndef test_two():\n    assert total([1, 2]) == 3\n\n\n"
        "def test_hidden():\n    assert total([4, 5]) == 9\n\n\ndef test_none():\n    assert total([]) == 0\n"
    )
    head = "def total(numbers):\n"
    task = Task(
        task_id="shop",
        kind=Kind.REPAIR,
        files={"shop.py": head + "    return 0\n", "test_shop.py": suite},
        description="These tests fail:\n- test_shop.py::test_two",
        oracle={"shop.py": head + "    return sum(numbers)\n"},
        tests=RepositoryTests(
            fail_to_pass=("test_shop.py::test_two", "test_shop.py::test_hidden"),
            pass_to_pass=("test_shop.py::test_none",),
        ),
        split=Split.TRAIN,
        problem="shop",
        origin=Origin(source="test"),
        licence="MIT",
    )

    def replaced(new: str) -> str:
        return "shop.py\n" + edit("0", new)

    breaking, cheating = replaced("numbers[0] + 2"), "test_shop.py\n<<<<<<< SEARCH\nimport x\n=======\n>>>>>>> REPLACE"
    answer, episode = attempted(grader, breaking, cheating, replaced("sum(numbers)"), task=task)
    told = [message["content"] for message in episode.messages if message["role"] == "user"][1:]
    assert "test_none" in told[0] or "IndexError" in told[0]
    assert "not applied" in told[1]
    assert (answer.verdict.passed, episode.ending, len(episode.turns)) == (True, Ending.FINISHED, 3)
    narrow, _ = attempted(grader, replaced("3 if numbers else 0"), task=task)
    assert narrow.verdict.outcome is Outcome.FAILED
    assert len(narrow.verdict.tests) == 3


@pytest.mark.skipif(embedded_model_folder() is None, reason="run `crrl model fetch` first")
def test_the_embedded_models_template_goes_on_where_its_answer_ended(grader: Grader) -> None:
    """Greedy words tokenise as they were drawn, so that the spliced tokens must be those of the whole conversation."""
    name = str(embedded_model_folder())
    engine = LocalEngine(load_model(name), load_tokenizer(name))
    sampling = Sampling(temperature=0.0, max_new_tokens=12)
    groups = ask(
        engine, grader, [double()], hint="none", completions_per_task=1, sampling=sampling, agent=RepairLoop(2)
    )
    episode = groups[0][0].episode
    assert episode is not None
    assert len(episode.turns) == 2
    written = TemplateFormat(engine.tokenizer, engine.context_tokens)
    before = (*episode.turns[0].new_ids, *episode.turns[0].token_ids, *episode.turns[1].new_ids)
    assert written.encode(episode.messages[:-1]) == before
