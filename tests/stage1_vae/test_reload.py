"""Save, then load in a new process: the same bytes come out of every model."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from support.equations import seeded

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.storage import save_artefact
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS

MODALITIES = (
    Modality("a", "vector", (3,), "normal"),
    Modality("b", "image", (2, 8, 6), "laplace", (0, 1)),
    Modality("c", "vector", (5,), "bernoulli", (0, 1)),
)


def rows() -> Batch:
    generator = seeded()
    data = {m.name: torch.rand(12, *m.shape, generator=generator) for m in MODALITIES}
    observed = torch.ones(12, 3, dtype=torch.bool)
    observed[::2, 1] = False
    return Batch(data, observed)


@torch.no_grad()
def fingerprint(model: MultimodalVAE) -> str:
    """A hash of what a model encodes and decodes."""
    generator = seeded(1)
    q = model.eval().encode(rows(), generator)
    decoded = model.decode(q.rsample((), generator), generator)
    tensors = [q.weights, q.components.loc, q.components.scale, *(p.mean for p in decoded.values())]
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def fingerprints(root: Path) -> dict[str, str]:
    """Of the models saved under a folder, by name."""
    return {path.name: fingerprint(load_autoencoder(path)[0]) for path in sorted(root.iterdir())}


def test_every_model_comes_back_the_same_in_a_new_process(tmp_path: Path) -> None:
    before = {}
    for name, kind in MODELS.items():
        model = kind(MODALITIES, latent=4, width=3, likelihood_scale="learned", seed=2)
        tensors, description = model.state()
        save_artefact(tmp_path / name, "autoencoder", {"model": name, "data": "", **description}, tensors)
        before[name] = fingerprint(model)
    script = "import json, sys; from pathlib import Path; from test_reload import fingerprints; "
    script += "print(json.dumps(fingerprints(Path(sys.argv[1]))))"
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    folder = Path(__file__).parent
    answer = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(answer.stdout) == before
