"""What a journey leaves for good: a small JSON file for each recipe and seed, and the page that merges them.

The files lie under `docs/results/` and are committed; the page is written from them alone, so that the table grows
piece by piece and nobody types a figure.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import (
    Comparison,
    Estimate,
    EvalResult,
    at_equal_tokens,
    compare,
    difference,
    summary,
)
from code_repair_rl.evaluation.equal_tokens import ENOUGH, can_be_compared
from code_repair_rl.home import write_atomically
from code_repair_rl.pipelines.forgetting import kept_path
from code_repair_rl.runs import RunDir, changed_keys

ORDER = ("base", "sft", "control", "grpo")
"""The models of a journey, as tables list them."""

RIVALS = ("sft", "control")
"""What `grpo` is compared with."""

_ABOUT_THE_UNIT = ("name", "reward", "study", "control")
"""Keys of a recipe in which the units of a study may differ."""

SCHEMA_VERSION = 1


def record(run: RunDir) -> dict[str, Any]:
    """What is worth keeping of a finished journey.

    Raises:
        BadInput: the run has not judged the model that it is about.
    """
    results = {name: EvalResult.read(run.eval_path(name)) for name in ORDER if name in run.eval_names()}
    last = results.get("grpo")
    if last is None:
        raise BadInput("this journey is not finished", where=str(run.path), mend="start it again: it goes on")
    folders = {stage: run.path / stage for stage in ("sft", "grpo", "control")}
    session = run.environment()[-1] if run.environment() else RunDir.open(folders["sft"]).environment()[-1]
    forgotten = {name: kept_path(run, name) for name in results}
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": run.recipe(),
        "warm_start_of": Path(adopted).name if (adopted := run.adopted("sft")) else None,
        "machine": machine_of(session),
        "asked": {
            key: getattr(last, key)
            for key in ("task_set", "split", "tasks_sha256", "hint", "samples", "temperature", "isolation")
        },
        "problems": [task.problem for task in last.tasks],
        "models": {name: _model(result) for name, result in results.items()},
        "differences": [_difference(compare(results[name], last)) for name in RIVALS if name in results],
        "at_equal_tokens": _against_single_answers(run, results),
        "forgetting": {
            name: {key: round(one, 4) for key, one in json.loads(path.read_text("utf-8")).items()}
            for name, path in forgotten.items()
            if path.is_file()
        },
        "training": {
            stage: _training(RunDir.open(folder))
            for stage, folder in folders.items()
            if (folder / "recipe.yaml").is_file()
        },
    }


def _against_single_answers(run: RunDir, results: Mapping[str, EvalResult]) -> list[dict[str, Any]]:
    """An agent's models against single answers of the run that its warm start is of, as far as they can be compared."""
    adopted = run.adopted("sft")
    if adopted is None or not results["grpo"].agent or not (Path(adopted) / "recipe.yaml").is_file():
        return []
    other = RunDir.open(adopted)
    found = []
    for mine, theirs in (("sft", "sft"), ("grpo", "sft"), ("grpo", "grpo"), ("grpo", "control")):
        if mine not in results or theirs not in other.eval_names():
            continue
        single = EvalResult.read(other.eval_path(theirs))
        if can_be_compared(results[mine], single):
            compared = at_equal_tokens(results[mine], single)
            figures = {key: _bounds(getattr(compared, key)) for key in ("agent", "rival", "difference", "best_of")}
            apart = [round(one, 4) for one in compared.apart]
            tokens = {key: round(getattr(compared, key), 1) for key in ("tokens", "agent_tokens", "answers")}
            found.append({"agent_of": mine, "single_of": theirs, **figures, **tokens, "apart": apart})
    return found


def machine_of(session: Mapping[str, Any]) -> dict[str, Any]:
    """What a record keeps of the environment that a run was started in."""
    return {key: session.get(key) for key in ("git", "processor", "cores", "gpus", "python", "libraries")}


