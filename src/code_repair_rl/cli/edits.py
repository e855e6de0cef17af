"""`crrl edits`: a model's answer onto a working tree, the answer that would make one file of another, and checks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from code_repair_rl.edits.patch import Tolerance
from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.edits import Changes, EditError
    from code_repair_rl.edits.working_tree import WorkingTree

edits_app = typer.Typer(name="edits", help="Apply, build and check edits as models write them.", no_args_is_help=True)

Answer = Annotated[
    Path, typer.Argument(help="The answer: SEARCH/REPLACE blocks or a unified diff. - reads standard input.")
]
Root = Annotated[Path, typer.Option(help="The folder that the paths are relative to, or the one file to edit.")]
ToleranceOption = Annotated[Tolerance, typer.Option(help="How closely SEARCH lines must match.")]
Protect = Annotated[
    list[str] | None, typer.Option(help="A path, folder or pattern that must not be edited; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

STDIN = Path("-")


def add_to(app: typer.Typer) -> None:
    """Add the `edits` group to the application."""
    app.add_typer(edits_app)


@edits_app.command("apply")
def apply(
    answer: Answer = STDIN,
    root: Root = Path(),
    tolerance: ToleranceOption = Tolerance.INDENTATION,
    protect: Protect = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Apply an answer to the files on disk: all of it, or nothing."""
    from code_repair_rl.edits import parse

    tree = _tree(root)
    changes = parse(_read_answer(answer)).changes(tree, tolerance=tolerance, protected=protect or ())
    shown = _unified(tree, changes)
    kinds = {path: _kind(tree, path, text) for path, text in changes.texts.items()}
    if not dry_run:
        tree.write(changes.texts)
    if as_json:
        typer.echo(json.dumps({"applied": not dry_run, "rung": changes.rung.value, "changes": kinds, "diff": shown}))
        return
    print_diff(shown)
    _say_done(kinds, changes.rung, dry_run)


@edits_app.command("check")
def check(
    answer: Answer = STDIN,
    root: Root = Path(),
    tolerance: ToleranceOption = Tolerance.EXACT,
    protect: Protect = None,
    as_json: AsJson = False,
) -> None:
    """Say whether an answer can be read and applied; exit code 1 if not."""
    from code_repair_rl.edits import EditError, parse

    tree = _tree(root)
    text = _read_answer(answer)
    try:
        changes = parse(text).changes(tree, tolerance=tolerance, protected=protect or ())
    except EditError as error:
        if as_json:
            typer.echo(json.dumps(_error_object(error)))
        else:
            _console(stderr=True).print(Text(f"{error.kind.value}: ", style="bold red") + Text(str(error)))
        raise typer.Exit(1) from error
    kinds = {path: _kind(tree, path, text) for path, text in changes.texts.items()}
    if as_json:
        typer.echo(json.dumps({"ok": True, "rung": changes.rung.value, "changes": kinds}))
    else:
        _say_done(kinds, changes.rung, dry_run=True)


@edits_app.command("diff")
def diff_trees(
    before: Annotated[Path, typer.Argument(help="A file or folder.")],
    after: Annotated[Path, typer.Argument(help="What it should become: a file or folder.")],
    unified: Annotated[bool, typer.Option("--unified", help="Write a git-style unified diff.")] = False,
    paths: Annotated[bool, typer.Option(help="Write the path above the blocks of a single file.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print the smallest edit that leads from one file or folder to another, as a model should write it."""
    from code_repair_rl.edits import changed_tokens, diff
    from code_repair_rl.edits import unified as unified_text

    old, new = _two_trees(before, after)
    patch = diff(old, new)
    text = unified_text(old, new) if unified else patch.text(paths=paths)
    if as_json:
        blocks = sum(len(edit.hunks) for edit in patch.edits)
        numbers = {"files": len(patch.edits), "blocks": blocks, "changed_tokens": changed_tokens(old, new)}
        typer.echo(json.dumps({"text": text, **numbers}))
    elif unified:
        print_diff(text)
    else:
        sys.stdout.write(text)


def _read_answer(answer: Path) -> str:
    from code_repair_rl.edits import EditError, EditErrorKind

    try:
        data = sys.stdin.buffer.read() if answer == STDIN else answer.read_bytes()
    except OSError as error:
        raise BadInput(
            f"the answer cannot be read ({error.strerror})",
            where=str(answer),
            mend="name a file, or pipe the answer in and leave the name out",
        ) from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise EditError(EditErrorKind.NOT_TEXT, "the answer is not UTF-8 text", line=line) from error


def _tree(root: Path) -> WorkingTree:
    """A folder's files, or the one file named."""
    from code_repair_rl.edits.working_tree import WorkingTree

    return WorkingTree(root) if _is_folder(root) else WorkingTree(root.parent, only=root.name)


def _is_folder(place: Path) -> bool:
    try:
        if place.exists():
            return place.is_dir()
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror})", where=str(place)) from error
    raise BadInput("there is no such file or folder", where=str(place), mend="check its spelling")


def _two_trees(before: Path, after: Path) -> tuple[dict[str, str], dict[str, str]]:
    if _is_folder(before) != _is_folder(after):
        raise BadInput("one is a folder and the other a file", where=f"{before}, {after}", mend="name two of a kind")
    old, new = _tree(before), _tree(after)
    if before.is_dir():
        return dict(old), dict(new)
    return {before.name: old[before.name]}, {before.name: new[after.name]}


def _kind(before: Mapping[str, str], path: str, text: str | None) -> str:
    if text is None:
        return "deleted"
    return "modified" if path in before else "created"


def _unified(before: Mapping[str, str], changes: Changes) -> str:
    from code_repair_rl.edits import unified

    old = {path: before[path] for path in changes.texts if path in before}
    return unified(old, {path: text for path, text in changes.texts.items() if text is not None})


def _error_object(error: EditError) -> dict[str, object]:
    return {
        "ok": False,
        "kind": error.kind.value,
        "what": error.what,
        "line": error.line,
        "path": error.path,
        "places": list(error.places),
        "hint": error.hint,
    }


def _console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def print_diff(text: str) -> None:
    """Print a unified diff: in colours on a terminal, else to the byte, so that what is piped on can be applied."""
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    console = _console()
    header = False
    for line in text.split("\n")[:-1]:
        if line.startswith("diff --git "):
            header = True
        elif line.startswith("@@"):
            header = False
        console.print(Text(line, style="bold" if header else _STYLES.get(line[:1], "")))


def _say_done(kinds: Mapping[str, str], rung: Tolerance, dry_run: bool) -> None:
    console = _console(stderr=True)
    for line in _summary(kinds, rung, dry_run):
        console.print(Text(line))


def _summary(kinds: Mapping[str, str], rung: Tolerance, dry_run: bool) -> Iterable[str]:
    if not kinds:
        yield "the answer changes nothing"
        return
    for path, kind in sorted(kinds.items()):
        yield f"{'would be ' if dry_run else ''}{kind}: {path}"
    if rung is not Tolerance.EXACT:
        yield f"note: the SEARCH lines matched only under the tolerance {rung.value!r}"
