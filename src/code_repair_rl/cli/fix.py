"""`crrl fix`: sample repairs for a user's own file, test them in the sandbox, show the one that passes, apply it."""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from code_repair_rl.cli.edits import print_diff
from code_repair_rl.errors import BadInput

if TYPE_CHECKING:
    from code_repair_rl.pipelines.fix import Found, Project, Suspect, Tally
    from code_repair_rl.rollouts import Engine
    from code_repair_rl.sandbox import JobResult


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("fix")(fix)


def fix(
    files: list[Path] = typer.Argument(..., help="Python files that may be repaired; nothing else is edited."),
    tests: str = typer.Option(..., "--tests", help="Command that decides, run in the project's folder: 'pytest -x'."),
    model: str = typer.Option("smollm2-135m-instruct", "--model", help="A model's name, folder or hub id."),
    root: Path = typer.Option(Path(), "--root", help="The project's folder; a copy of it is what the tests run in."),
    samples: int = typer.Option(96, "--samples", min=1, help="Answers to sample at most."),
    temperature: float = typer.Option(0.8, "--temperature", min=0.0, max=2.0, help="0 is greedy."),
    max_new_tokens: int = typer.Option(192, "--max-new-tokens", min=1, help="Longest answer."),
    description: str = typer.Option("", "--description", help="What the code should do; default: its docstring."),
    hint_lines: str = typer.Option("", "--hint-lines", help="Suspicious lines: '12,13', or 'a.py:12,b.py:7'."),
    timeout: float = typer.Option(60.0, "--timeout", min=1.0, help="Seconds that one run of the tests may take."),
    seed: int = typer.Option(0, "--seed", help="The same seed samples the same answers."),
    python: Path | None = typer.Option(None, "--python", help="Interpreter whose environment the tests need."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Apply the patch without asking."),
    as_json: bool = typer.Option(False, "--json", help="Print an object; applies only with --yes."),
    unsafe_local: bool = typer.Option(False, "--unsafe-local", help="Run without isolation. For code you trust."),
) -> None:
    """Repair code: sample edits, test each in the sandbox, show the first that passes, apply it on yes.

    Suspicious places are shown to the model one at a time: the lines of --hint-lines, else lines of the failing test's
    traceback, else the statements that the failing command executed. Ends with 0 where a patch was found or nothing
    was broken, with 1 where none was found.
    """
    from code_repair_rl.models import EMBEDDED_MODEL
    from code_repair_rl.pipelines.fix import Search, copied_project, repair
    from code_repair_rl.rollouts import Sampling
    from code_repair_rl.sandbox import select_backend

    say = Console(stderr=True, highlight=False, soft_wrap=True)
    sources = {source.path: source for source in (_read(file, root) for file in files)}
    texts = {path: source.text for path, source in sources.items()}
    named = _named_lines(hint_lines, texts)
    sandbox = select_backend("unsafe_local" if unsafe_local else "auto")
    if unsafe_local:
        say.print("[yellow]no isolation (unsafe-local):[/] the tests and the model's code run with your own rights")
    with copied_project(root, tests, sandbox, python) as project:
        with say.status("running the tests on the code as it is") if say.is_terminal else nullcontext():
            baseline = project.run({}, wall_seconds=timeout)
        if baseline.ok:
            _finish_unbroken(baseline, as_json)
            return
        _require_tests_ran(baseline, tests)
        say.print(f"the tests fail on the code as it is ({_how(baseline)}, {baseline.wall_seconds:.1f} s)")
        suspects = named or _located(project, texts, baseline, timeout)
        say.print(f"suspicious: {_places(suspects)}")
        if model == EMBEDDED_MODEL:
            say.print(f"[yellow]{model} as it comes writes hardly any usable edit:[/] name one that was trained for it")
        with say.status(f"loading {model}") if say.is_terminal else nullcontext():
            engine = _engine(model)
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        search = Search(samples, sampling, description, timeout)
        with say.status("sampling") as status:
            found, tally = repair(
                project,
                engine,
                texts,
                suspects,
                search,
                failing_seconds=baseline.wall_seconds,
                tell=lambda tally: status.update(f"{tally.sampled} of {samples} answers, {tally.tested} tested"),
            )
    applied = False
    diff = _diff(sources[found.path], found.after) if found else None
    if found and as_json:
        applied = yes and _apply(sources[found.path], found.after)
    elif found and diff:
        typer.echo()
        print_diff(diff)
        if yes or _agreed():
            applied = _apply(sources[found.path], found.after)
    _report(found, diff, tally, applied, sandbox.isolation, as_json)
    if found is None:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Source:
    file: Path
    """Where it is, links followed."""
    path: str
    """POSIX, relative to the project's folder."""
    raw: bytes
    crlf: bool

    @property
    def text(self) -> str:
        """Lines end with a line feed; without a byte-order mark, which is no Python once it is decoded."""
        text = self.raw.removeprefix(BOM_UTF8).decode()
        return text.replace("\r\n", "\n") if self.crlf else text

    def encoded(self, text: str) -> bytes:
        """`text` with the file's own line endings and byte-order mark."""
        mark = BOM_UTF8 if self.raw.startswith(BOM_UTF8) else b""
        return mark + (text.replace("\n", "\r\n") if self.crlf else text).encode()


def _read(file: Path, root: Path) -> _Source:
    folder = root.resolve()
    try:
        place = file if file.is_absolute() or file.exists() else root / file
        resolved = place.resolve()
        raw = resolved.read_bytes() if resolved.is_file() else None
    except OSError as error:
        raise BadInput(f"the file cannot be read ({error.strerror})", where=str(file)) from error
    if raw is None:
        raise BadInput("no such file", where=str(file), mend="name a file of the project")
    if not resolved.is_relative_to(folder):
        raise BadInput("the file is not in the project's folder", where=str(file), mend="name that folder with --root")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"the file is not UTF-8 text ({error.reason})", where=str(file)) from error
    if not raw.removeprefix(BOM_UTF8).strip():
        raise BadInput("the file is empty: there is nothing to repair", where=str(file))
    if b"\r" in raw.replace(b"\r\n", b""):
        mend = "write line feeds: Python counts a lone carriage return as a line, and most editors do not"
        raise BadInput("the file has lone carriage returns", where=str(file), mend=mend)
    crlf = b"\r\n" in raw and raw.count(b"\r\n") == raw.count(b"\n")
    return _Source(resolved, resolved.relative_to(folder).as_posix(), raw, crlf)


