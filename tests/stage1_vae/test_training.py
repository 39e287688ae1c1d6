"""Training: what is learned, and exact resumption after the process was killed."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.equations import seeded
from support.project import small, write_params

from postprior.pipelines.artefacts.autoencoder import build, load_autoencoder
from postprior.pipelines.artefacts.checkpoint import Checkpoint
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.params import Params
from postprior.pipelines.stages.train import train
from postprior.pipelines.storage import folder_hash, load_artefact
from postprior.pipelines.tracking.groups import STAGES
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.randomness import generator_for
from postprior.stage1_vae.training import Epoch, Settings, Snapshot, epochs_of
from postprior.stage1_vae.training import train as run

MODALITIES = (Modality("a", "vector", (3,), "normal"), Modality("b", "image", (1, 8, 8), "laplace"))


class Rows:
    """Rows of two modalities that share a number, a third of them without the second."""

    def __init__(self, count: int = 200, scale: float = 1.0) -> None:
        generator = seeded()
        shared = torch.rand(count, 1, generator=generator)
        self.data = {
            "a": scale * torch.cat([shared, -shared, shared**2], 1),
            "b": scale * shared.reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous(),
        }
        self.observed = torch.ones(count, 2, dtype=torch.bool)
        self.observed[::3, 1] = False

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: object) -> Batch:
        index = torch.as_tensor(rows)
        return Batch({name: x[index] for name, x in self.data.items()}, self.observed[index])


def model(name: str = "mvtcae", partial: bool = False) -> MultimodalVAE:
    vector, image = MODALITIES
    return MODELS[name]([replace(vector, partial=partial), image], latent=2, width=2, likelihood_scale=0.2)


SETTINGS = Settings(epochs=4, batch_size=32, learning_rate=3e-3, warmup=2, device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_a_run_resumed_in_any_phase_ends_with_the_bytes_of_an_uninterrupted_one(name: str) -> None:
    whole, data = model(name, partial=True), Rows()
    count = len(whole.phases())
    numbers = [4, 2, 3][:count]
    settings = replace(SETTINGS, epochs=numbers, patience=2, hide_cells=0.3, hide_modalities=0.2)
    epochs = list(run(whole, data, settings, validation=Rows(40)))
    assert {epoch.snapshot.phase for epoch in epochs} == set(range(count))
    for phase in range(count):
        place = next(i for i, epoch in enumerate(epochs) if epoch.snapshot.phase == phase)
        resumed = model(name, partial=True)
        rest = list(run(resumed, data, settings, Rows(40), resume=epochs[place].snapshot))
        assert [epoch.metrics for epoch in rest] == [epoch.metrics for epoch in epochs[place + 1 :]]
        for key, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", MODELS)
def test_every_phase_lowers_its_held_out_loss_and_moves_only_what_it_trains(name: str) -> None:
    settings, trained = replace(SETTINGS, epochs=6), model(name)
    epochs: list[Epoch] = list(run(trained, Rows(), settings, validation=Rows(60)))
    for phase, count in zip(trained.phases(), epochs_of(trained.phases(), settings), strict=True):
        losses = [epoch.metrics["validation_loss"] for epoch in epochs if epoch.phase == phase.name]
        assert len(losses) == count
        assert losses[-1] < losses[0], phase.name
    for index, phase in enumerate(trained.phases()):
        chosen = {id(parameter) for parameter in phase.parameters}
        inside = [epoch.snapshot.tensors for epoch in epochs if epoch.phase == phase.name]
        for key, parameter in trained.named_parameters():
            moved = not torch.equal(inside[0][f"model/{key}"], inside[-1][f"model/{key}"])
            assert moved <= (id(parameter) in chosen), f"phase {index}: {key}"


def test_every_phase_takes_its_own_number_of_epochs_and_its_own_schedule() -> None:
    """A listed number for each phase; a run of the shared budget with the same numbers gives the same bytes."""
    listed, shared, longer = model("jnf"), model("jnf"), model("jnf")
    found = [epoch.phase for epoch in run(longer, Rows(), replace(SETTINGS, epochs=[2, 3]))]
    assert found == ["joint"] * 2 + ["flows"] * 3
    list(run(listed, Rows(), replace(SETTINGS, epochs=[2, 2])))
    list(run(shared, Rows(), replace(SETTINGS, epochs=4)))
    for key, tensor in listed.state_dict().items():
        assert torch.equal(tensor, shared.state_dict()[key]), key
        if key.startswith("decoders"):
            assert torch.equal(tensor, longer.state_dict()[key]), key
    with pytest.raises(ValueError, match=r"a list of 3, expected one number for each phase .* \(joint, flows\)"):
        epochs_of(listed.phases(), replace(SETTINGS, epochs=[1, 1, 1]))


def test_a_phase_ends_when_its_held_out_loss_no_longer_falls_with_the_weights_of_its_best_epoch() -> None:
    patient, trained = replace(SETTINGS, epochs=40, learning_rate=3e-2, patience=2), model()
    epochs = list(run(trained, Rows(), patient, validation=Rows(60)))
    losses = [epoch.metrics["validation_loss"] for epoch in epochs]
    assert len(losses) < 40
    assert min(losses) == losses[-3]
    for key, tensor in trained.state_dict().items():
        assert torch.equal(tensor, epochs[-3].snapshot.tensors[f"model/{key}"]), key


def test_a_joint_encoder_is_trained_on_the_complete_rows() -> None:
    """Values of incomplete rows change nothing, and without complete rows the phase is refused."""
    models, tables = [model("jmvae"), model("jmvae")], [Rows(), Rows()]
    tables[1].data["a"][~tables[1].observed.all(1)] = 7.0
    for each, table in zip(models, tables, strict=True):
        list(run(each, table, SETTINGS))
    for key, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[key])
    tables[0].observed[:, 1] = False
    with pytest.raises(ValueError, match="phase joint: found no complete row"):
        list(run(model("jmvae"), tables[0], SETTINGS))


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    list(run(model(), Rows(), SETTINGS))
    assert torch.equal(torch.get_rng_state(), before)


def test_trainings_of_one_process_have_their_own_precision() -> None:
    kernels = {}
    for precision in ("no", "bf16", "no"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            trained = model()
        list(run(trained, Rows(), replace(SETTINGS, epochs=1, precision=precision)))
        weights = torch.cat([weight.flatten() for weight in trained.state_dict().values()])
        assert torch.equal(kernels.setdefault(precision, weights), weights)
    torch.testing.assert_close(kernels["bf16"], kernels["no"], rtol=0, atol=0.05)
    assert not torch.equal(kernels["bf16"], kernels["no"])


def test_neighbouring_counters_give_unrelated_generators() -> None:
    draws = torch.stack([torch.randn(1000, generator=generator_for("cpu", 0, n)) for n in range(20)])
    off_diagonal = torch.corrcoef(draws) - torch.eye(20)
    assert off_diagonal.abs().max() < 0.2
    assert torch.equal(draws[3], torch.randn(1000, generator=generator_for("cpu", 0, 3)))


def test_a_loss_that_diverges_is_told_with_what_to_change() -> None:
    """In a step, before it changes the model, and in the means over held-out rows."""
    trained = model()
    state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"became inf in the log-likelihood of a, .*; lower train\.learning"):
        list(run(trained, Rows(scale=1e30), SETTINGS))
    assert all(torch.equal(state[name], tensor) for name, tensor in trained.state_dict().items())
    with pytest.raises(FloatingPointError, match=r"validation_loss .* became inf, expected a finite number"):
        list(run(model(), Rows(), SETTINGS, validation=Rows(scale=1e30)))


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate"])
def test_impossible_settings_are_refused(name: str) -> None:
    options = {"epochs": 1, "batch_size": 1, "learning_rate": 1.0, name: 0}
    with pytest.raises(ValueError, match=f"{name}: found 0, expected a number above 0"):
        Settings(**options)
    with pytest.raises(ValueError, match="epochs: found 0, expected a number above 0"):
        Settings(epochs=[1, 0])


COMMAND = [sys.executable, "-c", "from postprior.pipelines.commands import main; main()", "train"]
LONG = small(train__epochs=12)


def project(root: Path, data: Path) -> Params:
    """Settings of a project that trains for some seconds, on the data of another project."""
    shutil.copytree(data / "artefacts/data", root / "artefacts/data")
    return write_params(root, LONG)


def results(root: Path) -> tuple[str, str]:
    """The files that a training wrote."""
    assert not list((root / ".postprior/checkpoints").iterdir())
    assert not list(root.rglob("*.partial"))
    return folder_hash(root / "artefacts/autoencoder"), (root / "results/training.csv").read_text()


@pytest.fixture(scope="module")
def whole(trained: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The results of an uninterrupted training."""
    root = tmp_path_factory.mktemp("whole")
    train(project(root, trained[0]), root)
    return results(root)


