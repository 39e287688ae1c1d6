"""Two commands at once in one project: both end, and the results are the same."""

import random
from itertools import combinations_with_replacement

from support.forked import Command, Project

PAIRS = 40
"""The most pairs that are tried of all stages; the quick test tries every pair of its few."""


def test_two_commands_at_once_leave_the_same_bytes(project: Project, is_slow: bool) -> None:
    """Of two that train, the newer one takes over; every other command ends well."""
    pairs = list(combinations_with_replacement(project.stages, 2))
    for pair in [("train", "train"), *(random.Random(0).sample(pairs, PAIRS) if is_slow else pairs)]:
        commands = [Command(project.root, words) for words in pair]
        ends = [(command.wait(), command.said) for command in commands]
        for code, said in ends:
            stopped = pair == ("train", "train") and "has started to train in" in said
            assert code == 0 or (code == 1 and stopped), (pair, ends)
        assert 0 in [code for code, _ in ends], (pair, ends)
        project.check(pair)
