"""Commands on two ranks: the files are those of one process, and each part of the work is done once."""

import csv
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from support.forked import content
from support.project import small, write_params
from support.ranked import commands, on_ranks, variables

from postprior.pipelines import ranks
from postprior.pipelines.api.detect import detect
from postprior.pipelines.api.impute import impute
from postprior.pipelines.api.represent import represent
from postprior.pipelines.artefacts.checkpoint import Checkpoint
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.sharing import sharing_of
from postprior.pipelines.blocks import Arrays, Sharing
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.train import train
from postprior.pipelines.storage import load_artefact
from postprior.stage1_vae.ranks import ALONE, Ranks

LONG = small(train__epochs=4)


def by_blocks(job: Ranks, root: Path) -> None:
    """Run every command that shares its rows; each has rows for both ranks."""
    params, project = load_params(root / "params.yaml"), Project(root)
    encode(params, root)
    generate("gmm", params, root, SampleRequest(2200))
    generate("normal", params, root, SampleRequest(550), root / "artefacts/given", root / "artefacts/data/test")
    lines = impute("gmm", root / "artefacts/holes", params, root, root / "artefacts/imputed", draws=2)
    lines += represent(
        root / "artefacts/many",
        project.artefacts.autoencoder,
        root / "artefacts/codes.npz",
        sharing=sharing_of(project, params, "api.represent"),
    )
    lines += detect("gmm", root / "artefacts/holes", params, root, root / "artefacts/scores.csv")
    assert bool(lines) == job.is_first


def skipping(job: Ranks, folder: Path) -> None:
    """Compute blocks, fail to use them, and use them in another job."""
    computed: list[int] = []

    def compute(numbers: range) -> Iterator[tuple[int, Arrays]]:
        for number in numbers:
            computed.append(number)
            yield 5 * number, {"x": np.full(5, number), "even": np.array([number % 2 == 0])}

    sharing = Sharing(job, folder, ("a hash",))
    own = [*range(8), *range(16, 20)] if job.is_first else list(range(8, 16))
    with pytest.raises(OSError, match="full"), sharing.blocks("x", None, 20, compute):
        raise OSError("the disk is full")
    assert computed == own
    if not job.is_first:
        next(folder.rglob("8.safetensors")).unlink()
    job.wait()
    with sharing.blocks("x", None, 20, compute) as blocks:
        assert computed == own + (list(range(8, 16)) if job.is_first else [])
        assert (blocks is None) == (not job.is_first)
        for number, (start, arrays) in enumerate(blocks or ()):
            assert start == 5 * number
            assert arrays["x"].tolist() == [number] * 5
            assert arrays["even"].tolist() == [number % 2 == 0]
    job.wait()
    assert not list(folder.iterdir())
    with (
        pytest.raises(UserError, match=r"^x: rank 1 found other settings, data or code than rank 0")
        if job.rank
        else pytest.raises(ConnectionError),
        Sharing(job, folder, (str(job.rank),)).blocks("x", None, 1, compute),
    ):
        job.wait()


def everything(job: Ranks, trained: Path, begun: Path, folder: Path) -> None:
    by_blocks(job, trained)
    train(load_params(begun / "params.yaml"), begun)
    skipping(job, folder)


def copied(root: Path, trained: tuple[Path, Params]) -> Path:
    """A copy of the trained project, with rows that lack values, and more rows than a rank encodes at once."""
    shutil.copytree(trained[0], root)
    test = Dataset.load(root / "artefacts/data/test")
    mask = np.ones((len(test), 5), bool)
    mask[::2, 1:3] = False
    many = test.select(np.arange(5000) % len(test))
    replace(many, ids=None).save(root / "artefacts/many")
    rows = test.select(np.arange(600) % len(test))
    replace(rows, ids=None, mask=np.resize(mask, (600, 5))).save(root / "artefacts/holes")
    return root


def begun(root: Path, trained: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose training was interrupted after two of four epochs, in one process."""
    shutil.copytree(trained[0] / "artefacts/data", root / "artefacts/data")
    params, save = write_params(root, LONG), Checkpoint.save

    def interrupted(self: Checkpoint, history: list, snapshot: object) -> None:
        save(self, history, snapshot)
        if len(history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", interrupted)
        train(params, root)
    return root


def test_two_ranks_leave_what_one_process_leaves(
    trained: tuple[Path, Params], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks with the same bytes; a training that one process began, up to rounding."""
    one, two = (copied(tmp_path / name, trained) for name in ("one", "two"))
    resumed, whole = begun(tmp_path / "resumed", trained, monkeypatch), tmp_path / "whole"
    shutil.copytree(resumed, whole)
    by_blocks(ALONE, one)
    train(load_params(whole / "params.yaml"), whole)
    (tmp_path / "blocks").mkdir()
    on_ranks(2, everything, two, resumed, tmp_path / "blocks")
    assert content(two) == content(one)
    assert not list((two / ".postprior/blocks").iterdir())
    tables = [
        list(csv.DictReader(Project(root).results.training.read_text().splitlines())) for root in (resumed, whole)
    ]
    assert tables[0][:2] == tables[1][:2]
    for found, expected in zip(*tables, strict=True):
        assert float(found["train_loss"]) == pytest.approx(float(expected["train_loss"]), rel=1e-5)
    found, expected = (load_artefact(Project(root).artefacts.autoencoder, "autoencoder") for root in (resumed, whole))
    for name, tensor in expected.tensors.items():
        np.testing.assert_allclose(found.tensors[name], tensor, atol=1e-3)
    assert not list((resumed / ".postprior/checkpoints").iterdir())


@pytest.mark.parametrize("killed", [0, 1])
def test_the_loss_of_a_rank_ends_the_job_with_one_sentence(
    killed: int, trained: tuple[Path, Params], tmp_path: Path
) -> None:
    root = tmp_path / "project"
    shutil.copytree(trained[0] / "artefacts/data", root / "artefacts/data")
    write_params(root, small(train__epochs=1000))
    job = commands(root, "train")
    while not list((root / ".postprior").glob("checkpoints/*.safetensors")):
        time.sleep(0.05)
    job[killed].send(signal.SIGKILL)
    survivor = job[1 - killed]
    assert (job[killed].wait(), survivor.wait()) == (-signal.SIGKILL, 1)
    *progress, last = survivor.said.splitlines()
    assert all(line.startswith("train mvtcae: ") for line in progress)
    assert last.startswith(f"postprior: error: rank {1 - killed} of 2: another rank has ended or cannot be reached (")
    assert last.endswith("start the job again, and it goes on from what is done")


def test_what_all_ranks_find_is_told_once(tmp_path: Path) -> None:
    write_params(tmp_path, small())
    job = commands(tmp_path, "train")
    assert [each.wait() for each in job] == [1, 1]
    assert sorted(len(each.said.splitlines()) for each in job) == [0, 1]


def test_commands_that_share_no_rows_are_refused(tmp_path: Path) -> None:
    write_params(tmp_path, small())
    first, other = commands(tmp_path, "compare")
    assert (first.wait(), other.wait()) == (1, 1)
    assert first.said.startswith("postprior: error: compare: found 2 processes, expected one, because only train, ")
    assert not other.said


def test_a_rank_waits_in_vain_for_one_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(2)[0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "MEETING", timedelta(seconds=0.1))
    ranks.meet.cache_clear()  # another test may have met before
    with pytest.raises(UserError, match=r"^ranks: 2 processes cannot meet \("):
        ranks.meet()


def test_one_process_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(1)[0].items():
        monkeypatch.setenv(name, value)
    assert ranks.meet() == ALONE
    assert ranks.number() == 0