def begun(root: Path) -> subprocess.Popen[str]:
    """A process that trains in a project, after its first epoch."""
    process = subprocess.Popen(COMMAND, cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not list((root / ".postprior/checkpoints").glob("*.safetensors")):
        time.sleep(0.01)
    return process


def test_a_killed_stage_ends_with_the_same_bytes(
    trained: tuple[Path, Params], whole: tuple[str, str], tmp_path: Path
) -> None:
    params = project(tmp_path, trained[0])
    with begun(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "artefacts/autoencoder").exists()
    train(params, tmp_path)
    assert results(tmp_path) == whole
    assert whole[1].count("\n") == 13


def test_a_terminated_stage_cleans_up_and_ends_with_the_same_bytes(
    trained: tuple[Path, Params], whole: tuple[str, str], tmp_path: Path, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal goes to the whole group of processes, as from a terminal; the one that logs to MLflow finishes."""
    from mlflow import MlflowClient

    params = project(tmp_path, trained[0])
    with begun(tmp_path) as process:
        os.killpg(process.pid, signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert [line for line in err.splitlines() if not line.startswith("train mvtcae: ")] == ["postprior: terminated"]
    assert not list(tmp_path.rglob("*.partial"))
    assert len(list((tmp_path / ".postprior/checkpoints").iterdir())) == 1
    client = MlflowClient(tracked)
    experiment = client.get_experiment_by_name(STAGES)
    assert experiment is not None
    latest, *_ = client.search_runs([experiment.experiment_id], "tags.stage = 'train'", max_results=1)
    assert latest.info.status == "KILLED"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "off")
    train(params, tmp_path)
    assert results(tmp_path) == whole


def test_a_stage_whose_project_another_trains_stops_and_leaves_its_epochs_to_it(
    trained: tuple[Path, Params],
    whole: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For example, the orphan of a killed `dvc` when `dvc repro` is run again."""
    params = project(tmp_path, trained[0])
    lengths: list[int] = []
    save = Checkpoint.save
    monkeypatch.setattr(
        Checkpoint,
        "save",
        lambda self, history, *rest: lengths.append(len(history)) or save(self, history, *rest),
    )
    with begun(tmp_path) as orphan:
        train(params, tmp_path)
        assert orphan.stderr is not None
        *_, told = orphan.stderr.read().splitlines()
    assert orphan.returncode == 1
    assert told.startswith(f"postprior: error: train: process {os.getpid()} has started to train in {tmp_path};")
    assert results(tmp_path) == whole
    assert lengths == list(range(lengths[0], 13))
    assert lengths[0] > 1  # the orphan trained the first epochs


def test_an_older_trainer_publishes_nothing(trained: tuple[Path, Params], tmp_path: Path) -> None:
    """Even after its last epoch, if another process claims the project just before it publishes."""
    params = project(tmp_path, trained[0])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="has started to train"):
        state = MultimodalVAE.state
        patch.setattr(MultimodalVAE, "state", lambda model: claim(tmp_path) or state(model))
        train(params, tmp_path)
    assert not (tmp_path / "artefacts/autoencoder").exists()
    assert not (tmp_path / "results/training.csv").exists()
    assert len(list((tmp_path / ".postprior/checkpoints").iterdir())) == 1


def claim(root: Path) -> None:
    (root / ".postprior/trainer").write_text("1 another")


TENSORS = {f"layer.{i}": torch.arange(40.0 + i) for i in range(20)} | {
    "none": torch.zeros(0),
    "one": torch.ones(()),
}
HISTORY = [{"epoch": 1, "phase": "joint", "train_loss": 1.5}]


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_the_old_or_the_new(tmp_path: Path) -> None:
    """One process saves checkpoints of different lengths while the other loads them."""
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "train")
    snapshots = [
        Snapshot(0, epoch, {f"{i}": torch.full((99 + epoch,), epoch + 1.0) for i in range(20)}) for epoch in (0, 1)
    ]
    checkpoint.save(HISTORY, snapshots[0])
    if not (child := os.fork()):
        for step in itertools.count():
            checkpoint.save(HISTORY, snapshots[step % 2])
    try:
        end, loads = time.perf_counter() + 1, 0
        while time.perf_counter() < end or loads < 50:
            history, found = checkpoint.load()
            assert history == HISTORY
            assert found is not None
            assert found.tensors.keys() == snapshots[found.epoch].tensors.keys()
            assert all(torch.equal(t, snapshots[found.epoch].tensors[name]) for name, t in found.tensors.items())
            loads += 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.safetensors", "train")
    assert checkpoint.load() == ([], None)
    checkpoint.save(HISTORY, Snapshot(1, 7, TENSORS))
    history, snapshot = checkpoint.load()
    assert history == HISTORY
    assert snapshot is not None
    assert (snapshot.phase, snapshot.epoch) == (1, 7)
    assert snapshot.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in snapshot.tensors.items())


