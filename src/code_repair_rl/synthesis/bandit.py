"""Labelled code from the examples of bandit (PyCQA, Apache-2.0), with labels by bandit itself.

The examples come with bandit's source distribution, pinned by sha256 and fetched when the set is built; bandit runs
from it, too, with `stevedore`, which it needs. bandit reads code and never runs it. Its findings of medium or high
severity are the labels: they are bandit's own opinion and nobody's judgement, every task says so, and what is measured
on them is how well a model agrees with bandit.

The examples hardly hold code that bandit has nothing to say against. So each vulnerable piece gets a twin where a small
rewrite (`shell=True` to `shell=False`) ends the finding: bandit is asked about both, and only pairs on whose sides it
disagrees are kept. Pieces stand among other, clean code of the examples, so that the line has to be found.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from code_repair_rl.errors import BadInput, MachineryFailed
from code_repair_rl.packages import PackageKind, fetch_package
from code_repair_rl.synthesis.giveaways import neutralised
from code_repair_rl.tasks.splits import split_of
from code_repair_rl.tasks.vulnerabilities import LabelledFunction, Reading, joined

PACKAGE, VERSION = "bandit", "1.9.4"
SHA256 = "b589e5de2afe70bd4d53fa0c1da6199f4085af666fde00e8a034f152a52cd628"
STEVEDORE, STEVEDORE_VERSION = "stevedore", "5.10.0"
STEVEDORE_SHA256 = "47c48dc09e75933106c1bba0a7690eef3b5acecdb807df6d47cc40b2532fa927"
LICENCE = "Apache-2.0"
LABELS_BY = f"{PACKAGE} {VERSION}"

_MOST_LINES = 24
_BANDIT_SECONDS = 300
_SEVERITIES = ("MEDIUM", "HIGH")
_MOST_AROUND = 2
"""Clean statements put before and after a piece, each."""

_REWRITES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "B102": ((r"\bexec\(", "print("),),
    "B103": ((r"\b0o?[1-7][0-7]{2,3}\b", "0o600"), (r"stat\.S_\w+", "stat.S_IRUSR")),
    "B104": ((r"0\.0\.0\.0", "127.0.0.1"),),
    "B108": ((r"(['\"])/(?:var/|dev/)?(?:tmp|shm)", r"\1data"),),
    "B113": ((r"timeout=None", "timeout=5"), (r"\)\s*$", ", timeout=5)")),
    "B201": ((r"debug=True", "debug=False"),),
    "B202": ((r"\)$", ', filter="data")'), (r"mkdtemp\(\)\)", 'mkdtemp(), filter="data")')),
    "B301": ((r"\b(?:c?[pP]ickle|dill|jsonpickle|shelve|marshal|pd)\.(?:un|lib\.)?\w+\(", "json.loads("),),
    "B302": ((r"\bmarshal\.", "json."),),
    "B303": ((r"\bMD[245]\b|\bSHA1?\b", "SHA256"),),
    "B304": ((r"\b(?:ARC[24]|Blowfish|DES3?|XOR|CAST5|IDEA|SEED|TripleDES)\b", "AES"),),
    "B305": ((r"\bECB\b", "GCM"),),
    "B306": ((r"\bmktemp\(", "mkstemp("),),
    "B307": ((r"\beval\(", "ast.literal_eval("),),
    "B308": ((r"(?:\w+\.)*mark_safe\(", "escape("),),
    "B310": ((r"urlopen\(|urlretrieve\(", "open_checked("),),
    "B321": ((r"\bFTP\(", "FTP_TLS("),),
    "B323": ((r"_create_unverified_context", "create_default_context"),),
    "B324": ((r"(?i)\bmd[245]\b|\bsha1?\b", "sha256"), (r"\)$", ", usedforsecurity=False)")),
    "B501": ((r"verify=False", "verify=True"),),
    "B502": (
        (r"PROTOCOL_(?:SSLv\d+|TLSv1(?:_1)?)\b", "PROTOCOL_TLS_CLIENT"),
        (r"(?:SSLv\d+|TLSv1(?:_1)?)_METHOD", "TLS_METHOD"),
    ),
    "B503": ((r"(?:SSLv\d+|TLSv1(?:_1)?)_METHOD", "TLS_METHOD"), (r"PROTOCOL_\w+", "PROTOCOL_TLS_CLIENT")),
    "B505": ((r"\b(?:512|768|1024)\b", "4096"), (r"SECP192R1|SECT163\w+", "SECP384R1")),
    "B506": ((r"yaml\.load\(", "yaml.safe_load("),),
    "B507": ((r"AutoAddPolicy|WarningPolicy|IgnorePolicy", "RejectPolicy"),),
    "B508": ((r"mpModel=[01]", "mpModel=3"),),
    "B601": ((r"exec_command\((.*)\)", r"exec_command(quote(\1))"),),
    "B602": ((r"shell=(?:True|1\b|'\w+'|\[True\]|\{[^}]+\}|\w+\(\)|\w+)", "shell=False"),),
    "B604": ((r"shell=True", "shell=False"),),
    "B605": ((r"os\.(?:system|popen\d?)\(|(?:popen2|commands)\.\w+\(", "subprocess.call("),),
    "B608": ((r"(['\"])\s*%\s*([\w(])", r"\1, \2"), (r"\.format\(", ", ("), (r"(['\"])\s*\+.*$", r"\1)")),
    "B609": ((r"\*", "x"),),
    "B610": ((r"\.extra\(.*\)", ".all()"),),
    "B614": (
        (r"weights_only=False", "weights_only=True"),
        (r"\)$", ", weights_only=True)"),
        (r"\)\)$", ", weights_only=True))"),
    ),
    "B615": (
        (r"revision=['\"][^'\"]*['\"]", 'revision="5d0f2e8a7f1d4c0f9f3a1b2c3d4e5f60718293a4"'),
        (r"\)$", ', revision="5d0f2e8a7f1d4c0f9f3a1b2c3d4e5f60718293a4")'),
    ),
    "B701": ((r"autoescape=\w+", "autoescape=True"), (r"\)$", ", autoescape=True)")),
    "B703": ((r"(?:\w+\.)*mark_safe\(", "escape("),),
    "B704": ((r"(?:\w+\.)?Markup\(", "escape("),),
}
"""Finding to rewrites that may end it, tried in order; bandit decides whether one did."""

_XML = re.compile(r"\bxml\.")
"""B313 to B320: the safe parser has the same interface under another name."""


@dataclass(frozen=True, slots=True)
class BanditFinding:
    """One finding of medium or high severity."""

    test_id: str
    cwe: str
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """One statement of an example, with the imports that it needs."""

    file: str
    imports: str
    text: str


Judge = Callable[[Mapping[str, str]], Mapping[str, tuple[BanditFinding, ...]]]
"""Named Python files to what bandit finds in each; those that it cannot parse are left out."""


def bandit_reading(seed: int, progress: Callable[[str, int, int], None] = lambda *_: None) -> Reading:
    """Labelled pieces of bandit's examples; the package is fetched on first use.

    Raises:
        MachineryFailed: it cannot be fetched or run.
    """
    archive = fetch_package(PACKAGE, VERSION, SHA256, PackageKind.SDIST)
    stevedore = fetch_package(STEVEDORE, STEVEDORE_VERSION, STEVEDORE_SHA256, PackageKind.WHEEL)
    with tempfile.TemporaryDirectory(prefix="crrl-bandit.") as scratch:
        _unpack(archive, Path(scratch))

        def judge(files: Mapping[str, str]) -> Mapping[str, tuple[BanditFinding, ...]]:
            return findings(files, (Path(scratch), stevedore))

        return reading_of(examples_in(archive), judge, seed, progress)


def reading_of(
    examples: Mapping[str, str], judge: Judge, seed: int, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Reading:
    """Labelled pieces of example files.

    Args:
        examples: name to text.
        judge: says what bandit finds.
        seed: draws the clean code around the pieces.
        progress: told how far it is.
    """
    progress("asking bandit", 0, 3)
    pieces = [piece for name, text in sorted(examples.items()) for piece in _pieces(name, text)]
    alone = judge({f"{number}.py": _joined([piece]) for number, piece in enumerate(pieces)})
    progress("asking bandit", 1, 3)
    flagged = [(piece, alone[f"{n}.py"]) for n, piece in enumerate(pieces) if alone.get(f"{n}.py")]
    clean = [piece for n, piece in enumerate(pieces) if f"{n}.py" in alone and not alone[f"{n}.py"]]
    by_split: dict[str, list[_Piece]] = {}
    for piece in clean:
        by_split.setdefault(split_of(f"bandit/{piece.file}"), []).append(piece)
    rng = random.Random(f"{seed}/bandit")
    candidates: dict[str, str] = {}
    for number, (piece, found) in enumerate(flagged):
        before, after = _around(piece, by_split.get(split_of(f"bandit/{piece.file}"), []), rng)
        candidates[f"p{number}-0.py"] = _joined([*before, piece, *after])
        for place, twin in enumerate(_twins(piece, found), start=1):
            candidates[f"p{number}-{place}.py"] = _joined([*before, twin, *after])
    for number, piece in enumerate(clean):
        before, after = _around(piece, by_split[split_of(f"bandit/{piece.file}")], rng)
        candidates[f"c{number}.py"] = _joined([*before, piece, *after])
    said = judge(candidates)
    progress("asking bandit", 2, 3)
    functions: list[LabelledFunction] = []
    left_out: dict[str, str] = {}
    seen: set[str] = set()
    for number, (piece, _) in enumerate(flagged):
        name = f"{piece.file.removesuffix('.py')}-{number}"
        chosen = _pair(f"p{number}", name, piece.file, candidates, said)
        if isinstance(chosen, str):
            left_out[name] = chosen
        elif chosen[0].code not in seen:
            seen.update(one.code for one in chosen)
            functions += chosen
    missing = sum(1 if one.vulnerable else -1 for one in functions)
    functions += _clean_functions(clean, candidates, said, seen, rng.sample(range(len(clean)), len(clean)), missing)
    progress("asking bandit", 3, 3)
    return joined("bandit", functions, left_out)


def findings(files: Mapping[str, str], python_path: Sequence[Path]) -> Mapping[str, tuple[BanditFinding, ...]]:
    """What bandit finds in files; those that it cannot parse are left out.

    Args:
        files: plain file names to texts.
        python_path: where bandit and what it needs lie.

    Raises:
        MachineryFailed: bandit did not run to its end.
    """
    with tempfile.TemporaryDirectory(prefix="crrl-bandit.") as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "bandit", "-q", "-r", folder, "-f", "json", "--ignore-nosec", "--exit-zero"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, python_path))}
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_BANDIT_SECONDS,
                check=True,
            )
            report = json.loads(done.stdout)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            last = getattr(error, "stderr", None) or str(error)
            raise MachineryFailed(f"bandit did not run to its end: {last.strip()[-300:]}") from error
    broken = {PurePosixPath(one["filename"]).name for one in report["errors"]}
    found: dict[str, tuple[BanditFinding, ...]] = {name: () for name in files if name not in broken}
    for one in report["results"]:
        name = PurePosixPath(one["filename"]).name
        if one["issue_severity"] in _SEVERITIES and name in found:
            finding = BanditFinding(one["test_id"], f"CWE-{one['issue_cwe']['id']}", (int(one["line_number"]),))
            found[name] = (*found[name], finding)
    return found


def examples_in(archive: Path) -> dict[str, str]:
    """Name to text of the Python examples in bandit's source distribution.

    Raises:
        BadInput: it is not that.
    """
    found: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                stream = tar.extractfile(member) if member.isfile() and path.suffix == ".py" else None
                if stream is not None and path.parts[1:-1] == ("examples",):
                    found[path.name] = stream.read().decode("utf-8", errors="replace")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"this is not bandit's source distribution ({error})", where=str(archive)) from error
    return found


def _unpack(archive: Path, folder: Path) -> None:
    """bandit's own code and its entry points, to be imported from `folder`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is None or path.parts[:1] not in (("bandit",), ("bandit.egg-info",)):
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(stream.read())


