"""Stage `train`: the autoencoder. Killed and started again, it ends with the same bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.artefacts.autoencoder import KIND, build, mendable
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.locks import sole_trainer
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder, write_bytes, write_text
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import file_hash, files_of, save_artefact
from postprior.pipelines.texts import tell
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from torch import Tensor

    from postprior.stage1_vae.modalities import Batch
    from postprior.stage1_vae.model import MultimodalVAE
    from postprior.stage1_vae.training import Snapshot

HASH = "sha256"
History = list[dict[str, Any]]


def train(params: Params, root: Path) -> None:
    """Train the model of params.yaml; artefacts/autoencoder and results/training.csv."""
    from postprior.stage1_vae import training

    folder = root / "artefacts" / KIND
    check_folder(folder, partial(files_of, kind=KIND))  # now, not after hours
    data, validation = (Dataset.load(root / "artefacts/data" / split) for split in ("train", "validation"))
    settings = training.Settings(**params.train.model_dump(), seed=params.seed)
    model, digest = build(params, data), data.hash  # now: the folder may be made anew while this trains
    tell_what_is_left_out(model, data)
    checkpoint = Checkpoint.of(root, params, data, validation)
    with sole_trainer(root) as confirm:
        history, resume = checkpoint.load()
        epochs = training.train(model, Confirmed(data, confirm), settings, validation, resume)
        total = sum(training.epochs_of(phase, settings) for phase in model.phases())
        with (
            track("train", params, root) as run,
            progress(f"train {params.vae.model}", total, len(history)) as step,
        ):
            run.dataset(root / "artefacts/data/train", digest)
            for epoch in mendable(epochs):
                history.append({"epoch": epoch.snapshot.epoch + 1, "phase": epoch.phase, **epoch.metrics})
                checkpoint.save(history, epoch.snapshot)
                run.metrics(epoch.metrics, step=len(history))
                step(f"loss {epoch.metrics['train_loss']:.1f}")
            tensors, description = model.state()
            manifest = {
                "model": params.vae.model,
                **description,
                "data": digest,
                "train": params.train.model_dump(),
            }
            confirm()
            save_artefact(folder, KIND, manifest, tensors)
            write_text(root / "results/training.csv", table(history))
        checkpoint.path.unlink(missing_ok=True)


class Checkpoint:
    """The file that a training run resumes from, outside of DVC's outputs, named by all that decides its bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, root: Path, params: Params, *data: Dataset) -> Checkpoint:
        """The checkpoint of a run: its settings, its data and the code of stage 1."""
        from postprior import stage1_vae

        code = Path(stage1_vae.__file__).parent
        parts = [
            params.model_dump(include={"seed", "vae", "train"}),
            [split.hash for split in data],
            [(str(path.relative_to(code)), file_hash(path)) for path in sorted(code.rglob("*.py"))],
            [file_hash(path) for path in own_code(params.vae.networks.values())],
        ]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return cls(root / ".postprior/checkpoints" / f"{key}.safetensors")

    def load(self) -> tuple[History, Snapshot | None]:
        """The epochs done so far, and where to resume; nothing and None at a first start, or from a damaged file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        from postprior.stage1_vae.training import Snapshot

        try:
            content = self.path.read_bytes()  # once: another process may replace the file
        except FileNotFoundError:
            return [], None
        with suppress(SafetensorError, ValueError, KeyError, TypeError):
            tensors, metadata = load(content), metadata_of(content)
            where = json.loads(metadata["run"])
            # older versions wrote no hash
            if metadata.get(HASH) in (None, self._hash(metadata["run"], tensors)):
                return where["history"], Snapshot(where["phase"], where["epoch"], tensors)
        tell(f"train: {self.path}: no whole checkpoint of this run; training starts anew", err=True)
        return [], None

    def save(self, history: History, snapshot: Snapshot) -> None:
        """Replace the file by the run as it stands."""
        from safetensors.torch import save

        run = json.dumps({"history": history, "phase": snapshot.phase, "epoch": snapshot.epoch})
        write_bytes(self.path, save(snapshot.tensors, {"run": run, HASH: self._hash(run, snapshot.tensors)}))

    def _hash(self, run: str, tensors: dict[str, Tensor]) -> str:
        """The hash of all that the file says, and of its name, which says for what run."""
        import torch

        known = hashlib.sha256(json.dumps([self.path.name, run]).encode())
        for name, tensor in sorted(tensors.items()):
            known.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
            known.update(tensor.flatten().view(torch.uint8).numpy().data)
        return known.hexdigest()


def metadata_of(content: bytes) -> dict[str, str]:
    """The metadata in the bytes of a safetensors file: the length of a header, 8 bytes, and the header in JSON."""
    end = 8 + int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8:end])["__metadata__"]
    return metadata


@dataclass(frozen=True)
class Confirmed:
    """Rows to train on, of which every batch is given after a confirmation that the run is to go on."""

    data: Dataset
    confirm: Callable[[], None]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def observed(self) -> Any:
        """(N, M) bool: which modalities the rows have."""
        return self.data.observed

    def batch(self, rows: Any) -> Batch:
        """The batch of the rows at an integer array."""
        self.confirm()
        return self.data.batch(rows)


def tell_what_is_left_out(model: MultimodalVAE, data: Dataset) -> None:
    """A line on the rows that some phases cannot be trained on."""
    phases = [phase.name for phase in model.phases() if phase.complete]
    left_out = int((~data.observed.all(1)).sum())
    if phases and left_out:
        tell(
            f"train: {left_out} of {len(data)} rows lack a modality, which a joint encoder cannot read; phase "
            f"{', '.join(phases)} is trained on the others, and all rows are encoded",
            err=True,
        )


def own_code(networks: Iterable[str]) -> list[Path]:
    """The files of the user's own networks, named by import paths, each package.module:Name."""
    from importlib.util import find_spec

    paths = [
        path.partition(":")[0].strip()
        for network in networks
        if ":" in network
        for path in network.split(",")
    ]
    specs = [find_spec(name) for name in sorted(set(paths))]
    return [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]


def table(history: History) -> str:
    """The history as CSV; metrics that a phase lacks are left empty."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