def keep(run: RunDir, folder: Path) -> Path:
    """Write a journey's record into `folder`, under its recipe's name and seed.

    Raises:
        BadInput: as for `record`; or another recipe's record of that name and seed is there.
    """
    kept = record(run)
    path = folder / f"{kept['recipe']['name']}-seed{kept['recipe']['seed']}.json"
    if path.is_file() and (changed := changed_keys(_settings(json.loads(path.read_text("utf-8"))), _settings(kept))):
        raise BadInput(
            f"a record of other settings is there, which would be lost; different: {', '.join(changed)}",
            where=str(path),
            mend="run another seed, or move the record away",
        )
    write_atomically(path, json.dumps(kept, separators=(",", ":")) + "\n")
    return path


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records in a folder, by recipe and seed.

    Raises:
        BadInput: a file is no record.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {kept['schema_version']}")
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"this is no record of a run ({error})", where=str(path), mend="delete it") from error
        found.append(kept)
    return sorted(found, key=lambda kept: (kept["recipe"]["name"], kept["recipe"]["seed"]))


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown, a section for each recipe; seeds that were run with other settings have their own."""
    names = list(dict.fromkeys(str(kept["recipe"]["name"]) for kept in records))
    sections = []
    for name in names:
        alike: list[list[Mapping[str, Any]]] = []
        for kept in records:
            if kept["recipe"]["name"] == name:
                known = next((one for one in alike if not changed_keys(_settings(one[0]), _settings(kept))), None)
                if known is None:
                    alike.append([kept])
                else:
                    known.append(kept)
        differing = {key: None for one in alike[1:] for key in changed_keys(_settings(alike[0][0]), _settings(one[0]))}
        sections += [_section(one, list(differing)) for one in alike]
    return "\n".join(filter(None, [study_tables(records), *sections]))


def _settings(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without what may differ between seeds that are looked at together."""
    found = {key: value for key, value in kept["recipe"].items() if key not in ("seed", "threads", "description")}
    if "evaluation" in found:  # what else was measured changes no figure
        found["evaluation"] = {key: value for key, value in found["evaluation"].items() if key != "forgetting_tasks"}
    return found


Arm = tuple[Mapping[str, Any], str]
"""A record and one of its models."""


def pooled(pairs: Sequence[tuple[Arm, Arm]]) -> Estimate | None:
    """The difference of pass@1, the second of each pair over the first, averaged over pairs, clustered by problem.

    Args:
        pairs: one a seed.

    Returns:
        None where there is no pair, or not all were asked the same tasks.
    """
    if not pairs or len({kept["asked"]["tasks_sha256"] for pair in pairs for kept, _ in pair}) != 1:
        return None
    values, problems = [], []
    for place, problem in enumerate(pairs[0][0][0]["problems"]):
        rates = [tuple(_rate(kept["models"][model], place) for kept, model in pair) for pair in pairs]
        known = [(before, after) for before, after in rates if before is not None and after is not None]
        if len(known) == len(pairs):
            values.append(sum(after - before for before, after in known) / len(known))
            problems.append(str(problem))
    return difference(values, problems)


def _rate(model: Mapping[str, Any], place: int) -> float | None:
    graded = model["graded"][place]
    return model["passed"][place] / graded if graded else None


def _model(result: EvalResult) -> dict[str, Any]:
    found = summary(result)
    return {
        "passed": [task.passed for task in result.tasks],
        "graded": [task.graded for task in result.tasks],
        "pass_at": {str(k): _bounds(estimate) for k, estimate in found.pass_at.items()},
        "pass_within": {str(k): _bounds(estimate) for k, estimate in found.pass_within.items()},
        "format": _bounds(found.format_rate),
        "apply": _bounds(found.apply_rate),
        "outcomes": dict(found.outcomes),
        "mean_tokens": round(found.mean_tokens, 2),
        "no_verdict": found.no_verdict,
        "wall_seconds": result.wall_seconds,
    }


def _difference(found: Comparison) -> dict[str, Any]:
    return {
        "before": found.before,
        "after": found.after,
        "gained": len(found.gained),
        "lost": len(found.lost),
        "pass_at": {
            str(k): {"estimate": _bounds(one.estimate), "smallest_detectable": round(one.smallest_detectable, 4)}
            for k, one in found.pass_at.items()
        },
    }


def _training(run: RunDir) -> dict[str, Any]:
    """Steps, minutes and the curve of a stage."""
    wanted = ("pass_rate", "reward/total", "validation/pass_rate", "train/loss", "train/entropy", "train/kl")
    curve: dict[int, dict[str, float]] = {}
    for row in run.metrics():
        seen = {name: round(row.values[name], 4) for name in wanted if name in row.values}
        curve.setdefault(row.step, {}).update(seen)
    seconds = sum(row.values.get("time/step_seconds", 0.0) for row in run.metrics())
    return {"steps": max(curve, default=0), "minutes": round(seconds / 60, 2), "curve": curve}


def _bounds(estimate: Estimate) -> list[float]:
    """Value, low, high."""
    plain = asdict(estimate)
    return [round(plain[key], 4) for key in ("value", "low", "high")]