def test_a_checkpoint_of_an_older_version_has_no_hash_and_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    run = json.dumps({"history": HISTORY, "phase": 0, "epoch": 3})
    save_file({"best": torch.ones(2)}, path, {"run": run})
    history, snapshot = Checkpoint(path, "train").load()
    assert history == HISTORY
    assert snapshot is not None
    assert snapshot.epoch == 3
    assert torch.equal(snapshot.tensors["best"], torch.ones(2))


def test_a_damaged_checkpoint_is_told_and_training_starts_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If one bit changed anywhere, if bytes are cut off, or if the file belongs to another run."""
    path, other = tmp_path / "run.safetensors", tmp_path / "other.safetensors"
    Checkpoint(path, "train").save(HISTORY, Snapshot(0, 3, TENSORS))
    content = path.read_bytes()
    name = content.index(b"sha256")
    rng = np.random.default_rng(0)
    broken = [content[:length] for length in (0, 7, 8, 100, len(content) - 1)] + [content + b"\0"]
    for place in rng.integers(0, len(content), 200):
        if not name <= place < name + 6:  # without its hash, as an older version wrote it, it is still whole
            broken.append(content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :])
    for damaged in broken:
        path.write_bytes(damaged)
        assert Checkpoint(path, "train").load() == ([], None)
    save_file(TENSORS, path)
    assert Checkpoint(path, "train").load() == ([], None)
    other.write_bytes(content)
    assert Checkpoint(other, "train").load() == ([], None)
    told = "{}: found no valid checkpoint of this run; training starts from the beginning"
    assert set(capsys.readouterr().err.splitlines()) == {f"train: {told.format(of)}" for of in (path, other)}


OWN = """
from torch import nn