def _pieces(name: str, text: str) -> list[_Piece]:
    """The top-level statements of a neutralised example, each with the imports whose names it has."""
    (clean,), _ = neutralised([text], "python")
    try:
        tree = ast.parse(clean)
    except (SyntaxError, ValueError):
        return []
    lines = clean.split("\n")
    imports: list[tuple[frozenset[str], str]] = []
    found: list[_Piece] = []
    for node in tree.body:
        source = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.decorator_list:
            source = "\n".join(lines[node.decorator_list[0].lineno - 1 : node.end_lineno])
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound = frozenset((alias.asname or alias.name).split(".")[0] for alias in node.names)
            imports.append((bound, source))
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        needed = "\n".join(source for bound, source in imports if bound & used)
        if source.count("\n") < _MOST_LINES - 4:
            found.append(_Piece(name, needed, source))
    return found


def _joined(pieces: Sequence[_Piece]) -> str:
    imports = dict.fromkeys(line for piece in pieces for line in piece.imports.split("\n") if line)
    head = "\n".join(imports)
    body = "\n".join(piece.text for piece in pieces)
    return f"{head}\n\n{body}\n" if head else f"{body}\n"


def _around(piece: _Piece, clean: Sequence[_Piece], rng: random.Random) -> tuple[list[_Piece], list[_Piece]]:
    """Clean pieces of the same split to stand before and after a piece."""
    others = [one for one in clean if one.text != piece.text and one.text.count("\n") < 8]
    drawn = rng.sample(others, min(len(others), rng.randint(1, 2 * _MOST_AROUND)))
    before = rng.randint(0, len(drawn))
    lines = piece.text.count("\n") + 1
    kept: list[tuple[bool, _Piece]] = []
    for place, one in enumerate(drawn):
        lines += one.text.count("\n") + 1
        if lines <= _MOST_LINES:
            kept.append((place < before, one))
    return [one for first, one in kept if first], [one for first, one in kept if not first]


