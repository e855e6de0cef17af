"""Repository tasks of published instances: SWE-bench, SWE-Gym, SWE-smith, R2E-Gym.

The tree is what `git archive` gives of the base commit, kept once by content; tests are the files that the instance's
test patch leaves, laid over the answer's tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from code_repair_rl.edits import EditError, Tolerance, parse
from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.faults import exact_lines
from code_repair_rl.tasks.repositories import find_repository, licence_of, tree_at
from code_repair_rl.tasks.rows import HUB_PREFIX, data_set_rows
from code_repair_rl.tasks.splits import held_out, split_of
from code_repair_rl.tasks.swe_rows import Instance, bench_instance, gym_instance, smith_instance
from code_repair_rl.tasks.task import Environment, Hints, Kind, Origin, RepositoryTests, Split, Task
from code_repair_rl.tasks.trees import StoredTree, store_tree

_BENCH_IMAGES = "swebench/sweb.eval.x86_64."
_GYM_IMAGES = "xingyaoww/sweb.eval.x86_64."


@dataclass(frozen=True, slots=True)
class Collection:
    """A family of instances with one schema."""

    name: str
    read: Callable[[Any, str], Instance]
    hub: Mapping[str, tuple[str, str]]
    """Short name to hub name and split."""
    is_benchmark: bool = False
    """Whether others judge models by it: then every instance is in the test split, whatever is asked."""


COLLECTIONS: Mapping[str, Collection] = {
    one.name: one
    for one in (
        Collection(
            "swe-bench",
            lambda row, where: bench_instance(row, where, image_prefix=_BENCH_IMAGES, separator="_1776_"),
            {
                "full": ("princeton-nlp/SWE-bench", "test"),
                "lite": ("princeton-nlp/SWE-bench_Lite", "test"),
                "verified": ("princeton-nlp/SWE-bench_Verified", "test"),
                "multilingual": ("SWE-bench/SWE-bench_Multilingual", "test"),
            },
            is_benchmark=True,
        ),
        Collection(
            "swe-gym",
            lambda row, where: bench_instance(row, where, image_prefix=_GYM_IMAGES, separator="_s_"),
            {"full": ("SWE-Gym/SWE-Gym", "train"), "lite": ("SWE-Gym/SWE-Gym-Lite", "train")},
        ),
        Collection("swe-smith", smith_instance, {"full": ("SWE-bench/SWE-smith", "train")}),
        Collection(
            "r2e-gym",
            gym_instance,
            {"subset": ("R2E-Gym/R2E-Gym-Subset", "train"), "lite": ("R2E-Gym/R2E-Gym-Lite", "train")},
        ),
    )
}
"""Image names are those of the data sets' own harnesses; rows that name an image are believed."""


def instances(collection: str, source: str) -> Iterator[Instance]:
    """The instances of a file, folder, hub name (`hub:OWNER/NAME`) or short name (`verified`).

    Raises:
        BadInput: a row breaks the schema, or two have the same id; the error names row and key.
        MachineryFailed: the hub cannot be reached.
    """
    family = COLLECTIONS[collection]
    name, split = family.hub.get(source, ("", "train"))
    place_of_id: dict[str, str] = {}
    for where, row in data_set_rows(f"{HUB_PREFIX}{name}" if name else source, split=split):
        instance = family.read(row, where)
        if (first := place_of_id.setdefault(instance.instance_id, where)) != where:
            raise BadInput(f"instance_id: {instance.instance_id!r} is at {first} already", where=where)
        yield instance


