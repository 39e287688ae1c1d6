"""Checkpoints of training runs: the metrics of all epochs so far, and the state after the last epoch."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from postprior.pipelines.artefacts.autoencoder import History
from postprior.pipelines.artefacts.code import custom_code, fingerprint
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.ranks import check_same
from postprior.pipelines.settings.params import DRAWING, Params
from postprior.pipelines.texts import tell
from postprior.stage1_vae.ranks import ALONE, Ranks
from postprior.stage1_vae.training import Snapshot

HASH = "sha256"


class Checkpoint:
    """The file that a training run resumes from; its name hashes all inputs of the run, and DVC does not track it."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage

    @classmethod
    def of(cls, folder: Path, params: Params, *data: Dataset) -> Self:
        """Return the checkpoint of a run in a folder, identified by settings, data and the code of the stage."""
        code = fingerprint("stages.train", custom_code(params.vae.networks.values()))
        model = [params.vae.model, params.vae.sizes, params.vae.chosen]
        return cls._of(folder, "train", params.seed, model, params.train.model_dump(), [s.hash for s in data], code)

    @classmethod
    def of_refiner(cls, folder: Path, params: Params, autoencoder: str, *data: Dataset) -> Self:
        """Return the checkpoint of a run that trains the refiner of the autoencoder with this hash.

        It does not depend on the settings of draws, which may change after the training.
        """
        settings = None if params.refine is None else params.refine.model_dump(exclude=set(DRAWING))
        code = fingerprint("stages.refine")
        found = cls._of(folder, "refine", params.seed, settings, autoencoder, [s.hash for s in data], code)
        return cls(folder / f"refine-{found.path.name}", found.stage)

    @classmethod
    def _of(cls, folder: Path, stage: str, *inputs: Any) -> Self:
        """Return the checkpoint of a run of a stage with these inputs."""
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
        return cls(folder / f"{key}.safetensors", stage)

    def remove_earlier(self) -> None:
        """Remove the checkpoints of other runs of this stage."""
        for path in self.path.parent.glob(f"{self.stage}-*"):
            if path != self.path:
                path.unlink(missing_ok=True)

    def load(self, ranks: Ranks = ALONE) -> tuple[History, Snapshot | None]:
        """Load the metrics of the epochs so far and the state to resume from; [] and None without a valid file.

        All ranks have what the first one finds.
        """
        check_same(ranks, self.stage, self.path.stem)
        content = b""
        with suppress(FileNotFoundError):
            content = self.path.read_bytes() if ranks.is_first else b""  # once: another process may replace the file
        if not (content := ranks.from_first(content)):
            return [], None
        with suppress(SafetensorError, ValueError, KeyError, TypeError):
            tensors, metadata = load(content), metadata_of(content)
            run = json.loads(metadata["run"])
            # files of older versions have no hash
            if metadata.get(HASH) in (None, self._hash(metadata["run"], tensors)):
                return run["history"], Snapshot(run["phase"], run["epoch"], tensors)
        problem = "found no valid checkpoint of this run; training starts from the beginning"
        tell(f"{self.stage}: {self.path}: {problem}", err=True)
        return [], None

    def save(self, history: History, snapshot: Snapshot) -> None:
        """Replace the file by the current state of the run."""
        run = json.dumps({"history": history, "phase": snapshot.phase, "epoch": snapshot.epoch})
        write_bytes(self.path, save(snapshot.tensors, {"run": run, HASH: self._hash(run, snapshot.tensors)}))

    def _hash(self, run: str, tensors: dict[str, Tensor]) -> str:
        """Return the hash of the content of the file and of its name, which identifies the run."""
        digest = hashlib.sha256(json.dumps([self.path.name, run]).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(json.dumps([name, str(tensor.dtype), tensor.shape]).encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def metadata_of(content: bytes) -> dict[str, str]:
    """Read the metadata of a safetensors file: 8 bytes with the length of the header, then the header as JSON."""
    end = 8 + int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8:end])["__metadata__"]
    return metadata
