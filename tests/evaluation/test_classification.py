"""A classifier's figures, against known answers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import evaluate
from code_repair_rl.evaluation.classification import (
    BAG_OF_WORDS,
    ClassificationResult,
    ClassifiedTask,
    LabelledSample,
    classification_path,
    keep_classification,
)
from code_repair_rl.evaluation.classification_summary import (
    calibration,
    compare_classifiers,
    pair_outcomes,
    summarise,
    vd_s,
)
from code_repair_rl.evaluation.votes import evidence_weighted, majority, with_k
from code_repair_rl.grading import Grader
from code_repair_rl.rollouts import Sampling
from code_repair_rl.rollouts.scripted import ScriptedEngine
from code_repair_rl.runs import RunDir
from code_repair_rl.tasks import Split, Task, oracle_answer, write_tasks
from tests.tasks.labelled import CODE, labelled

V, B = "vulnerable", "benign"


def said(label: str | None, *cited: int, misquoted: int = 0, f1: float | None = None) -> LabelledSample:
    return LabelledSample(label, None if label else "no-think", cited, misquoted, f1, f1, f1, f1)


def classified(
    truth: str, *samples: LabelledSample, number: int = 0, pair: str | None = None, problem: str | None = None
) -> ClassifiedTask:
    baselines = {"majority class": B, "bag of words": V}
    return ClassifiedTask(f"t{number}", problem or f"p{number}", truth, pair, 6, 1, baselines, samples)


def result(*tasks: ClassifiedTask, name: str = "r") -> ClassificationResult:
    return ClassificationResult(name, "m", "s", "test", "0", (B, V), len(tasks[0].samples), 0.8, (), tasks)


def test_majority_counts_readable_answers_and_shares_ties() -> None:
    assert majority([said(V), said(V), said(B), said(None)]) == {V: 1.0}
    assert majority([said(V), said(B)]) == {V: 0.5, B: 0.5}
    assert majority([said(None)]) == {"unreadable": 1.0}


def test_agreeing_evidence_outvotes_scattered_evidence() -> None:
    scattered = [said(V, 1), said(V, 4), said(V, 5)]
    agreeing = [said(B, 2), said(B, 2)]
    assert majority([*scattered, *agreeing]) == {V: 1.0}
    assert evidence_weighted([*scattered, *agreeing]) == {B: 1.0}


def test_misquoted_evidence_weighs_less_and_citing_nothing_is_a_citation() -> None:
    assert evidence_weighted([said(V, misquoted=1), said(B)]) == {B: 1.0}
    assert evidence_weighted([said(V, misquoted=1), said(None)]) == {V: 1.0}  # no evidence at all: majority
    assert evidence_weighted([said(B), said(B), said(V, 2), said(V, 3)]) == {B: 1.0}


def test_votes_of_k_are_means_over_all_subsets() -> None:
    samples = [said(V), said(V), said(B)]
    assert with_k(samples, 1, majority, "x") == pytest.approx({V: 2 / 3, B: 1 / 3})
    assert with_k(samples, 2, majority, "x") == pytest.approx({V: 2 / 3, B: 1 / 3})
    assert with_k(samples, 3, majority, "x") == {V: 1.0}
    with pytest.raises(ValueError, match="needs at least"):
        with_k(samples, 4, majority, "x")


def test_many_subsets_are_drawn_the_same_for_the_same_seed() -> None:
    samples = [said(V)] * 9 + [said(B)] * 7
    one = with_k(samples, 8, majority, "x")
    assert one == with_k(samples, 8, majority, "x")
    assert sum(one.values()) == pytest.approx(1.0)
    assert one[V] > 0.5


def test_pair_outcomes_are_primevuls() -> None:
    def pair(number: int, vulnerable: str, fixed: str) -> list[ClassifiedTask]:
        return [
            classified(V, said(vulnerable), number=2 * number, pair=f"{number}", problem=f"p{number}"),
            classified(B, said(fixed), number=2 * number + 1, pair=f"{number}", problem=f"p{number}"),
        ]

    tasks = [*pair(0, V, B), *pair(1, V, V), *pair(2, B, B), *pair(3, B, V), *pair(4, V, B),
             classified(V, said(V), number=99)]  # fmt: skip
    found = pair_outcomes(tasks, [majority(task.samples) for task in tasks])
    assert found is not None
    values = [found.both_right, found.both_vulnerable, found.both_benign, found.reversed]
    assert [one.value for one in values] == pytest.approx([0.4, 0.2, 0.2, 0.2])
    assert found.pairs == 5
    assert found.unreadable.value == 0.0
    assert pair_outcomes(tasks[-1:], [{V: 1.0}]) is None


def test_an_unreadable_side_of_a_pair_is_neither_right_nor_benign() -> None:
    tasks = [
        task
        for n in range(6)
        for task in (
            classified(V, said(V), number=2 * n, pair=f"{n}", problem=f"p{n}"),
            classified(B, said(None), number=2 * n + 1, pair=f"{n}", problem=f"p{n}"),
        )
    ]
    found = pair_outcomes(tasks, [majority(task.samples) for task in tasks])
    assert found is not None
    assert [one.value for one in found.rates.values()] == [0.0, 0.0, 0.0, 0.0, 1.0]
    missed = vd_s(tasks)
    assert missed is not None
    assert missed.value == 1.0  # an unreadable answer on benign code is no reason to trust the other claims


def test_vd_s_is_what_is_missed_where_hardly_anything_is_wrongly_accused() -> None:
    def task(number: int, truth: str, share: float) -> ClassifiedTask:
        yes = round(10 * share)
        return classified(truth, *[said(V)] * yes, *[said(B)] * (10 - yes), number=number)

    tasks = [task(n, V, share) for n, share in enumerate((0.9, 0.8, 0.7, 0.2))]
    tasks += [task(10 + n, B, share) for n, share in enumerate((0.7, 0.1, 0.1, 0.0))]
    found = vd_s(tasks)  # the threshold is 0.8: 0.7 would accuse a quarter of the benign ones
    assert found is not None
    assert found.value == pytest.approx(0.5)
    assert found.low <= found.value <= found.high
    assert vd_s([task(0, V, 1.0)]) is None
    accused = vd_s([task(n, V if n % 2 else B, 1.0) for n in range(20)])
    assert accused is not None
    assert accused.value == accused.high == 1.0
    assert accused.low < 0.9  # twenty problems without any variation still say no more than that


def test_calibration_of_a_known_case() -> None:
    # Two tasks with share 1.0 (one right), two with 0.6 (both right): |1 - 0.5| / 2 + |0.6 - 1| / 2 = 0.45.
    sure, unsure = [said(V)] * 5, [said(V)] * 3 + [said(B)] * 2
    tasks = [classified(t, *s, number=n) for n, (t, s) in enumerate([(V, sure), (B, sure), (V, unsure), (V, unsure)])]
    found = calibration(tasks)
    assert found.error.value == pytest.approx(0.45)
    assert [(one.tasks, one.accuracy.value) for one in found.bins] == [(2, 1.0), (2, 0.5)]
    assert found.left_out == 0


def test_without_a_verdict_there_is_nothing_to_calibrate() -> None:
    read = [classified(V, said(V), said(None), number=n) for n in range(4)]
    unread = [classified(V, said(None), said(None), number=10 + n) for n in range(8)]
    assert calibration([*read, *unread]).error == calibration(read).error
    assert calibration([*read, *unread]).left_out == 8
    assert math.isnan(calibration(unread).error.value)


def test_a_summary_has_the_baselines_beside_the_model() -> None:
    tasks = [
        classified(V if n % 2 else B, *[said(V if n % 2 else B, 2, f1=0.5)] * 3, said(None), number=n) for n in range(8)
    ]
    found = summarise(result(*tasks))
    assert found.scores["one sample"].balanced_accuracy.value == pytest.approx(0.75)
    assert found.scores["majority of 4"].balanced_accuracy.value == 1.0
    assert found.scores["majority class"].balanced_accuracy.value == 0.5
    assert found.scores["random"].mcc.value == pytest.approx(0.0)
    assert found.scores["bag of words"].accuracy.value == 0.5
    assert list(found.curve["majority"]) == [1, 2, 4]
    assert found.evidence is not None
    assert found.evidence.f1.value == pytest.approx(0.375)  # an unreadable answer has cited nothing
    assert found.evidence.every_line.value == pytest.approx(2 / 6 / (1 + 1 / 6))
    assert found.errors == {"no-think": 8}
    assert found.claims
    refused = dataclasses.replace(result(*tasks), notes=("NOTHING IS CLAIMED on it",))
    assert not summarise(refused).claims


def test_the_paired_difference_of_two_classifiers() -> None:
    before = result(*[classified(V if n % 2 else B, said(B), number=n) for n in range(40)])
    after = result(*[classified(V if n % 2 else B, said(V if n % 2 else B), number=n) for n in range(40)])
    found = compare_classifiers(before, after)
    assert found.value == pytest.approx(0.5)
    assert found.low > 0.0
    nothing = compare_classifiers(before, before)
    assert nothing.value == 0.0
    assert nothing.low < 0.0 < nothing.high
    with pytest.raises(BadInput, match="not asked the same"):
        compare_classifiers(before, dataclasses.replace(after, tasks_sha256="1"))


def _tasks() -> list[Task]:
    found = []
    for number in range(12):
        split = Split.TRAIN if number < 6 else Split.TEST
        for label in (V, B):
            code = CODE.replace("find", f"find_{number}").replace("% name", "% name" if label == V else ", name")
            found.append(
                labelled(
                    label, code=code, task_id=f"{number}/{label}", problem=str(number), split=split, pair=str(number)
                )
            )
    return found


def test_an_evaluation_keeps_what_was_found_about_labels(tmp_path: Path) -> None:
    tasks = _tasks()
    write_tasks(tmp_path / "set.jsonl", tasks)
    asked = [task for task in tasks if task.split is Split.TEST]
    answers = {oracle_answer(task) for task in asked}
    vulnerable = next(text for text in answers if "<answer>vulnerable" in text)
    engine = ScriptedEngine(lambda prompt, number: vulnerable if "% name" in prompt or number else "?")
    run = RunDir.create(tmp_path / "run", {"name": "eval"}, resume=False)
    with Grader(workers=1) as grader:
        evaluated = evaluate(
            engine, asked, grader, name="x", model="m", task_set=str(tmp_path / "set.jsonl"), hint="none", samples=2,
            sampling=Sampling(0.8, 500, 0), samples_path=run.eval_samples_path("x"),
        )  # fmt: skip
    found = keep_classification(run, evaluated, tasks)
    again = ClassificationResult.read(classification_path(run, "x"))
    assert again == found
    by_id = {task.task_id: task for task in found.tasks}
    assert [sample.label for sample in by_id["7/vulnerable"].samples] == [V, V]
    assert [sample.label for sample in by_id["7/benign"].samples] == [None, V]
    assert by_id["7/benign"].baselines[BAG_OF_WORDS] in (V, B)
    figures = summarise(found)
    assert figures.pairs["one sample"].both_vulnerable.value == pytest.approx(0.5)
    assert figures.pairs["one sample"].unreadable.value == pytest.approx(0.5)
    assert not math.isnan(figures.readable.value)


def test_another_file_is_refused_by_key(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"name": "x"}')
    with pytest.raises(BadInput, match="model"):
        ClassificationResult.read(tmp_path / "x.json")