def _section(records: Sequence[Mapping[str, Any]], told: Sequence[str] = ()) -> str:
    """The records' tables; the heading tells the recipe's values at the dotted keys `told`."""
    first = records[0]
    asked, recipe = first["asked"], first["recipe"]
    ks = sorted(first["models"]["grpo"]["pass_at"], key=int)
    lines = [
        f"## `{recipe['name']}`" + "".join(f", `{key}={_at(recipe, key)}`" for key in told),
        "",
        f"{recipe['description']} {len(first['problems'])} tasks of {len(set(first['problems']))} problems"
        f" ({asked['task_set']}, {asked['split']} split, hint `{asked['hint']}`), {asked['samples']}"
        f" {_what(first)} each at temperature {asked['temperature']}. Brackets: 95 % intervals, clustered by problem.",
        "",
        f"| seed | model | trained, minutes | format | apply | {' | '.join(f'pass@{k}' for k in ks)} |",
        f"| --- | --- | --- | --- | --- | {' | '.join('---' for _ in ks)} |",
    ]
    for kept in records:
        for name in ORDER:
            if name in kept["models"]:
                lines.append(_row(kept, name, ks))
    lines += [
        "",
        "| seed | comparison | pass@1, points | smallest difference it could have shown |",
        "| --- | --- | --- | --- |",
    ]
    for kept in records:
        for found in kept["differences"]:
            one, compared = found["pass_at"]["1"], f"{found['after']} against {found['before']}"
            cells = (
                kept["recipe"]["seed"],
                compared,
                _points(one["estimate"]),
                f"{100 * one['smallest_detectable']:.1f}",
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    if len(records) > 1:
        for rival in RIVALS:
            if not all(rival in kept["models"] for kept in records):
                continue
            if (estimate := pooled([((kept, rival), (kept, "grpo")) for kept in records])) is not None:
                lines.append(f"| all {len(records)} | grpo against {rival} | {_points(_bounds(estimate))} | |")
    lines += [*_within(records), *_equal_tokens(records), *_forgotten(records)]
    shared = [f"seed {kept['recipe']['seed']} that of {kept['warm_start_of']}" for kept in records if _adopted(kept)]
    if shared:
        lines += ["", f'Warm starts taken over from another run: {", ".join(shared)}; "all" shares them, too.']
    machines = {_machine(kept["machine"]) for kept in records}
    commits = {str((kept["machine"]["git"] or {}).get("commit", "unknown"))[:10] for kept in records}
    lines += ["", f"Machine: {'; '.join(sorted(machines))}. Commit: {', '.join(sorted(commits))}.", ""]
    return "\n".join(lines)


def _adopted(kept: Mapping[str, Any]) -> bool:
    return kept.get("warm_start_of") is not None


def _at(recipe: Mapping[str, Any], key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _machine(kept: Mapping[str, Any]) -> str:
    gpus = "".join(f", {name}" for name in kept.get("gpus") or ())
    return f"{kept['processor']}, {kept['cores']} cores{gpus}"


def study_tables(records: Sequence[Mapping[str, Any]]) -> str:
    """Recipes that differ in their reward alone, beside each other: a table for each group of two or more."""
    alike: list[list[Mapping[str, Any]]] = []
    for kept in records:
        same = (one for one in alike if not changed_keys(_conditions(one[0]), _conditions(kept)))
        if (known := next(same, None)) is None:
            alike.append([kept])
        else:
            known.append(kept)
    studies = [one for one in alike if len({kept["recipe"]["name"] for kept in one}) > 1]
    return "\n".join(_study_table(one) for one in studies)


def _conditions(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What the units of a study share: the settings, whatever the reward and whether a control is trained."""
    return {key: value for key, value in _settings(kept).items() if key not in _ABOUT_THE_UNIT}


def _study_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Every way to train, over the seeds it was run with, and each held against each over the seeds they share."""
    arms: dict[str, dict[int, Arm]] = {}
    for model, way in (("sft", "warm start alone"), ("control", "more SFT"), ("grpo", "GRPO of `{}`")):
        for kept in records:
            if model in kept["models"]:
                seeds = arms.setdefault(way.format(kept["recipe"]["name"]), {})
                seeds.setdefault(kept["recipe"]["seed"], (kept, model))
    ks = ("1", "4")
    lines = ["## The study: which reward", "", f"| trained by | seeds | {' | '.join(f'pass@{k}' for k in ks)} |"]
    lines.append("| --- | --- | --- | --- |")
    for way, seeds in arms.items():
        cells = []
        for k in ks:
            known = [100 * one[0] for kept, model in seeds.values() if (one := kept["models"][model]["pass_at"].get(k))]
            cells.append(f"{sum(known) / len(known):.1f} %" if known else "–")
        lines.append(f"| {way} | {', '.join(map(str, sorted(seeds)))} | {' | '.join(cells)} |")
    if len({tuple(sorted(seeds)) for seeds in arms.values()}) > 1:
        lines += ["", "Rows with different seeds cannot be compared; what follows is over the seeds that both have."]
    lines += ["", "| paired over tasks, seeds pooled | seeds | pass@1, points |", "| --- | --- | --- |"]
    for before, after in itertools.combinations(arms, 2):
        shared = sorted(arms[before].keys() & arms[after].keys())
        found = pooled([(arms[before][seed], arms[after][seed]) for seed in shared])
        if found is not None:
            lines.append(f"| {after} against {before} | {', '.join(map(str, shared))} | {_points(_bounds(found))} |")
    return "\n".join([*lines, "", ""])


def _what(kept: Mapping[str, Any]) -> str:
    """What a model was asked for so many times."""
    agent = kept["recipe"].get("agent")
    return f"attempts of up to {agent['max_turns']} answers" if agent else "answers"


def _within(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many attempts of an agent passed with so many answers at most; nothing where there was no agent."""
    most = sorted({k for kept in records for model in kept["models"].values() for k in model.get("pass_within", ())})
    if not most:
        return []
    lines = ["", f"| seed | model | {' | '.join(f'passed within {k}' for k in most)} | tokens an attempt |"]
    lines.append(f"| --- | --- | {' | '.join('---' for _ in most)} | --- |")
    for kept in records:
        for name in ORDER:
            model = kept["models"].get(name, {})
            if within := model.get("pass_within"):
                cells = [_percent(within[k]) if k in within else "–" for k in most]
                row = (kept["recipe"]["seed"], name, *cells, f"{model['mean_tokens']:.0f}")
                lines.append(f"| {' | '.join(map(str, row))} |")
    return lines


def _equal_tokens(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """An agent against single answers that cost the same, chosen by the visible tests; nothing without an agent."""
    rows: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for kept in records:
        for one in kept.get("at_equal_tokens", ()):
            rows.setdefault((one["agent_of"], one["single_of"]), []).append((kept, one))
    if not rows:
        return []
    lines = ["", "| seed | with the agent | single answers, chosen by the visible tests | tokens | agent | single |"]
    lines[-1] += " agent over single, points |"
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for (mine, theirs), found in rows.items():
        for kept, one in found:
            rival = f"{theirs} of {kept['warm_start_of']}, up to {one['answers']:.1f}"
            figures = (_percent(one["agent"]), _percent(one["rival"]), _points(one["difference"]))
            tokens = f"{one['agent_tokens']:.0f}"
            if one["tokens"] < ENOUGH * one["agent_tokens"]:
                tokens += f", single at most {one['tokens']:.0f}"
            row = (kept["recipe"]["seed"], mine, rival, tokens, *figures)
            lines.append(f"| {' | '.join(map(str, row))} |")
        sizes = {len(one["apart"]) for _, one in found}
        if len(found) > 1 and sizes == {len(found[0][0]["problems"])}:
            means = [sum(values) / len(values) for values in zip(*(one["apart"] for _, one in found), strict=True)]
            pooled_difference = _bounds(difference(means, found[0][0]["problems"]))
            lines.append(f"| all {len(found)} | {mine} | {theirs} | | | | {_points(pooled_difference)} |")
    return lines


def _forgotten(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the models forgot, a row each; nothing where it was not measured."""
    rows = []
    for kept in records:
        for model, of in kept["forgetting"].items():
            cells = (f"{100 * of['broken']:.1f} %", f"{100 * of['left_alone']:.1f} %")
            rows.append(
                f"| {kept['recipe']['seed']} | {model} | {' | '.join(cells)} | {of['coding_nats_per_token']:.3f} |"
            )
    if not rows:
        return []
    head = "| seed | model | correct code broken | left alone | nats a token of ordinary solutions |"
    return ["", head, "| --- | --- | --- | --- | --- |", *rows]


def _row(kept: Mapping[str, Any], name: str, ks: Sequence[str]) -> str:
    model = kept["models"][name]
    minutes = f"{kept['training'][name]['minutes']:.1f}" if name in kept["training"] else "–"
    rates = " | ".join(_percent(model["pass_at"][k]) for k in ks)
    return (
        f"| {kept['recipe']['seed']} | {name} | {minutes} | {_percent(model['format'])} | {_percent(model['apply'])} |"
        f" {rates} |"
    )


def _percent(bounds: Sequence[float]) -> str:
    value, low, high = (100 * bound for bound in bounds)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _points(bounds: Sequence[float]) -> str:
    value, low, high = (100 * bound for bound in bounds)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