def _twins(piece: _Piece, found: Sequence[BanditFinding]) -> list[_Piece]:
    """Versions of a piece in which a finding may have ended."""
    twins: list[_Piece] = []
    for test_id in dict.fromkeys(finding.test_id for finding in found):
        for pattern, replacement in _REWRITES.get(test_id, ()):
            text = re.sub(pattern, replacement, piece.text, flags=re.MULTILINE)
            if text != piece.text:
                twins.append(_Piece(piece.file, piece.imports, text))
        if "B313" <= test_id <= "B320":
            imports, text = (_XML.sub("defusedxml.", part) for part in (piece.imports, piece.text))
            twins.append(_Piece(piece.file, imports, text))
            twins.append(_Piece(piece.file, piece.imports.replace("xml", "defusedxml", 1), piece.text))
    return twins


def _pair(
    key: str,
    name: str,
    file: str,
    candidates: Mapping[str, str],
    said: Mapping[str, tuple[BanditFinding, ...]],
) -> list[LabelledFunction] | str:
    """The piece and the first twin in which bandit finds nothing; the piece alone where there is none."""
    found = said.get(f"{key}-0.py")
    if not found:
        return "bandit finds nothing once other code stands around it"
    cwes = tuple(dict.fromkeys(finding.cwe for finding in found))
    lines = tuple(sorted({line for finding in found for line in finding.lines}))
    twins = (candidate for candidate in _numbered(key, candidates) if said.get(candidate) == ())
    twin = next(twins, None)
    pair_id = name if twin is not None else None
    vulnerable = _function(f"{name}/vulnerable", candidates[f"{key}-0.py"], file, cwes, lines, pair_id)
    if twin is None:
        return [vulnerable]
    return [vulnerable, _function(f"{name}/fixed", candidates[twin], file, cwes, None, pair_id, vulnerable=False)]


