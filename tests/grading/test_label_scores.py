"""Scores of labels against known answers, and their intervals against simulation."""

from __future__ import annotations

import math
import random

import pytest

from code_repair_rl.grading.bag_of_words import fit, leak
from code_repair_rl.grading.label_scores import (
    UNREADABLE,
    certain,
    confusion,
    difference_of_balanced_accuracy,
    label_scores,
)
from code_repair_rl.tasks import Split, Task
from tests.tasks.labelled import labelled


def test_known_answers_for_two_labels() -> None:
    # 6 true positives, 2 false negatives, 1 false positive, 11 true negatives.
    truths = ["v"] * 8 + ["b"] * 12
    said = ["v"] * 6 + ["b"] * 2 + ["v"] + ["b"] * 11
    scores = label_scores(truths, [certain(label) for label in said], [str(n) for n in range(20)])
    assert scores.accuracy.value == pytest.approx(17 / 20)
    assert scores.balanced_accuracy.value == pytest.approx((6 / 8 + 11 / 12) / 2)
    assert scores.macro_f1.value == pytest.approx((2 * 6 / (8 + 7) + 2 * 11 / (12 + 13)) / 2)
    assert scores.mcc.value == pytest.approx((6 * 11 - 1 * 2) / math.sqrt(7 * 8 * 12 * 13))
    for one in (scores.accuracy, scores.balanced_accuracy, scores.macro_f1, scores.mcc):
        assert one.low < one.value < one.high


def test_known_answer_for_three_labels() -> None:
    # Confusion [[2,1,0],[0,2,0],[1,0,2]]: R_K = (6*8 - (3*3+2*3+3*2)) / sqrt((64-22)(64-22)) = 27/42.
    truths = ["a", "a", "a", "b", "b", "c", "c", "c"]
    said = ["a", "a", "b", "b", "b", "a", "c", "c"]
    scores = label_scores(truths, [certain(label) for label in said], list("01234567"))
    assert scores.mcc.value == pytest.approx(27 / 42)
    assert confusion(truths, [certain(label) for label in said]).counts == ((2, 1, 0), (0, 2, 0), (1, 0, 2))


def test_guessing_and_always_the_same_are_worth_what_they_should_be() -> None:
    truths = ["v"] * 5 + ["b"] * 15
    problems = [str(n) for n in range(20)]
    for one in ({"v": 0.5, "b": 0.5}, {"b": 1.0}):
        scores = label_scores(truths, [one] * 20, problems)
        assert scores.balanced_accuracy.value == pytest.approx(0.5)
        assert scores.mcc.value == pytest.approx(0.0)


def test_an_unreadable_answer_is_wrong() -> None:
    scores = label_scores(["v", "b"], [{"unreadable": 1.0}, certain("b")], ["1", "2"])
    assert scores.accuracy.value == 0.5
    assert scores.balanced_accuracy.value == 0.5


def test_one_label_only_has_no_balanced_accuracy() -> None:
    scores = label_scores(["v", "v"], [certain("v")] * 2, ["1", "2"])
    assert math.isnan(scores.balanced_accuracy.value)
    assert scores.accuracy.value == 1.0


def test_the_interval_of_an_accuracy_is_the_classical_one() -> None:
    values = [1.0] * 12 + [0.0] * 8
    scores = label_scores(["v"] * 20, [certain("v" if value else "b") for value in values], list(map(str, range(20))))
    error = math.sqrt(0.6 * 0.4 / 19)
    assert scores.accuracy.high - scores.accuracy.value == pytest.approx(2.0930 * error, rel=1e-3)


def test_intervals_cover_where_problems_succeed_and_fail_together() -> None:
    rng = random.Random(5)
    covered, runs = 0, 200
    for _ in range(runs):
        truths, said, problems = [], [], []
        for problem in range(40):
            skill = min(1.0, max(0.0, rng.gauss(0.7, 0.2)))  # shared by the four tasks of a problem
            for truth in "vvbb":
                right = rng.random() < skill
                truths.append(truth)
                said.append(certain(truth if right else ("b" if truth == "v" else "v")))
                problems.append(str(problem))
        found = label_scores(truths, said, problems).balanced_accuracy
        covered += found.low <= 0.6915 <= found.high  # the mean of the clipped normal
    assert 0.91 <= covered / runs <= 0.99


def test_a_bag_of_words_learns_what_words_tell_and_nothing_else() -> None:
    told = [f"call_{n}(shell)" for n in range(20)] + [f"call_{n}(quiet)" for n in range(20)]
    labels = ["v"] * 20 + ["b"] * 20
    assert fit(told, labels).predict(["other(shell)", "other(quiet)"]) == ["v", "b"]
    assert fit(["x = 1"] * 3, ["v"] * 3).predict(["y"]) == ["v"]


def _set(leaking: bool) -> list[Task]:
    rng = random.Random(4)
    tasks = []
    for number in range(300):
        label = rng.choice(["vulnerable", "benign"])
        word = {"vulnerable": "danger", "benign": "calm"}[label] if leaking else rng.choice(["danger", "calm"])
        split = Split.TRAIN if number < 150 else Split.TEST
        tasks.append(
            labelled(label, lines=(), code=f"{word}(x{rng.randrange(9)})\n", split=split,
                     task_id=str(number), problem=str(number))
        )  # fmt: skip
    return tasks


def test_the_leak_test_tells_a_set_that_gives_itself_away_from_one_that_does_not() -> None:
    given_away, honest = leak(_set(True)), leak(_set(False))
    assert given_away is not None
    assert honest is not None
    assert given_away.low > 0.9
    assert honest.low < 0.5 < honest.high


def test_two_classifiers_of_which_one_cannot_be_read_are_compared() -> None:
    truths, problems = ["a", "b"] * 6, [str(number) for number in range(12)]
    silent, right = [{UNREADABLE: 1.0}] * 12, [certain(truth) for truth in truths]
    assert difference_of_balanced_accuracy(truths, silent, right, problems).value == 1.0
    assert difference_of_balanced_accuracy(truths, right, silent, problems).value == -1.0
