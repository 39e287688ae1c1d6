"""Ranks are killed at random moments: the job ends, and started again it leaves the bytes of an uninterrupted one."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.forked import Project, run
from support.project import small, write_params
from support.ranked import commands

from postprior.pipelines.settings.params import Params

KILLS = int(os.environ.get("POSTPRIOR_KILLS", "20"))
GRACE = 5
"""Seconds after which the other rank is killed as well, as torchrun does: it may wait for one that never came."""
WORDS = ("train", "encode", "generate normal --samples 5000")


def together(root: Path, words: str) -> float:
    """Run a command on two ranks to its end, which must be a good one, and return its seconds."""
    job = commands(root, words)
    assert [rank.wait() for rank in job] == [0, 0], [rank.said for rank in job]
    return max(rank.seconds for rank in job)


@pytest.mark.slow
@pytest.mark.timeout(200 * KILLS)
def test_a_kill_of_a_rank_changes_no_byte(trained: tuple[Path, Params], tmp_path: Path) -> None:
    root, chosen = tmp_path / "project", random.Random(0)
    shutil.copytree(trained[0] / "artefacts/data", root / "artefacts/data")
    shutil.copytree(trained[0] / "artefacts/evaluators", root / "artefacts/evaluators")
    write_params(root, small(train__epochs=8))
    seconds = {words: together(root, words) for words in WORDS[:2]}
    run(root, "fit normal")
    seconds[WORDS[2]] = together(root, WORDS[2])
    project = Project(root, WORDS)
    for number in range(KILLS):
        words, killed = WORDS[number % len(WORDS)], chosen.randrange(2)
        job = commands(root, words)
        time.sleep(chosen.uniform(0, seconds[words]))
        job[killed].send(signal.SIGKILL)
        time.sleep(GRACE)
        job[1 - killed].send(signal.SIGKILL)
        codes = [rank.wait() for rank in job]
        case = (number, words, killed, codes, [rank.said for rank in job])
        assert set(codes) <= {0, 1, -signal.SIGKILL}, case
        together(root, words)
        project.check(case)
        assert not list((root / ".postprior").glob("checkpoints/*")), case
        assert not list((root / ".postprior").glob("blocks/*")), case