def _numbered(key: str, candidates: Mapping[str, str]) -> Iterable[str]:
    number = 1
    while (name := f"{key}-{number}.py") in candidates:
        yield name
        number += 1


def _clean_functions(
    clean: Sequence[_Piece],
    candidates: Mapping[str, str],
    said: Mapping[str, tuple[BanditFinding, ...]],
    seen: set[str],
    order: Sequence[int],
    most: int,
) -> list[LabelledFunction]:
    """Pieces in which bandit finds nothing, as many as make both labels the same in number."""
    found: list[LabelledFunction] = []
    for number in order:
        piece, code = clean[number], candidates[f"c{number}.py"]
        if said.get(f"c{number}.py") == () and code not in seen and len(found) < most:
            seen.add(code)
            found.append(_function(f"clean-{number}", code, piece.file, (), (), None, vulnerable=False))
    return found


def _function(
    function_id: str,
    code: str,
    file: str,
    cwes: tuple[str, ...],
    lines: tuple[int, ...] | None,
    pair_id: str | None,
    *,
    vulnerable: bool = True,
) -> LabelledFunction:
    return LabelledFunction(
        function_id=function_id,
        code=code,
        vulnerable=vulnerable,
        cwes=cwes,
        language="python",
        path=file,
        project=f"bandit/{file}",
        pair_id=pair_id,
        lines=lines,
        licence=LICENCE,
        where=f"examples/{file}",
    )
