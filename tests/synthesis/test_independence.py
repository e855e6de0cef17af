"""What belongs together goes to one split, whatever the source says of its parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.synthesis.independence import problems_of, splits_of
from code_repair_rl.tasks import Split
from code_repair_rl.tasks.vulnerabilities import LabelledFunction


def function(number: int, **more: object) -> LabelledFunction:
    return LabelledFunction(function_id=str(number), code=f"f{number}()\n", vulnerable=number % 2 == 0, **more)  # type: ignore[arg-type]


def test_a_source_that_splits_rows_of_one_project_keeps_its_splits() -> None:
    splits = [Split.TRAIN] * 4 + [Split.VALIDATION] * 2 + [Split.TEST] * 2
    found = [function(number, project="shop", split=split) for number, split in enumerate(splits)]
    problems = problems_of(found)
    by_problem = splits_of(found, problems)
    assert [by_problem[problems[one.function_id]] for one in found] == splits
    assert len(set(problems.values())) == 3


def test_a_pair_over_two_commits_is_one_problem() -> None:
    found = [
        function(0, commit="before", pair_id="P"),
        function(1, commit="after", pair_id="P"),
        function(2, commit="after"),
        function(3, commit="elsewhere"),
    ]
    problems = problems_of(found)
    assert problems["0"] == problems["1"] == problems["2"] != problems["3"]


def test_a_commit_that_the_source_has_in_two_splits_goes_to_the_one_that_is_judged_on() -> None:
    found = [
        function(0, project="p", commit="c", split=Split.TRAIN),
        function(1, project="p", commit="c", split=Split.TEST),
    ]
    problems = problems_of(found)
    assert splits_of(found, problems) == {"p/c": Split.TEST}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "p", "q"]),
            st.sampled_from(["", "c", "d", "e"]),
            st.sampled_from([None, "1", "2", "3"]),
            st.sampled_from([None, *Split]),
        ),
        max_size=12,
    )
)
def test_the_sides_of_a_pair_are_never_split(rows: list[tuple[str, str, str | None, Split | None]]) -> None:
    found = [
        function(number, project=project, commit=commit, pair_id=pair, split=split)
        for number, (project, commit, pair, split) in enumerate(rows)
    ]
    problems = problems_of(found)
    splits = splits_of(found, problems)
    for pair in {one.pair_id for one in found} - {None}:
        assert len({splits[problems[one.function_id]] for one in found if one.pair_id == pair}) == 1
