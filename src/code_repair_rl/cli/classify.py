"""`crrl classify`: is a file vulnerable, how sure are several answers, and which lines do they cite."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax

from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from code_repair_rl.pipelines.classify import NotAsked, Opinion

_LEAST_SHARE = 0.25
"""Lines that fewer of the winning answers cite are not highlighted."""
_OPINION = "This is a model's opinion, not a proof: read the cited lines."


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("classify")(classify)


def classify(
    file: Path = typer.Argument(..., help="The source file (Python, C or C++)."),
    model: str = typer.Option(
        "smollm2-135m-instruct", "--model", "-m", help="A name, folder or hub id; one trained for it."
    ),
    samples: int = typer.Option(8, "--samples", min=1, help="Answers that vote."),
    labels: str = typer.Option(
        "binary", "--labels", help="What the model was trained on: binary, full (any CWE), or the labels, with commas."
    ),
    lines: str | None = typer.Option(None, "--lines", help="Only this stretch: 10-40."),
    temperature: float = typer.Option(0.8, "--temperature", min=0.0, max=2.0, help="0 is greedy."),
    max_new_tokens: int = typer.Option(112, "--max-new-tokens", min=1, help="Longest answer."),
    max_prompt_tokens: int = typer.Option(
        768, "--max-prompt-tokens", min=16, help="A longer Python file is asked about function by function."
    ),
    seed: int = typer.Option(0, "--seed", help="The same seed samples the same answers."),
    fail: bool = typer.Option(
        False,
        "--fail-if-vulnerable",
        help="End with 1 where a verdict is vulnerable, with 4 where some of it got no verdict.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one object."),
) -> None:
    """Ask a model several times whether code is vulnerable: the verdict, its share of the votes, the lines cited.

    Every citation is checked against the file; lines that the winning answers agree on are highlighted.
    """
    from code_repair_rl.models import EMBEDDED_MODEL, faster_dtype, load_model, load_tokenizer, settle_process
    from code_repair_rl.pipelines.classify import opinions, sections_of
    from code_repair_rl.rollouts import Sampling
    from code_repair_rl.rollouts.local import LocalEngine

    text = _read(file)
    names = _names(labels)
    say = Console(stderr=True, highlight=False, soft_wrap=True)
    if model == EMBEDDED_MODEL:
        say.print(f"[yellow]{model} as it comes writes hardly any readable answer:[/] see docs/classification.md")
    with say.status(f"loading {model}") if say.is_terminal else nullcontext():
        settle_process(None)
        engine = LocalEngine(load_model(model, dtype=faster_dtype(), to_sample=True), load_tokenizer(model))
    stretch = _stretch(lines)
    sections = sections_of(file.name, text, engine, labels=names, max_prompt_tokens=max_prompt_tokens, lines=stretch)
    asking = f"sampling {samples} answers each for {len(sections.asked)}"
    with say.status(asking) if say.is_terminal else nullcontext():
        found = opinions(sections.asked, engine, samples=samples, sampling=Sampling(temperature, max_new_tokens, seed))
    verdict = _verdict(found, sections.not_asked)
    if as_json:
        typer.echo(json.dumps(_plain(file, model, samples, found, sections.not_asked, verdict)))
    else:
        for one in found:
            show(one, text, file)
        for rest in sections.not_asked:
            place = f"{file}:{rest.first}-{rest.last}" + (f" {rest.name}" if rest.name else "")
            typer.echo(f"{place}  NOT asked about: {rest.reason}")
        typer.echo(_OPINION)
    if fail and verdict is not False:
        raise typer.Exit(1 if verdict else 4)


def _verdict(found: Sequence[Opinion], not_asked: Sequence[NotAsked]) -> bool | None:
    """Whether anything is called vulnerable; None where nothing is, but not all of the file got a verdict."""
    if any(one.vulnerable for one in found):
        return True
    return None if not_asked or not all(one.readable for one in found) else False


def show(found: Opinion, text: str, file: Path, console: Console | None = None) -> None:
    """Print one opinion, its cited lines highlighted in the source."""
    out = console or Console(highlight=False)
    section = found.section
    colour = "red" if found.vulnerable else "yellow" if found.label == "unreadable" else "green"
    place = f"{file}:{section.first}-{section.last}" + (f" {section.name}" if section.name else "")
    out.print(
        f"[bold]{escape(place)}[/]  [bold {colour}]{escape(found.label)}[/]  {found.vote_share:.0%} of the votes",
        soft_wrap=True,
    )
    out.print("  votes: " + ", ".join(f"{label} {share:.0%}" for label, share in found.votes.items()), markup=False)
    if found.weighted_label != found.label:
        out.print(f"  weighted by evidence it would be {found.weighted_label}", markup=False)
    for line in found.lines[:5]:
        out.print(f"  line {line.number} cited by {line.share:.0%}: {line.text.strip()}", markup=False, soft_wrap=True)
    if found.misquoted:
        out.print(f"  {found.misquoted} citations are not in the file as quoted", markup=False)
    marked = {line.number for line in found.lines if line.share >= _LEAST_SHARE}
    out.print(
        Syntax(
            text,
            _LEXERS.get(file.suffix.lower(), "c"),
            line_numbers=True,
            line_range=(section.first, section.last),
            highlight_lines=marked,
            background_color="default",
        )
    )


_LEXERS = {".py": "python", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp", ".hpp": "cpp"}


def _read(file: Path) -> str:
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the file is not UTF-8 text ({error.reason})", where=str(file)) from error
    if not text.strip():
        raise BadInput("the file is empty", where=str(file))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _names(labels: str) -> tuple[str, ...]:
    """The labels that are asked for; empty for any CWE."""
    from code_repair_rl.tasks.classification import BENIGN, label_names

    names = tuple(part.strip() for part in labels.split(","))
    if labels.startswith("top-") or (len(names) > 1 and (BENIGN not in names or not all(names))):
        raise BadInput(
            f"{labels!r} does not say which labels there are",
            where="--labels",
            mend=f"name all of them: {BENIGN},CWE-89,CWE-78,other",
        )
    return names if len(names) > 1 else label_names(labels, [])


def _stretch(lines: str | None) -> tuple[int, int] | None:
    if lines is None:
        return None
    match = re.fullmatch(r"(\d+)-(\d+)", lines)
    if match is None:
        raise BadInput(f"{lines!r} is no stretch of lines", where="--lines", mend="write 10-40")
    return int(match[1]), int(match[2])


def _plain(
    file: Path,
    model: str,
    samples: int,
    found: Sequence[Opinion],
    not_asked: Sequence[NotAsked],
    verdict: bool | None,
) -> dict[str, object]:
    return {
        "file": str(file),
        "model": model,
        "samples": samples,
        "vulnerable": verdict,
        "note": _OPINION,
        "sections": [
            {
                "name": one.section.name,
                "first_line": one.section.first,
                "last_line": one.section.last,
                "label": one.label,
                "vote_share": one.vote_share,
                "votes": dict(one.votes),
                "evidence_weighted_label": one.weighted_label,
                "lines": [{"number": n.number, "share": n.share, "text": n.text} for n in one.lines],
                "misquoted": one.misquoted,
            }
            for one in found
        ],
        "not_asked": [
            {"name": one.name, "first_line": one.first, "last_line": one.last, "reason": one.reason}
            for one in not_asked
        ],
    }
