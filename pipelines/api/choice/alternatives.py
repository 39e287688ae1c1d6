"""What to try beside the settings of `init`: by purpose, for the data for which it was measured or is of use."""

from collections.abc import Callable, Iterator
from typing import Any

from postprior.pipelines.api.choice.facts import Facts, Rule, Settings

FEW = 500
"""With fewer training rows, the density that follows single codes was better than all others."""


def alternatives(facts: Facts) -> Iterator[Rule]:
    """Yield the alternatives that suit these data."""
    return (rule for rule in ALTERNATIVES if rule.holds(facts))


def _fixed(**chosen: Any) -> Callable[[Facts], Settings]:
    """Return what sets the same values for all data; `__` in a keyword stands for a dot."""
    return lambda facts: {key.replace("__", "."): value for key, value in chosen.items()}


def _pictures(facts: Facts) -> bool:
    return any(m.kind in ("image", "volume") for m in facts.modalities)


def _aligned(facts: Facts) -> bool:
    """Whether all modalities are images or volumes on one grid."""
    return facts.images and len({m.shape[1:] for m in facts.modalities}) == 1


ALTERNATIVES = (
    Rule(
        "a first look, soon",
        "",
        "`gmm` alone",
        "it is the cheapest density that comes close to the best",
        _fixed(densities=["gmm"]),
        measured="5,000 codes of 32 dimensions: 11.4 s, `flow_matching` 33.0 s, `flow` 35.3 s",
        page="docs/densities.md",
    ),
    Rule(
        "a modality from one other",
        "several modalities, one of them images or volumes, and a shared code",
        "`cmvae`",
        "experts that each explain all modalities; it takes twice the time of a step",
        _fixed(vae__model="cmvae"),
        lambda facts: len(facts.modalities) > 1 and not facts.apart and _pictures(facts),
        "digits, conditional coherence with one observed modality: 0.896, `mvtcae` 0.581; with four 0.893 and 0.874",
        "docs/zoo.md",
    ),
    Rule(
        "images of one kind from another, pixel by pixel",
        "several images or volumes on one grid",
        "`mhvae` with `finest: full`",
        "a hierarchy of feature maps keeps the detail that a code of some numbers loses",
        _fixed(vae__model="mhvae", vae__options__mhvae__finest="full"),
        _aligned,
        "digits, `finest: half`: conditional coherence 0.945 with two observed modalities and 0.989 with four, the "
        "highest of all models",
        "docs/zoo.md",
    ),
    Rule(
        "sharper images",
        "images or volumes and a shared code",
        "a refiner: `refine: {temperature: 0.8}`, `generate.values: refined`",
        "decoders of a shared code blur; training it takes long without an accelerator",
        _fixed(refine={"temperature": 0.8}, generate__values="refined"),
        lambda facts: not facts.apart and _pictures(facts),
        "digits: Fréchet distance 38 instead of 76; joint coherence 0.73 instead of 0.87",
        "docs/models.md",
    ),
    Rule(
        "samples from few rows that nobody else gets",
        "fewer than 500 training rows, all of them complete",
        "`riemannian`",
        "it stays near single codes; it stores training codes, so do not share it or its samples",
        _fixed(densities=["riemannian", "gmm"]),
        lambda facts: facts.complete == facts.rows < FEW,
        "200 rows of digits: joint coherence 0.777 and Fréchet distance 38.3, of `gmm` 0.529 and 52.6",
        "docs/densities.md",
    ),
    Rule(
        "other models for rows that lack modalities",
        "rows that lack modalities",
        "not `jmvae`, `jnf` or `telbo`",
        "their joint encoders train on complete rows alone",
        _fixed(),
        lambda facts: facts.complete < facts.rows,
    ),
)
"""`topic` is the purpose; several may hold for the same data."""
