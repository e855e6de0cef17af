"""`RayGrader`: the grading pool on a Ray cluster. Each node has one `Grader` of its own, with its own limit.

Verdicts come exactly once and in order, whatever dies: an answer belongs to the driver until its verdict is there, so
that those that were being graded on a node that died are graded again elsewhere. Every node needs this package, and
what its sandbox needs; paths that tasks name (installed packages) must be the same on all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from code_repair_rl.errors import BadInput, CrrlError, MachineryFailed
from code_repair_rl.grading.grader import Grader
from code_repair_rl.grading.verdict import Outcome, Verdict
from code_repair_rl.tasks import Task

_DEATHS_OF_ONE_ANSWER = 3
"""After so many workers died under it, an answer gets no verdict instead of another worker."""
_DEATHS_OF_ONE_NODE = 3
"""After so many of its workers died, a node that is still there is not used any more."""
_WAIT_SECONDS = 0.2
"""For something to be done, before what came in meanwhile is handed out."""

_Job = tuple[str, Task, Any]
"""A method of `Grader`, and its arguments."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """A job that somebody waits for."""

    job: _Job
    deaths: int = 0
    """Workers that died under it."""
    verdict: Verdict | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.verdict is not None or self.error is not None


@dataclass(slots=True)
class _Node:
    """One node of the cluster and its worker."""

    node_id: str
    actor: Any
    deaths: int = 0
    pending: dict[Any, _Ticket] = field(default_factory=dict)
    """Reference to what it is grading."""


class RayGrader(Grader):
    """A `Grader` whose jails are on every node of a Ray cluster, and none in this process.

    Any number of threads may ask at once: what they ask for is handed out together.

    Args:
        address: of the cluster (`auto` for the one that this machine belongs to); None uses the one connected to.
        backend: the sandbox, on every node.
        workers: answers graded at once on each node.

    Raises:
        BadInput: Ray is not installed, or less than one worker.
        MachineryFailed: the cluster cannot be reached, or the sandbox works on none of its nodes.
    """

    def __init__(self, address: str | None = None, backend: str = "auto", workers: int = 2) -> None:
        if workers < 1:
            raise BadInput(f"a grader needs at least one worker, not {workers}", where="workers")
        self._ray = _ray()
        self._backend, self._workers = backend, workers
        self._changed = threading.Condition()
        self._leading = False
        self._waiting: deque[_Ticket] = deque()
        self._connect(address)
        self._nodes: dict[str, _Node] = {}
        self._given_up: set[str] = set()
        self._tier = self._find_nodes()

    @property
    def isolation(self) -> str:
        """The tier that verdicts are stamped with."""
        return self._tier

    @property
    def nodes(self) -> int:
        """How many nodes grade."""
        return len(self._nodes)

    @property
    def at_once(self) -> int:
        """See `Grader.at_once`; each node has as many again waiting as it grades."""
        return 2 * self._workers * len(self._nodes)

    def close(self) -> None:
        """End all workers; the cluster is left as it is."""
        for node in self._nodes.values():
            self._ray.kill(node.actor, no_restart=True)
        self._nodes.clear()

    def grade(self, task: Task, completion_text: str) -> Verdict:
        """The verdict on one answer."""
        return self._run([("grade", task, completion_text)])[0]

    def grade_files(self, task: Task, files_after: Mapping[str, str]) -> Verdict:
        """The verdict on a tree as it is after an edit; always runs the tests."""
        return self._run([("grade_files", task, dict(files_after))])[0]

    def grade_files_anew(self, task: Task, files_after: Mapping[str, str]) -> Verdict:
        """As `grade_files`, past the node's cache."""
        return self._run([("grade_files_anew", task, dict(files_after))])[0]

    def grade_many(
        self, answers: Sequence[tuple[Task, str]], progress: Callable[[int], None] | None = None
    ) -> list[Verdict]:
        """Exactly one verdict for each (task, answer), in their order.

        Args:
            answers: task and completion text.
            progress: called with the number of answers done so far.

        Raises:
            MachineryFailed: no node is left.
        """
        return self._run([("grade", task, text) for task, text in answers], progress)

    def _run(self, jobs: Sequence[_Job], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        tickets = left = [_Ticket(job) for job in jobs]
        self._waiting.extend(tickets)
        while left:
            # One caller at a time keeps the nodes' books, for all; the others wait for news.
            with self._changed:
                leads = not self._leading
                if leads:
                    self._leading = True
                else:
                    self._changed.wait(_WAIT_SECONDS)
            if leads:
                self._lead()
            left = [ticket for ticket in left if not ticket.is_done]
            if progress is not None:
                progress(len(tickets) - len(left))
        for ticket in tickets:
            if ticket.error is not None:
                raise ticket.error
        return [ticket.verdict for ticket in tickets if ticket.verdict is not None]

    def _lead(self) -> None:
        """Hand out what waits, and take in what is done."""
        try:
            self._hand_out()
            self._gather()
        except BaseException as error:
            # Ctrl-C, or an error of ours: what runs is dropped with its worker; the next call starts fresh ones.
            running = [ticket for node in self._nodes.values() for ticket in node.pending.values()]
            self.close()
            for ticket in [*running, *self._waiting]:
                ticket.error = error
            self._waiting.clear()
            raise
        finally:
            with self._changed:
                self._leading = False
                self._changed.notify_all()

    def _hand_out(self) -> None:
        """Give every node as much as it grades at once, and as much again so that it never waits for us."""
        if self._waiting and not self._nodes:
            self._find_nodes()
        for node in self._nodes.values():
            while self._waiting and len(node.pending) < 2 * self._workers:
                ticket = self._waiting.popleft()
                node.pending[node.actor.run.remote(*ticket.job)] = ticket

    def _gather(self) -> None:
        """Take in what is done; what was lost with its worker waits again."""
        owner = {reference: node for node in self._nodes.values() for reference in node.pending}
        if not owner:
            return
        done, _ = self._ray.wait(list(owner), num_returns=1, timeout=_WAIT_SECONDS)
        more, _ = self._ray.wait(list(owner), num_returns=len(owner), timeout=0)
        for reference in dict.fromkeys([*done, *more]):
            node = owner[reference]
            if reference not in node.pending:  # lost with its node a moment ago
                continue
            try:
                verdict: Verdict = self._ray.get(reference)
            except self._ray.exceptions.RayActorError:
                lost = list(node.pending.values())
                node.pending.clear()
                self._replace(node)
                for ticket in lost:
                    self._take_back(ticket)
            except self._ray.exceptions.RayTaskError as error:
                raise _as_ours(error) from error
            else:
                node.pending.pop(reference).verdict = verdict

    def _take_back(self, ticket: _Ticket) -> None:
        ticket.deaths += 1
        if ticket.deaths < _DEATHS_OF_ONE_ANSWER:
            self._waiting.appendleft(ticket)
            return
        why = f"{ticket.deaths} workers died while they graded it"
        ticket.verdict = Verdict(Outcome.NO_VERDICT, evidence=(why,), isolation=self.isolation)

    def _replace(self, node: _Node) -> None:
        """A new worker where the node still lives; else go on without it."""
        node.deaths += 1
        if node.deaths >= _DEATHS_OF_ONE_NODE:
            self._given_up.add(node.node_id)
        alive = {one["NodeID"] for one in self._ray.nodes() if one["Alive"]} - self._given_up
        if node.node_id in alive:
            node.actor = self._worker_on(node.node_id)
        else:
            del self._nodes[node.node_id]

    def _find_nodes(self) -> str:
        """Start a worker on every node that has none; the tier of isolation they all have."""
        alive = [one["NodeID"] for one in self._ray.nodes() if one["Alive"]]
        fresh = {
            name: self._worker_on(name) for name in alive if name not in self._nodes | dict.fromkeys(self._given_up)
        }
        tiers, problems = set(), []
        for name, actor in fresh.items():
            try:
                tiers.add(str(self._ray.get(actor.isolation.remote(), timeout=120)))
            except Exception as error:  # the sandbox's own, or Ray's: the node cannot grade
                problems.append(f"{name[:8]}: {str(error).strip().splitlines()[-1]}")
                self._given_up.add(name)
                continue
            self._nodes[name] = _Node(name, actor)
        if not self._nodes:
            raise MachineryFailed(
                f"no node of the Ray cluster can grade ({'; '.join(problems) or 'none is alive'})",
                where="ray",
                mend="run `crrl doctor` on the nodes, and `ray status`",
            )
        return ", ".join(sorted(tiers)) or self._tier

    def _worker_on(self, node_id: str) -> Any:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
        kind = self._ray.remote(_NodeWorker)
        # No CPUs are claimed: the number of answers at once is the limit, and jobs have limits of their own.
        options = {"num_cpus": 0, "max_concurrency": 2 * self._workers + 1, "scheduling_strategy": strategy}
        return kind.options(**options).remote(self._backend, self._workers)

    def _connect(self, address: str | None) -> None:
        if self._ray.is_initialized():
            return
        try:
            self._ray.init(address=address or "auto", log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # ConnectionError, ValueError, RuntimeError, by the address's kind
            raise MachineryFailed(
                f"the Ray cluster cannot be reached ({str(error).strip().splitlines()[0]})",
                where=address or "auto",
                mend="start it with `ray start --head`, and name its address",
            ) from error


class _NodeWorker:
    """Lives on a node: the node's own grader, whose pool takes `workers` answers at once."""

    def __init__(self, backend: str, workers: int) -> None:
        self._grader = Grader(backend=backend, workers=workers)
        self._room = threading.Semaphore(workers)

    def isolation(self) -> str:
        return self._grader.isolation

    def run(self, kind: str, task: Task, given: Any) -> Verdict:
        with self._room:
            verdict: Verdict = getattr(self._grader, kind)(task, given)
        return verdict


def _as_ours(error: Any) -> Exception:
    cause = getattr(error, "cause", None)
    if isinstance(cause, CrrlError):
        return cause
    return MachineryFailed(f"a worker failed: {str(error).strip().splitlines()[-1]}", where="ray")


def _ray() -> Any:
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise BadInput(
            "Ray is not installed", where="sandbox.ray", mend="pip install 'code-repair-rl[ray]', or leave it out"
        ) from error
    return ray
