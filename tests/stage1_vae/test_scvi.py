"""The adapters of scvi-tools, tested with its real models in the environment that `make test-scvi` makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("scvi", reason="scvi-tools has an environment of its own; run make test-scvi")
from anndata import AnnData
from mudata import MuData
from scvi import settings as scvi_settings
from scvi.model import MULTIVI, SCVI, TOTALVI
from scvi.module._multivae import get_reconstruction_loss_protein

from postprior import InBatch, adapt
from postprior.stage1_vae.adapted import Adapted
from postprior.stage1_vae.adapters import adaptable
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import generator_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
CELLS, GENES, REGIONS, PROTEINS = 90, 12, 9, 5
EXACT = 1e-5
SIZES = {"rna": GENES, "atac": REGIONS, "protein": PROTEINS}
KINDS = {"rna": "negative_binomial", "atac": "bernoulli", "protein": "negative_binomial"}


def cells() -> dict[str, np.ndarray]:
    """Counts that depend on a state of two dimensions, for two batches."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(CELLS, 2))
    rates = {m: np.exp(state @ rng.normal(size=(2, n)) * 0.7 + rng.normal(1, 0.5, n)) for m, n in SIZES.items()}
    counts = {m: rng.poisson(rate).astype(np.float32) for m, rate in rates.items()}
    counts["atac"] = (counts["atac"] > 1).astype(np.float32)
    counts["rna"][:, 0] += 1  # no cell is empty
    return counts


def annotated(part: str) -> AnnData:
    adata = AnnData(cells()[part])
    adata.obs["donor"] = np.where(np.arange(CELLS) % 2, "b", "a")
    return adata


def scvi_model(**options: Any) -> Any:
    adata = annotated("rna")
    SCVI.setup_anndata(adata, batch_key="donor")
    return SCVI(adata, n_latent=3, n_hidden=16, **options)


def totalvi_model(**options: Any) -> Any:
    adata = annotated("rna")
    adata.obsm["protein"] = cells()["protein"] * (adata.obs["donor"].to_numpy() == "b")[:, None]  # a has none
    TOTALVI.setup_anndata(adata, "protein", batch_key="donor")
    return TOTALVI(adata, n_latent=3, n_hidden=16, **options)


def multivi_model(**options: Any) -> Any:
    data = MuData({m: annotated(m) for m in SIZES})
    MULTIVI.setup_mudata(data, batch_key="donor", modalities={"batch_key": "rna", **{f"{m}_layer": m for m in SIZES}})
    return MULTIVI(data, n_genes=GENES, n_regions=REGIONS, n_latent=3, n_hidden=16, **options)


