"""What a training run resumes from: all its epochs so far, and the state at the end of the last."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from postprior.pipelines.artefacts.code import custom_code, fingerprint
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import tell
from postprior.stage1_vae.training import Snapshot

HASH = "sha256"
History = list[dict[str, Any]]  # what is told of each epoch, in all phases


class Checkpoint:
    """The file that a training run resumes from, outside of DVC's outputs, named by all that decides its bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, folder: Path, params: Params, *data: Dataset) -> Self:
        """The checkpoint in a folder of a run: its settings, its data and the code of the stage."""
        code = fingerprint("train", custom_code(params.vae.networks.values()))
        model = [params.vae.model, params.vae.sizes, params.vae.chosen]
        parts = [params.seed, model, params.train.model_dump(), [split.hash for split in data], code]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return cls(folder / f"{key}.safetensors")

    def load(self) -> tuple[History, Snapshot | None]:
        """The epochs done so far, and where to resume; nothing and None at a first start, or from a damaged file."""
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
        run = json.dumps({"history": history, "phase": snapshot.phase, "epoch": snapshot.epoch})
        write_bytes(self.path, save(snapshot.tensors, {"run": run, HASH: self._hash(run, snapshot.tensors)}))

    def _hash(self, run: str, tensors: dict[str, Tensor]) -> str:
        """The hash of all that the file says, and of its name, which says for what run."""
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
