"""The tree that completions of one prompt form: what they begin with alike is one branch, computed once.

Answers of one group repeat each other: they open the same way, quote the same line, and some are the same to the last
token. Each distinct beginning is a node here, so that a forward pass computes it once, however many answers share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from code_repair_rl.rollouts.prefixes import common_prefix


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Distinct beginnings of token sequences, N of them, parents before children and branches in one piece."""

    tokens: tuple[int, ...]
    """Per node the token that it adds to its parent's sequence."""
    depths: tuple[int, ...]
    """Per node how many tokens come before it, 0 for a first token."""
    ends: tuple[int, ...]
    """Per node the number of the first node behind its branch: node `a` is `j` or comes before it in a sequence just
    where `a <= j < ends[a]`."""
    paths: tuple[tuple[int, ...], ...]
    """Per sequence the nodes of its tokens."""

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> PrefixTree:
        """The tree of these sequences, which may be empty or equal."""
        tokens: list[int] = []
        depths: list[int] = []
        ends: list[int] = []
        paths: list[tuple[int, ...]] = [()] * len(sequences)
        path: list[int] = []
        # Sorted, sequences that share a beginning are neighbours: the last one's path holds all that is shared.
        for number in sorted(range(len(sequences)), key=lambda number: tuple(sequences[number])):
            sequence = sequences[number]
            shared = common_prefix([tokens[node] for node in path], sequence)
            for closed in path[shared:]:
                ends[closed] = len(tokens)
            del path[shared:]
            for depth in range(shared, len(sequence)):
                path.append(len(tokens))
                tokens.append(sequence[depth])
                depths.append(depth)
                ends.append(0)
            paths[number] = tuple(path)
        for closed in path:
            ends[closed] = len(tokens)
        return cls(tuple(tokens), tuple(depths), tuple(ends), tuple(paths))

    def __len__(self) -> int:
        return len(self.tokens)

    def before(self, node: int) -> list[int]:
        """The nodes of the sequence that ends before `node`, first token first."""
        return [other for other in range(node) if self.ends[other] > node]
