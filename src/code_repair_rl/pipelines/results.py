"""What a journey leaves for good: a small JSON file for each recipe and seed, and the page that merges them.

The files lie under `docs/results/` and are committed; the page is written from them alone, so that the table grows
piece by piece and nobody types a figure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from code_repair_rl.errors import BadInput
from code_repair_rl.evaluation import Comparison, Estimate, EvalResult, compare, difference, summary
from code_repair_rl.home import write_atomically
from code_repair_rl.runs import RunDir, changed_keys

ORDER = ("base", "sft", "control", "grpo")
"""The models of a journey, as tables list them."""

RIVALS = ("sft", "control")
"""What `grpo` is compared with."""

STUDY_PREFIX = "study-"
"""Names of the recipes that the study holds against each other begin so."""

SCHEMA_VERSION = 1


def record(
    run: RunDir,
    stages: Mapping[str, Path] | None = None,
    forgetting: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """What is worth keeping of a finished journey, or of a unit of the study.

    Args:
        stages: folders of stages that do not lie in the run itself, by name.
        forgetting: what each model forgot, where that was measured.

    Raises:
        BadInput: the run has no evaluation of the model that it is about.
    """
    results = {name: EvalResult.read(run.eval_path(name)) for name in ORDER if name in run.eval_names()}
    last = results.get("grpo")
    if last is None and str(run.recipe()["name"]).startswith(STUDY_PREFIX):
        last = results.get("control")  # the unit that does not reinforce
    if last is None:
        raise BadInput("this journey is not finished", where=str(run.path), mend="start it again: it goes on")
    folders = {stage: run.path / stage for stage in ("sft", "grpo", "control")} | dict(stages or {})
    session = run.environment()[-1] if run.environment() else RunDir.open(folders["sft"]).environment()[-1]
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
        "differences": [
            _difference(compare(results[name], last))
            for name in RIVALS
            if name in results and results[name] is not last
        ],
        "forgetting": {
            name: {key: round(one, 4) for key, one in of.items()} for name, of in (forgetting or {}).items()
        },
        "training": {
            stage: _training(RunDir.open(folder))
            for stage, folder in folders.items()
            if (folder / "recipe.yaml").is_file()
        },
    }


def machine_of(session: Mapping[str, Any]) -> dict[str, Any]:
    """What a record keeps of the environment that a run was started in."""
    return {key: session.get(key) for key in ("git", "processor", "cores", "gpus", "python", "libraries")}


def keep(
    run: RunDir,
    folder: Path,
    stages: Mapping[str, Path] | None = None,
    forgetting: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """Write a journey's record into `folder`, under its recipe's name and seed; the rest as for `record`.

    Raises:
        BadInput: as for `record`; or another recipe's record of that name and seed is there.
    """
    kept = record(run, stages, forgetting)
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
    return "\n".join(filter(None, [study_table(records), *sections]))


def _settings(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without what may differ between seeds that are looked at together."""
    return {key: value for key, value in kept["recipe"].items() if key not in ("seed", "threads", "description")}


def pooled(records: Sequence[Mapping[str, Any]], rival: str) -> Estimate | None:
    """The difference of pass@1 between `grpo` and a rival, each task averaged over seeds, clustered by problem.

    None where a seed lacks the rival, or the seeds were not asked the same tasks.
    """
    if len({kept["asked"]["tasks_sha256"] for kept in records}) != 1:
        return None
    if not all(rival in kept["models"] for kept in records):
        return None
    values, problems = [], []
    for place, problem in enumerate(records[0]["problems"]):
        rates = [[_rate(kept["models"][name], place) for name in ("grpo", rival)] for kept in records]
        known = [(after, before) for after, before in rates if after is not None and before is not None]
        if len(known) == len(records):
            values.append(sum(after - before for after, before in known) / len(known))
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
    ks = sorted(first["models"][_last(first)]["pass_at"], key=int)
    lines = [
        f"## `{recipe['name']}`" + "".join(f", `{key}={_at(recipe, key)}`" for key in told),
        "",
        f"{recipe['description']} {len(first['problems'])} tasks of {len(set(first['problems']))} problems"
        f" ({asked['task_set']}, {asked['split']} split, hint `{asked['hint']}`), {asked['samples']} answers each at"
        f" temperature {asked['temperature']}. Brackets: 95 % intervals, clustered by problem.",
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
            if (estimate := pooled(records, rival)) is not None:
                lines.append(f"| all {len(records)} | grpo against {rival} | {_points(_bounds(estimate))} | |")
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


def _last(kept: Mapping[str, Any]) -> str:
    """The model that a record is about."""
    return "grpo" if "grpo" in kept["models"] else "control"


def study_table(records: Sequence[Mapping[str, Any]]) -> str:
    """The units of the study beside each other: pass@1 over the seeds they share, and each held against each.

    Empty where fewer than two recipes of the study have been run. Pairs that share no seed are left out.
    """
    units: dict[str, dict[int, Mapping[str, Any]]] = {}
    for kept in records:
        if str(kept["recipe"]["name"]).startswith(STUDY_PREFIX):
            units.setdefault(kept["recipe"]["name"], {})[kept["recipe"]["seed"]] = kept
    if len(units) < 2:
        return ""
    lines = ["## The study: which reward", "", "| recipe | seeds | pass@1 | pass@4 |", "| --- | --- | --- | --- |"]
    for name, seeds in units.items():
        cells = []
        for k in ("1", "4"):
            found = [kept["models"][_last(kept)]["pass_at"].get(k) for kept in seeds.values()]
            known = [100 * one[0] for one in found if one]
            cells.append(f"{sum(known) / len(known):.1f} %" if known else "–")
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    lines += ["", "| paired over tasks, seeds pooled | seeds | pass@1, points |", "| --- | --- | --- |"]
    names = list(units)
    for number, before in enumerate(names):
        for after in names[number + 1 :]:
            shared = sorted(units[before].keys() & units[after].keys())
            found_one = _between([(units[before][seed], units[after][seed]) for seed in shared])
            if found_one is not None:
                lines.append(f"| {after} against {before} | {len(shared)} | {_points(_bounds(found_one))} |")
    lines += _forgotten(units)
    return "\n".join([*lines, "", ""])


def _forgotten(units: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[str]:
    """What the models forgot, a row each; nothing where it was not measured."""
    rows = []
    for unit, seeds in units.items():
        for seed, kept in seeds.items():
            for model, of in kept.get("forgetting", {}).items():
                cells = (f"{100 * of['broken']:.1f} %", f"{100 * of['left_alone']:.1f} %")
                rows.append(f"| {unit} | {seed} | {model} | {' | '.join(cells)} | {of['coding_nats_per_token']:.3f} |")
    if not rows:
        return []
    head = "| recipe | seed | model | correct code broken | left alone | nats a token of ordinary solutions |"
    return ["", head, "| --- | --- | --- | --- | --- | --- |", *rows]


def _between(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Estimate | None:
    """The difference of pass@1 between the last models of paired records, clustered by problem."""
    if not pairs or len({kept["asked"]["tasks_sha256"] for pair in pairs for kept in pair}) != 1:
        return None
    values, problems = [], []
    for place, problem in enumerate(pairs[0][0]["problems"]):
        rates = [tuple(_rate(kept["models"][_last(kept)], place) for kept in pair) for pair in pairs]
        known = [(before, after) for before, after in rates if before is not None and after is not None]
        if len(known) == len(pairs):
            values.append(sum(after - before for before, after in known) / len(known))
            problems.append(str(problem))
    return difference(values, problems)


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