MODELS: dict[str, tuple[Callable[..., Any], dict[str, Any], list[str]]] = {
    "SCVI": (scvi_model, {}, ["rna"]),
    "SCVI nb": (scvi_model, {"gene_likelihood": "nb", "encode_covariates": True, "dispersion": "gene-batch"}, ["rna"]),
    "SCVI library": (scvi_model, {"use_observed_lib_size": False}, ["rna"]),
    "SCVI logistic": (scvi_model, {"latent_distribution": "ln", "dispersion": "gene-cell"}, ["rna"]),
    "TOTALVI": (totalvi_model, {}, ["rna", "protein"]),
    "TOTALVI zinb": (totalvi_model, {"gene_likelihood": "zinb"}, ["rna", "protein"]),
    "MULTIVI": (multivi_model, {}, ["rna", "atac", "protein"]),
    "MULTIVI nb": (
        multivi_model,
        {"gene_likelihood": "nb", "modality_weights": "universal"},
        ["rna", "atac", "protein"],
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest) -> tuple[Any, Adapted, list[str]]:
    torch.manual_seed(0)
    build, options, names = MODELS[request.param]
    model = build(**options)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    modalities = [Modality(m, "vector", (SIZES[m],), KINDS[m]) for m in names]
    source = adaptable(InBatch(model, "b"), {m.name: m.shape for m in modalities})
    return model, Adapted(source, modalities).eval(), names


def batch(names: list[str], missing: str | None = None) -> Batch:
    rows = np.arange(CELLS) % 2 == 1
    counts = {m: torch.from_numpy(x[rows]) for m, x in cells().items() if m in names}
    observed = torch.tensor([[m != missing for m in names]]).expand(int(rows.sum()), -1)
    return Batch(counts, observed.clone())


def forwarded(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs of its own `inference` and `generative`, on all cells of the batch b."""
    indices = np.arange(1, CELLS, 2)
    tensors = next(iter(model._make_data_loader(model.adata, indices=indices, batch_size=len(indices))))
    torch.manual_seed(1)
    with torch.no_grad():
        return model.module.forward(tensors, compute_loss=False)


def test_posteriors_are_those_of_scvi_tools(trained: tuple[Any, Adapted, list[str]]) -> None:
    model, adapted, names = trained
    with torch.no_grad():
        q = adapted.posterior(batch(names))
    found, _ = forwarded(model)
    loc, scale = (found["qz"].loc, found["qz"].scale) if "qz" in found else (found["qz_m"], found["qz_v"].sqrt())
    torch.testing.assert_close(q.mean[:, :3], loc, atol=EXACT, rtol=EXACT)
    torch.testing.assert_close(q.components.scale[:, 0, :3], scale, atol=EXACT, rtol=EXACT)
    if model.module.latent_distribution == "normal" and not isinstance(model, TOTALVI):  # its mean is that of draws
        own = model.get_latent_representation(indices=np.arange(1, CELLS, 2))
        torch.testing.assert_close(q.mean[:, :3], torch.from_numpy(own), atol=EXACT, rtol=EXACT)


def test_likelihoods_are_those_of_scvi_tools(trained: tuple[Any, Adapted, list[str]]) -> None:
    """log p(x) of every count given its draws of codes, of size factors and of the background is the same."""
    model, adapted, names = trained
    rows = batch(names)
    inferred, decoded = forwarded(model)
    with torch.no_grad():
        codes = adapted.posterior(rows).mean
        codes[:, :3] = inferred["z"]
        if model.module.latent_distribution == "ln":
            codes[:, :3] = inferred["z"].log()  # its softmax is z
        if inferred.get("ql") is not None and not model.module.use_observed_lib_size:
            codes[:, 3:4] = inferred["library"]
        latents = torch.cat([codes, decoded["log_pro_back_mean"]], -1) if "protein" in names else codes
        ours = {
            m.name: adapted.decode_one(m, latents).elementwise_log_prob(rows.data[m.name]) for m in adapted.modalities
        }
    for name, theirs in losses(model, inferred, decoded, rows).items():
        torch.testing.assert_close(ours[name].sum(-1), theirs, atol=1e-3, rtol=EXACT)
    if model.module.gene_likelihood == "nb" and not isinstance(model, SCVI):
        mean = decoded["px_"]["rate"] if isinstance(model, TOTALVI) else decoded["px_rate"]
        with torch.no_grad():
            torch.testing.assert_close(
                adapted.decode_one(adapted.modalities[0], latents).mean, mean, atol=EXACT, rtol=EXACT
            )


def losses(model: Any, inferred: dict[str, Any], decoded: dict[str, Any], rows: Batch) -> dict[str, Tensor]:
    """log p(x) of each cell and modality, by the loss of the model."""
    module, data = model.module, rows.data
    with torch.no_grad():
        if isinstance(model, SCVI):
            return {"rna": decoded["px"].log_prob(data["rna"]).sum(-1)}
        if isinstance(model, TOTALVI):
            parts = decoded["px_"], decoded["py_"], None, decoded["per_batch_efficiency"]
            rna, protein = module.get_reconstruction_loss(data["rna"], data["protein"], *parts)
            return {"rna": -rna, "protein": -protein}
        genes = decoded["px_rate"], decoded["px_r"], decoded["px_dropout"]
        rna = module.get_reconstruction_loss_expression(data["rna"], *genes)
        atac = module.get_reconstruction_loss_accessibility(data["atac"], decoded["p"], inferred["libsize_acc"])
        protein = get_reconstruction_loss_protein(data["protein"], decoded["py_"], None)
        return {"rna": -rna, "atac": -atac, "protein": -protein}


def test_a_missing_modality_is_encoded_as_scvi_tools_does(trained: tuple[Any, Adapted, list[str]]) -> None:
    """MULTIVI reads zeros; TOTALVI reads zeros in the batch in which no proteins were measured."""
    model, adapted, names = trained
    if len(names) == 1:
        pytest.skip("one modality")
    rows = batch(names, missing=names[1])
    with torch.no_grad():
        q = adapted.posterior(rows)
        zero = torch.zeros_like(rows.data[names[1]])
        index = torch.zeros(len(rows), 1, dtype=torch.long)
        if isinstance(model, TOTALVI):
            found = model.module._regular_inference(rows.data["rna"], zero, index, index)["qz"].loc
        else:
            x = torch.cat([rows.data["rna"], zero], -1)
            y = rows.data["protein"]
            found = model.module.inference(x, y, index + 1, None, None, None, torch.arange(len(rows)), None)["qz_m"]
    torch.testing.assert_close(q.mean[:, :3], found, atol=EXACT, rtol=EXACT)


def test_the_background_of_proteins_is_drawn_or_its_mean() -> None:
    model = totalvi_model()
    source: Any = adaptable(InBatch(model, "b"), {"rna": (GENES,), "protein": (PROTEINS,)})
    codes = torch.randn(4, 4, generator=generator_for("cpu", 0)).expand(3000, 4, 4).reshape(-1, 4)
    with torch.no_grad():
        mean, drawn = (source.descend(codes, g)[:, 4:] for g in (None, generator_for("cpu", 1)))
    torch.testing.assert_close(drawn.view(3000, 4, -1).mean(0), mean[:4], atol=0.1, rtol=0.1)
    assert float(drawn.view(3000, 4, -1).std(0).min()) > 0


def test_everything_after_training(tmp_path: Path) -> None:
    """Samples are counts with library sizes like those of the cells; proteins of cells without them are imputed."""
    model, counts = totalvi_model(), {m: cells()[m] for m in ("rna", "protein")}
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    trained = {key: value.clone() for key, value in model.module.state_dict().items()}
    holes = {**counts, "protein": np.where(np.arange(CELLS)[:, None] % 2, counts["protein"], np.nan)}
    settings = {"density.gmm.components": [1], "density.gmm.covariance": ["full"]}
    generator = adapt(InBatch(model, "b"), holes, density="gmm", settings=settings, progress=False)
    samples = generator.sample(200, values="draws")
    rna = np.asarray(samples.data["rna"])
    assert rna.shape == (200, GENES)
    assert np.equal(rna, rna.round()).all()
    assert np.median(rna.sum(1)) == pytest.approx(np.median(counts["rna"].sum(1)), rel=0.3)
    imputed = generator.impute({"rna": counts["rna"][:6], "protein": np.full((6, PROTEINS), np.nan, np.float32)})
    assert np.isfinite(np.asarray(imputed["protein"])).all()
    assert all(torch.equal(value, trained[key]) for key, value in model.module.state_dict().items())
    assert any(not torch.equal(before[key], trained[key]) for key in trained)
    page = generator.report(tmp_path / "report.html", progress=False).read_text()
    assert "trained elsewhere, from an object in memory" in page


def test_proteins_are_imputed_through_a_density_no_worse_than_by_totalvi() -> None:
    """A third of the cells lack the proteins; mean squared errors of log(1 + count), paired by cell."""
    rng, n = np.random.default_rng(0), 900
    state = rng.choice([-1.5, 0.0, 1.5], (n, 1)) + 0.5 * rng.normal(size=(n, 2))
    size = np.exp(0.25 * rng.normal(size=(n, 1)))
    rates = {m: size * np.exp(0.7 * state @ rng.normal(size=(2, k)) + 2) for m, k in {"rna": 30, "protein": 8}.items()}
    counts = {m: rng.poisson(rate * rng.gamma(4, 0.25, rate.shape)).astype(np.float32) for m, rate in rates.items()}
    hidden = np.arange(n) % 3 == 0
    adata = AnnData(counts["rna"])
    adata.obs["panel"] = np.where(hidden, "genes", "whole")
    adata.obsm["protein"] = counts["protein"] * ~hidden[:, None]
    TOTALVI.setup_anndata(adata, "protein", batch_key="panel")
    scvi_settings.seed = 0
    model = TOTALVI(adata, n_latent=4, n_hidden=32)
    model.train(max_epochs=60, accelerator="cpu", enable_progress_bar=False)
    rows = {"rna": counts["rna"], "protein": np.where(hidden[:, None], np.nan, counts["protein"])}
    generator = adapt(InBatch(model, "whole"), rows, density="gmm", progress=False)
    drawn = generator.impute({m: x[hidden] for m, x in rows.items()}, draws=25, values="mean")
    ours = np.mean([np.asarray(part["protein"]) for part in drawn], 0)
    indices = np.flatnonzero(hidden)
    tensors = next(iter(model._make_data_loader(adata, indices=indices, batch_size=n)))
    given = {"inference_kwargs": {"n_samples": 25}, "generative_kwargs": {"transform_batch": 1}, "compute_loss": False}
    with torch.no_grad():
        py = model.module.forward(tensors, **given)[1]["py_norm_"]
        share = py["mixing"].sigmoid()
        theirs = (share * py["rate_back"] + (1 - share) * py["rate_fore"]).mean(0).numpy()
    truth = np.log1p(counts["protein"][hidden])
    gain = ((np.log1p(theirs) - truth) ** 2 - (np.log1p(ours) - truth) ** 2).mean(1)
    assert gain.mean() > -2 * gain.std() / len(gain) ** 0.5


def test_what_is_not_supported_is_told() -> None:
    model = scvi_model()
    with pytest.raises(ValueError, match=r"found batches a, b, expected InBatch\(model, batch\) with one"):
        adaptable(model, {"rna": (GENES,)})
    with pytest.raises(ValueError, match="found batch 'c', expected one of a, b"):
        adaptable(InBatch(model, "c"), {"rna": (GENES,)})
    with pytest.raises(ValueError, match=r"found rna of shape \(3,\), expected 12 genes"):
        adaptable(InBatch(model, "a"), {"rna": (3,)})
    with pytest.raises(ValueError, match="gene_likelihood poisson, expected zinb or nb"):
        adaptable(InBatch(scvi_model(gene_likelihood="poisson"), "a"), {"rna": (GENES,)})
