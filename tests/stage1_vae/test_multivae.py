"""The adapters of MultiVae, tested with its real models: `make test-multivae` makes the environment that it needs."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("multivae", reason="MultiVae has an environment of its own; run make test-multivae")
from support.multivae_models import CLASSES, SIZE, build

from postprior.stage1_vae.adapted import Adapted
from postprior.stage1_vae.adapters import adaptable
from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import generator_for

pytestmark = pytest.mark.slow
NAMES = ["a", "b", "c"]
MODALITIES = [Modality(name, "image", (1, SIZE, SIZE), "normal", (0, 1)) for name in NAMES]
SUBSETS = [list(some) for size in (1, 2, 3) for some in combinations(NAMES, size)]
EXACT = 1e-5


@pytest.fixture(scope="module", params=CLASSES)
def pair(request: pytest.FixtureRequest) -> tuple[str, Any, Adapted]:
    model = build(request.param, NAMES)
    return request.param, model, Adapted(adaptable(model, {m.name: m.shape for m in MODALITIES}), MODALITIES).eval()


def rows(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    data = {name: torch.rand(count, 1, SIZE, SIZE, generator=generator) for name in NAMES}
    return Batch(data, torch.ones(count, len(NAMES), dtype=torch.bool))


def theirs(model: Any, some: list[str], batch: Batch, **options: Any) -> Any:
    with torch.no_grad():
        return model.encode(SimpleNamespace(data=batch.data), some, **options)


def ours(model: Adapted, some: list[str], batch: Batch) -> Any:
    pattern = torch.tensor([[name in some for name in NAMES]])
    with torch.no_grad():
        return model.posterior(batch, pattern)[:, 0]


@pytest.mark.parametrize("some", SUBSETS, ids="".join)
def test_posterior_means_are_those_of_encode(pair: tuple[str, Any, Adapted], some: list[str]) -> None:
    kind, model, adapted = pair
    if (kind == "JNF" and len(some) < 3) or (kind == "TELBO" and len(some) == 2):
        pytest.skip("draws of a Markov chain or a flow; TELBO refuses two of three modalities")
    batch = rows()
    q = ours(adapted, some, batch)
    parts = dict(
        zip([b.owner for b in adapted.layout], q.mean.split([b.size for b in adapted.layout], -1), strict=True)
    )
    if kind == "CMVAE":  # its mean is that of one expert, chosen at random
        experts = [theirs(model, [name], batch, return_mean=True).z for name in some]
        torch.testing.assert_close(parts[None], torch.stack(experts).mean(0), atol=EXACT, rtol=EXACT)
        return
    found = theirs(model, some, batch, return_mean=True)
    if kind == "MoPoE" and some == NAMES:  # its mean is that of the products of all subsets, its draws are not
        found.z = model.inference(SimpleNamespace(data=batch.data))["subsets"]["_".join(sorted(NAMES))][0]
    shared = found.all_z[f"z_{model.n_latent}"].flatten(1) if kind == "MHVAE" else found.z
    torch.testing.assert_close(parts[None], shared, atol=EXACT, rtol=EXACT)
    for name in some if len(parts) > 1 else ():
        torch.testing.assert_close(parts[name], found.modalities_z[name], atol=EXACT, rtol=EXACT)


@pytest.mark.parametrize("some", [["a"], ["a", "b"], NAMES], ids="".join)
def test_posterior_scales_are_those_of_the_draws_of_encode(pair: tuple[str, Any, Adapted], some: list[str]) -> None:
    kind, model, adapted = pair
    if kind == "TELBO" and len(some) == 2:
        pytest.skip("TELBO refuses two of three modalities")
    if kind == "Nexus":
        pytest.skip("the adapter of Nexus takes the means of the bottom codes, as encode does for the mean")
    batch, draws = rows(2), 2000
    q = ours(adapted, some, batch)
    torch.manual_seed(0)
    if kind in ("MMVAE", "MMVAEPlus", "CMVAE"):  # all draws of a call come from one expert, chosen at random
        found = torch.cat([theirs(model, [name], batch, N=draws).z for name in some])
    elif kind == "MHVAE":
        found = theirs(model, some, batch, N=draws).all_z[f"z_{model.n_latent}"].flatten(2)
    elif kind == "JNF" and len(some) == 2:
        found = theirs(model, some, batch, N=60, mcmc_steps=60, eps_lf=0.15).z
    else:
        found = theirs(model, some, batch, N=draws).z
    found, size = found.double(), adapted.layout[0].size
    spread = found.std(0)
    few = kind == "JNF" and len(some) < 3  # our posterior consists of 16 draws
    mean, variance = q.mean[:, :size].double(), q.variance[:, :size].double()
    error = (mean - found.mean(0)).abs() / spread
    assert float(error.max()) < (1.5 if few else 0.12)
    assert float((variance.sqrt() / spread - 1).abs().max()) < (0.7 if few else 0.1)


def test_codes_are_decoded_to_the_values_of_decode(pair: tuple[str, Any, Adapted]) -> None:
    kind, model, adapted = pair
    z = torch.randn(5, adapted.dimensions, generator=torch.Generator().manual_seed(2))
    parts = dict(zip([b.owner for b in adapted.layout], z.split([b.size for b in adapted.layout], -1), strict=True))
    codes: dict[str, Any] = {"z": parts.pop(None), "modalities_z": parts}
    with torch.no_grad():
        decoded = {name: p.mean for name, p in adapted.decode(z).items()}
        if kind == "MHVAE":
            codes["z"] = adapted.descend(z).unflatten(-1, adapted.source.bottom)  # type: ignore[union-attr, arg-type]
        found = model.decode(Codes(codes, one_latent_space=not parts))
    for name in NAMES:
        torch.testing.assert_close(decoded[name], found[name], atol=EXACT, rtol=EXACT)


class Codes(SimpleNamespace):
    """Codes as `encode` returns them; without private codes they have no attribute `modalities_z`."""

    def __init__(self, codes: dict[str, Any], one_latent_space: bool) -> None:
        super().__init__(**{k: v for k, v in codes.items() if len(v)}, one_latent_space=one_latent_space)


def test_prior_is_that_of_generate_from_prior(pair: tuple[str, Any, Adapted]) -> None:
    kind, model, adapted = pair
    prior, size = adapted.prior(), adapted.layout[0].size
    if kind == "MHVAE":
        pytest.skip("generate_from_prior of MHVAE draws codes of the wrong level")
    torch.manual_seed(0)
    with torch.no_grad():
        found = model.generate_from_prior(20_000)
    z = found.z[:, :size].double()
    torch.testing.assert_close(prior.mean[:size].double(), z.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(prior.variance[:size].sqrt().double(), z.std(0), atol=0, rtol=0.05)


@pytest.mark.parametrize("kind", ["DMVAE", "MMVAEPlus", "CMVAE", "MoPoE"])
def test_private_codes_are_blocks_and_follow_the_prior_where_their_modality_is_missing(kind: str) -> None:
    adapted = Adapted(adaptable(build(kind, NAMES), {}), MODALITIES).eval()
    assert [(b.name, b.owner) for b in adapted.layout] == [("z", None), *((f"w_{m}", m) for m in NAMES)]
    q, prior = ours(adapted, ["b"], rows()), adapted.prior()
    start = adapted.layout[0].size
    for place, name in enumerate(NAMES):
        own = slice(start + 2 * place, start + 2 * place + 2)
        same = torch.allclose(q.mean[:, own], prior.mean[own].expand(6, 2))
        assert same == (name != "b")


@pytest.mark.parametrize(("kind", "count"), [("MMVAE", 3), ("MMVAEPlus", 3), ("CMVAE", 3), ("MoPoE", 1)])
def test_mixtures_are_mixtures(kind: str, count: int) -> None:
    adapted = Adapted(adaptable(build(kind, NAMES), {}), MODALITIES).eval()
    assert ours(adapted, NAMES, rows()).weights.shape == (6, count)


def test_lower_levels_of_candidates_depend_on_the_data() -> None:
    adapted = Adapted(adaptable(build("MHVAE", NAMES), {m.name: m.shape for m in MODALITIES}), MODALITIES).eval()
    with torch.no_grad():
        codes, latents = adapted.candidates(rows(), 5, generator_for("cpu", 0))
        again = adapted.candidates(rows(), 5, generator_for("cpu", 0))
        q = ours(adapted, NAMES, rows())
    assert latents is not None
    assert codes.shape == (6, 5, adapted.dimensions)
    assert latents.shape[:2] == (6, 5)
    assert torch.equal(codes, again[0])
    assert isinstance(q.components, Normal)
    standardised: Tensor = (codes - q.mean.unsqueeze(1)) / q.variance.sqrt().unsqueeze(1)
    assert float(standardised.std()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", CLASSES)
def test_rows_do_not_depend_on_the_batch_or_on_what_it_hides(kind: str) -> None:
    if kind == "JNF":
        pytest.skip("draws of a Markov chain")
    adapted = Adapted(adaptable(build(kind, NAMES), {m.name: m.shape for m in MODALITIES}), MODALITIES).eval()
    batch = rows()
    observed = torch.tensor([[True, True, True], [True, False, False], [False, True, True]]).repeat(2, 1)
    hidden = {
        name: x.masked_fill(~observed[:, i, None, None, None], 9.0) for i, (name, x) in enumerate(batch.data.items())
    }
    with torch.no_grad():
        together = adapted.posterior(Batch(hidden, observed)).mean
        for row in range(6):
            one = Batch({m: x[row : row + 1] for m, x in batch.data.items()}, observed[row : row + 1])
            torch.testing.assert_close(adapted.posterior(one).mean[0], together[row], atol=EXACT, rtol=EXACT)
