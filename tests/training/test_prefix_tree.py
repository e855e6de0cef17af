from hypothesis import given
from hypothesis import strategies as st

from code_repair_rl.training.prefix_tree import PrefixTree

sequences = st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=8)


@given(sequences)
def test_there_is_one_node_for_each_distinct_beginning(found: list[list[int]]) -> None:
    tree = PrefixTree.of(found)
    beginnings = {tuple(one[:stop]) for one in found for stop in range(1, len(one) + 1)}
    assert len(tree) == len(beginnings)
    assert [[tree.tokens[node] for node in path] for path in tree.paths] == found


@given(sequences)
def test_a_branch_holds_what_comes_after_its_first_node_and_nothing_else(found: list[list[int]]) -> None:
    tree = PrefixTree.of(found)
    for path in tree.paths:
        for place, node in enumerate(path):
            assert tree.depths[node] == place
            assert tree.before(node) == list(path[:place])
            before = {other for other in range(len(tree)) if other < node < tree.ends[other]}
            assert before == set(path[:place])
