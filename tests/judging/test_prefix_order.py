"""The walk over the prefix tree, and what it counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlaif.judging.prefix_order import BlockCache, TokenCount, common_length, walk

IDS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


def test_what_begins_alike_stands_together_in_order_of_first_appearance() -> None:
    paths = [
        ("q1", "x", "y"),
        ("q2", "x", "y"),
        ("q1", "y", "x"),
        ("q1", "x", "z"),
        ("q2", "y", "x"),
        ("q3", "x", "y"),
        ("q1", "y", "z"),
    ]
    assert walk(paths) == [0, 3, 2, 6, 1, 4, 5]
    assert walk([("a", "b"), ("c", "d"), ("a", "b")]) == [0, 2, 1]
    assert walk([]) == []


@given(st.lists(st.tuples(*[st.sampled_from("ab")] * 3), max_size=20))
def test_walk_is_an_order_in_which_no_prefix_comes_back(paths) -> None:
    order = walk(paths)
    assert sorted(order) == list(range(len(paths)))
    for depth in (1, 2, 3):
        seen = [paths[i][:depth] for i in order]
        runs = [p for n, p in enumerate(seen) if n == 0 or seen[n - 1] != p]
        assert len(runs) == len(set(runs))


@given(IDS, IDS, st.integers(0, 60))
def test_common_length_by_hand(one: list[int], other: list[int], more: int) -> None:
    """`more` equal tokens in front take the other branch of the search."""
    one, other = [7] * more + one, [7] * more + other
    expected = 0
    while expected < min(len(one), len(other)) and one[expected] == other[expected]:
        expected += 1
    assert common_length(one, other) == expected


def _cached_by_brute_force(prompts: list[list[int]], block: int) -> int:
    """Tokens that a block-wise prefix cache of unlimited size computes."""
    known: set[tuple[int, ...]] = set()
    computed = 0
    for prompt in prompts:
        hit = 0
        while hit + block < len(prompt) and tuple(prompt[: hit + block]) in known:
            hit += block
        computed += len(prompt) - hit
        known |= {tuple(prompt[:n]) for n in range(block, len(prompt) + 1, block)}
    return computed


@given(st.lists(IDS, min_size=1, max_size=12), st.integers(1, 3), st.integers(0, 8))
def test_prediction_equals_a_cache_in_any_order(prompts, block: int, cut: int) -> None:
    cache = BlockCache(block, 10_000)
    spared = sum(cache.spares(p[:cut], p[cut:]) for p in prompts)
    assert sum(map(len, prompts)) - spared == _cached_by_brute_force(prompts, block)


def test_small_cache_forgets_what_was_used_longest_ago() -> None:
    cache = BlockCache(2, 8)  # four blocks
    one, two = [1, 1, 1, 1, 9], [2, 2, 2, 2, 9]
    assert [cache.spares(p, []) for p in (one, two, one, two)] == [0, 0, 4, 4]
    assert cache.spares([3, 3, 9], []) == 0  # drops the first block of `one`
    assert cache.spares(two, []) == 4
    assert cache.spares(one, []) == 0


@given(st.lists(IDS, min_size=1, max_size=12))
def test_unique_equals_the_tree_along_a_walk(prompts) -> None:
    prompts = sorted(prompts)  # a walk over the tree of their prefixes
    count, before = TokenCount(), []
    for prompt in prompts:
        shared = common_length(before, prompt)
        count.add(len(prompt), shared, min(shared, len(prompt) - 1))
        before = prompt
    prefixes = {tuple(p[:n]) for p in prompts for n in range(1, len(p) + 1)}
    assert count.unique == len(prefixes)
    assert count.attended == sum(map(len, prefixes))
    assert count.prompt == sum(map(len, prompts))
    repeated = len(prompts) - len({tuple(p) for p in prompts})
    assert count.predicted == count.unique + repeated


def test_without_sharing_every_token_is_computed() -> None:
    count = TokenCount()
    count.add(10, 0, 0)
    count.add(10, 8, 0)
    assert count.predicted == 20
    assert count.unique == 12