def _named_lines(hint_lines: str, texts: Mapping[str, str]) -> list[Suspect]:
    from code_repair_rl.pipelines.fix import given

    numbers: dict[str, list[int]] = {}
    for part in filter(None, (part.strip() for part in hint_lines.split(","))):
        path, _, number = part.rpartition(":")
        path = path.removeprefix("./") or next(iter(texts))
        if path not in texts or not number.isdigit() or (len(texts) > 1 and ":" not in part):
            raise BadInput(
                f"{part!r} names no line of a file to repair",
                where="--hint-lines",
                mend=f"write numbers (12,13), or with several files {next(iter(texts))}:12",
            )
        count = len(texts[path].split("\n"))
        if not 1 <= int(number) <= count:
            raise BadInput(f"{path} has {count} lines, and none is {number}", where="--hint-lines")
        numbers.setdefault(path, []).append(int(number))
    return [suspect for path, lines in numbers.items() for suspect in given(path, lines)]


def _located(project: Project, texts: Mapping[str, str], baseline: JobResult, timeout: float) -> list[Suspect]:
    from code_repair_rl.pipelines.fix import executed_lines, located

    traced = project.run({}, wall_seconds=timeout, trace=tuple(texts))
    output = (baseline.stdout + b"\n" + baseline.stderr).decode(errors="replace")
    suspects = located(texts, output, executed_lines(traced))
    if not suspects:
        raise BadInput(
            "the files hold no statement that could be wrong",
            where=", ".join(texts),
            mend="name the file that holds the fault, or its lines with --hint-lines",
        )
    return suspects