class Encoder(nn.Sequential):
    def __init__(self, shape, features, width):
        super().__init__(nn.Flatten(), nn.Linear(768, features))

class Decoder(nn.Sequential):
    def __init__(self, shape, features, width):
        super().__init__(nn.Linear(features, 768), nn.Unflatten(1, tuple(shape)))
"""


def test_user_defined_networks_are_found_in_the_project(
    trained: tuple[Path, Params], tmp_path: Path, warm: Path
) -> None:
    """The command line does not resume a checkpoint of other code; a wrong import path gives a one-sentence error."""
    own = {"m0": "networks_of_mine:Encoder,networks_of_mine:Decoder"}
    params = write_params(tmp_path, small(vae__networks=own, train__epochs=1))
    shutil.copytree(trained[0] / "artefacts/data", tmp_path / "artefacts/data")
    command = [warm / "postprior", "train"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "network of modality m0: 'networks_of_mine:Encoder' cannot be imported" in answer.stderr
    assert "Traceback" not in answer.stderr
    (tmp_path / "networks_of_mine.py").write_text(OWN)
    subprocess.run(command, cwd=tmp_path, check=True)
    artefact = load_artefact(tmp_path / "artefacts/autoencoder", "autoencoder")
    assert artefact.tensors["encoders.m0.1.weight"].shape == (8, 768)
    assert artefact.manifest["options"]["networks"] == params.vae.networks


def test_the_artefact_rebuilds_the_model(trained: tuple[Path, Params]) -> None:
    root, params = trained
    autoencoder, artefact = load_autoencoder(root / "artefacts/autoencoder")
    assert artefact.manifest["model"] == params.vae.model
    assert artefact.manifest["data"] == folder_hash(root / "artefacts/data/train")
    assert (autoencoder.latent, autoencoder.width) == (4, 4)
    assert all(torch.equal(t, artefact.tensors[key]) for key, t in autoencoder.state_dict().items())


def test_an_artefact_of_an_unknown_model_is_refused(trained: tuple[Path, Params], tmp_path: Path) -> None:
    from postprior.pipelines.storage import save_artefact

    artefact = load_artefact(trained[0] / "artefacts/autoencoder", "autoencoder")
    save_artefact(tmp_path / "autoencoder", "autoencoder", {"model": "vae9"}, artefact.tensors)
    with pytest.raises(UserError, match=r"found model 'vae9', expected one of mvae, mmvae, mopoe, mvtcae"):
        load_autoencoder(tmp_path / "autoencoder")


def test_rows_that_a_joint_encoder_cannot_read_are_counted(
    trained: tuple[Path, Params], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stage trains on the other rows; if there are none, it ends in an error."""
    from postprior.pipelines.data.dataset import Dataset

    params = write_params(tmp_path, small(vae__model="telbo", train__epochs=2))
    for kept, split in ((200, "train"), (60, "validation")):
        data = Dataset.load(trained[0] / "artefacts/data" / split)
        mask = np.ones((len(data), 5), bool)
        mask[kept:, 1] = False
        replace(data, mask=mask, folder=None).save(tmp_path / "artefacts/data" / split)
    train(params, tmp_path)
    said = capsys.readouterr().err
    assert "train: 100 of 300 rows lack a modality, which a joint encoder cannot read; phase joint" in said
    mask = np.ones((300, 5), bool)
    mask[:, 1] = False
    data = replace(Dataset.load(trained[0] / "artefacts/data/train"), mask=mask, folder=None)
    data.save(tmp_path / "artefacts/data/train")
    with pytest.raises(UserError, match="phase joint: found no complete row"):
        train(params, tmp_path)


