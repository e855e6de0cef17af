"""The page of results: tables as Markdown, made of what finished journeys left (`pipelines.records`) alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from code_repair_rl.evaluation import Estimate, difference, rate
from code_repair_rl.evaluation.equal_tokens import ENOUGH
from code_repair_rl.pipelines.records import ORDER, RIVALS, bounds, settings_of
from code_repair_rl.runs import alike, changed_keys

_ABOUT_THE_UNIT = ("name", "reward", "study", "control")
"""Keys of a recipe in which the units of a study may differ."""

Arm = tuple[Mapping[str, Any], str]
"""A record and one of its models."""


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown, a section for each recipe; seeds that were run with other settings have their own."""
    names = list(dict.fromkeys(str(kept["recipe"]["name"]) for kept in records))
    sections = []
    for name in names:
        settings = alike((kept for kept in records if kept["recipe"]["name"] == name), settings_of)
        differing = {
            key: None for one in settings[1:] for key in changed_keys(settings_of(settings[0][0]), settings_of(one[0]))
        }
        sections += [_section(one, list(differing)) for one in settings]
    return "\n".join(filter(None, [study_tables(records), *sections]))


def pooled(pairs: Sequence[tuple[Arm, Arm]]) -> Estimate | None:
    """The difference of pass@1, the second of each pair over the first, averaged over pairs, clustered by problem.

    Args:
        pairs: one a seed.

    Returns:
        None where there is no pair, or not all were asked the same tasks.
    """
    if not pairs or len({kept["asked"]["tasks_sha256"] for pair in pairs for kept, _ in pair}) != 1:
        return None
    gains = [
        [None if a is None or b is None else a - b for b, a in zip(_rates(before), _rates(after), strict=True)]
        for before, after in pairs
    ]
    return difference(*_means(gains, pairs[0][0][0]["problems"]))


def pooled_rate(arms: Sequence[Arm]) -> Estimate | None:
    """pass@1 averaged over seeds, clustered by problem: of these seeds, on problems like these.

    Args:
        arms: one a seed.

    Returns:
        None where not all were asked the same tasks.
    """
    if len({kept["asked"]["tasks_sha256"] for kept, _ in arms}) != 1:
        return None
    return rate(*_means([_rates(arm) for arm in arms], arms[0][0]["problems"]))


def _rates(arm: Arm) -> list[float | None]:
    """pass@1 of each task; None where no answer has a verdict."""
    kept, name = arm
    model = kept["models"][name]
    return [
        passed / graded if graded else None for passed, graded in zip(model["passed"], model["graded"], strict=True)
    ]


def _means(seeds: Sequence[Sequence[float | None]], problems: Sequence[str]) -> tuple[list[float], list[str]]:
    """The values of each task averaged over seeds, with its problem, where all seeds have one."""
    whole = [
        (sum(known) / len(known), str(problem))
        for problem, values in zip(problems, zip(*seeds, strict=True), strict=True)
        if len(known := [value for value in values if value is not None]) == len(values)
    ]
    return [value for value, _ in whole], [problem for _, problem in whole]


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
                lines.append(f"| all {len(records)} | grpo against {rival} | {_points(bounds(estimate))} | |")
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
    studies = [one for one in alike(records, _conditions) if len({kept["recipe"]["name"] for kept in one}) > 1]
    return "\n".join(_study_table(one) for one in studies)


def _conditions(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What the units of a study share: the settings, whatever the reward and whether a control is trained."""
    return {key: value for key, value in settings_of(kept).items() if key not in _ABOUT_THE_UNIT}


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
        if (mean := pooled_rate(list(seeds.values()))) is not None:
            cells[0] = _percent(bounds(mean))
        lines.append(f"| {way} | {', '.join(map(str, sorted(seeds)))} | {' | '.join(cells)} |")
    if len({tuple(sorted(seeds)) for seeds in arms.values()}) > 1:
        lines += ["", "Rows with different seeds cannot be compared; what follows is over the seeds that both have."]
    lines += ["", "| paired over tasks, seeds pooled | seeds | pass@1, points |", "| --- | --- | --- |"]
    for before, after in itertools.combinations(arms, 2):
        shared = sorted(arms[before].keys() & arms[after].keys())
        found = pooled([(arms[before][seed], arms[after][seed]) for seed in shared])
        if found is not None:
            lines.append(f"| {after} against {before} | {', '.join(map(str, shared))} | {_points(bounds(found))} |")
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
            pooled_difference = bounds(difference(means, found[0][0]["problems"]))
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