def instance_task(
    instance: Instance,
    collection: str,
    repositories: str,
    *,
    hold_out: float = 0.0,
    licence: str | None = None,
    environment: Environment | None = None,
) -> Task:
    """The task of an instance.

    Args:
        instance: one of `instances`.
        collection: its family's name.
        repositories: where its repository is (`find_repository`).
        hold_out: share of problems (of injected bugs: of files) held out for testing, by hash; 0 leaves the usual
            shares.
        licence: SPDX identifier; by the repository's licence file where None.
        environment: what the tests need, in place of the instance's image; an empty one is the one that grades.

    Raises:
        BadInput: no such repository or commit, a patch does not apply, or an injected bug lies in files of different
            splits; the error names the row.
        MachineryFailed: the repository cannot be cloned.
    """
    base = _base(instance, repositories)
    before, oracle = _before_and_oracle(instance, base)
    problem, split = _problem_and_split(instance, collection, oracle, hold_out)
    digest = store_tree(base)
    overlay = {path: text for path, text in before.items() if base.get(path) != text}
    gone = [path for path in base if path not in before]
    files: Mapping[str, str] = StoredTree(store_tree(before), {}) if gone else StoredTree(digest, overlay)
    if environment is None and instance.image:
        environment = Environment(image=instance.image)
    return Task(
        task_id=f"{collection}/{instance.instance_id}",
        kind=Kind.REPAIR,
        files=files,
        description=instance.description,
        hints=Hints(exact_lines=exact_lines(before, oracle)),
        oracle=oracle,
        tests=RepositoryTests(
            fail_to_pass=instance.fail_to_pass,
            pass_to_pass=instance.pass_to_pass,
            test_files=_test_files(instance, before),
            source_roots=tuple(root for root in (".", "src", "lib") if root == "." or _is_folder(base, root)),
            environment=None if environment == Environment() else environment,
        ),
        split=split,
        problem=problem,
        origin=Origin(
            source=collection,
            version=instance.version,
            detail={
                "instance": instance.instance_id,
                "repository": instance.repository,
                "commit": instance.base_commit or "HEAD",
            },
        ),
        licence=licence or licence_of(base),
    )


def _base(instance: Instance, repositories: str) -> dict[str, str]:
    try:
        repository = find_repository(instance.repository, repositories)
        return dict(_tree(repository, instance.base_commit or "HEAD"))
    except BadInput as error:
        where = f"{instance.where} ({error.where})" if error.where else instance.where
        raise BadInput(error.what, where=where, mend=error.mend) from error


@lru_cache(maxsize=4)
def _tree(repository: Path, commit: str) -> Mapping[str, str]:
    return tree_at(repository, commit)


def _before_and_oracle(instance: Instance, base: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str | None]]:
    """The tree with the fault, and what the fix makes of the files that it touches."""
    if instance.texts is not None:
        oracle = {path: new for path, (_, new) in instance.texts.items()}
        for path, (old, _) in instance.texts.items():
            if base.get(path) != old:
                raise BadInput(f"parsed_commit_content: {path} is another one at the base commit", where=instance.where)
        return dict(base), oracle
    if instance.bug:
        changed = _changes(instance.bug, base, instance.where, "patch")
        before = {path: text for path, text in base.items() if path not in changed}
        before.update({path: text for path, text in changed.items() if text is not None})
        return before, {path: base.get(path) for path in changed}
    return dict(base), _changes(instance.fix, base, instance.where, "patch")


def _test_files(instance: Instance, before: Mapping[str, str]) -> dict[str, str]:
    if instance.test_files is not None:
        return dict(instance.test_files)
    if not instance.test_patch.strip():
        return {}
    changed = _changes(instance.test_patch, before, instance.where, "test_patch")
    return {path: text for path, text in changed.items() if text is not None}


def _changes(patch: str, files: Mapping[str, str], where: str, key: str) -> dict[str, str | None]:
    try:
        changed = parse(patch).changes(files, tolerance=Tolerance.EXACT).texts
    except EditError as error:
        raise BadInput(f"{key}: it does not apply to the base commit ({error})", where=where) from error
    if not changed:
        raise BadInput(f"{key}: it changes no text file", where=where)
    return dict(changed)


def _problem_and_split(
    instance: Instance, collection: str, oracle: Mapping[str, str | None], hold_out: float
) -> tuple[str, Split]:
    """Instances of a mined data set stand for themselves; of injected bugs those in the same files belong together.

    The split of injected bugs goes by file, so that a bug and another that holds it, too, never stand in two splits,
    and nothing moves when a source grows.
    """
    if not instance.bug:
        problem = f"{collection}/{instance.instance_id}"
        return problem, _split(problem, collection, hold_out)
    repository = f"{collection}/{instance.repository}"
    splits = {_split(f"{repository}/{path}", collection, hold_out) for path in oracle}
    if len(splits) > 1:
        raise BadInput("patch: the files that it changes are in different splits", where=instance.where)
    return f"{repository}/{'+'.join(sorted(oracle))}", splits.pop()


def _split(problem: str, collection: str, hold_out: float) -> Split:
    if COLLECTIONS[collection].is_benchmark:
        return Split.TEST
    if hold_out > 0:
        return Split.TEST if held_out(problem, hold_out) else _of_the_rest(problem)
    return split_of(problem)


def _of_the_rest(problem: str) -> Split:
    """Training or validation, in the usual proportion of 65 to 10."""
    return split_of(problem, train=87, validation=13)


def _is_folder(files: Mapping[str, str], folder: str) -> bool:
    return any(path.startswith(f"{folder}/") for path in files)