def test_an_artefact_whose_networks_are_gone_is_refused_in_one_sentence(
    trained: tuple[Path, Params], tmp_path: Path
) -> None:
    from postprior.pipelines.storage import save_artefact

    artefact = load_artefact(trained[0] / "artefacts/autoencoder", "autoencoder")
    manifest = artefact.manifest | {"options": artefact.manifest["options"] | {"networks": {"m0": "gone:E,gone:D"}}}
    save_artefact(tmp_path / "autoencoder", "autoencoder", manifest, artefact.tensors)
    with pytest.raises(UserError, match="network of modality m0: 'gone:E' cannot be imported"):
        load_autoencoder(tmp_path / "autoencoder")


def test_options_that_the_model_refuses_are_the_user_s(trained: tuple[Path, Params], tmp_path: Path) -> None:
    from postprior.pipelines.data.dataset import Dataset

    params = write_params(tmp_path, small(vae__options__mvtcae={"alpha": 2.0}))
    with pytest.raises(UserError, match=r"vae: alpha: found 2\.0, expected a number from 0 to 1"):
        build(params, Dataset.load(trained[0] / "artefacts/data/train"))


def test_a_diverging_stage_says_so_and_publishes_nothing(trained: tuple[Path, Params], tmp_path: Path) -> None:
    params = write_params(tmp_path, small(train__learning_rate=1.0e20))
    shutil.copytree(trained[0] / "artefacts/data", tmp_path / "artefacts/data")
    with pytest.raises(UserError, match=r"became .*, expected finite numbers; lower train\.learning_rate"):
        train(params, tmp_path)
    assert not (tmp_path / "artefacts/autoencoder").exists()