def _require_tests_ran(baseline: JobResult, tests: str) -> None:
    """A command that cannot run fails as well, and no repair would help it."""
    said = (baseline.stderr or baseline.stdout).decode(errors="replace").strip()
    last = said.splitlines()[-1] if said else f"exit {baseline.exit_code}"
    if baseline.exit_code in (126, 127) or "No module named pytest" in said:
        raise BadInput(
            f"the test command cannot run in the sandbox ({last})",
            where=tests,
            mend="check its spelling; name the Python whose environment it needs with --python",
        )
    if "pytest" in tests and baseline.exit_code in (4, 5):
        raise BadInput(f"the test command ran no test ({last})", where=tests, mend="name tests that are there")


def _engine(model: str) -> Engine:
    from code_repair_rl.models import faster_dtype, load_model, load_tokenizer, settle_process
    from code_repair_rl.rollouts.local import LocalEngine

    settle_process(None)
    return LocalEngine(load_model(model, dtype=faster_dtype(), to_sample=True), load_tokenizer(model))


def _how(result: JobResult) -> str:
    return f"exit {result.exit_code}" if result.cause == "finished" else result.cause.value


def _places(suspects: list[Suspect]) -> str:
    first = suspects[0]
    shown = ", ".join(f"{s.path}:{'-'.join(str(n) for n in {s.numbers[0], s.numbers[-1]})}" for s in suspects[:4])
    more = f" and {len(suspects) - 4} more" if len(suspects) > 4 else ""
    return f"{shown}{more} ({first.why.value})"


def _finish_unbroken(baseline: JobResult, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"found": False, "already_passes": True, "isolation": baseline.isolation}))
    else:
        typer.echo(f"the tests pass on the code as it is ({baseline.wall_seconds:.1f} s): nothing to repair")


def _diff(source: _Source, after: str) -> str:
    """The repair as `git apply` takes it: of the file's own bytes."""
    from code_repair_rl.edits import unified

    return unified({source.path: source.raw.decode()}, {source.path: source.encoded(after).decode()})


def _agreed() -> bool:
    """Ask; no answer (the input's end) is a no."""
    try:
        return typer.confirm("apply it?", default=False)
    except typer.Abort:
        typer.echo()
        return False


def _apply(source: _Source, after: str) -> bool:
    """Write the repaired file, unless it changed since it was read.

    Raises:
        BadInput: it changed, or cannot be written.
        MachineryFailed: the disk is full.
    """
    from code_repair_rl.home import write_atomically

    if not source.file.is_file() or source.file.read_bytes() != source.raw:
        raise BadInput(
            "the file changed while repairs were tested, and was left as it is",
            where=str(source.file),
            mend="run the command again",
        )
    write_atomically(source.file, source.encoded(after))
    return True


def _report(found: Found | None, diff: str | None, tally: Tally, applied: bool, isolation: str, as_json: bool) -> None:
    if as_json:
        answer = {
            "found": found is not None,
            "already_passes": False,
            "path": found.path if found else None,
            "diff": diff,
            "suspicious_lines": list(found.suspect.numbers) if found else None,
            "applied": applied,
            "tally": asdict(tally),
            "isolation": isolation,
        }
        typer.echo(json.dumps(answer))
        return
    told = f"{tally.sampled} answers sampled: {tally.tested} tested ({tally.timed_out} timed out), "
    told += f"{tally.repeated} repeated, {tally.unchanged} changed nothing, {tally.invalid} were not Python, "
    told += f"{tally.unreadable} no edit that fits; isolation: {isolation}"
    typer.echo(told)
    if applied and found:
        typer.echo(f"applied to {found.path}: look at it before you keep it, passing tests are all that it promises")
    elif found:
        typer.echo("not applied")
    elif tally.unreadable == tally.sampled:
        typer.echo("no repair found: no answer held an edit that fits. Name a model that was trained to write edits")
    else:
        typer.echo("no repair found. Name the lines with --hint-lines, say more with --description, raise --samples")
