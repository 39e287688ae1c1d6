"""Independent densities of the blocks: the joint one factorises, and keeps the contract of a density."""

import pytest
import torch
from support.equations import seeded
from support.latent import LAYOUT, labelled, unlabelled

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.independent import Independent

CODES, ENCODER = labelled(2000, seed=1)
VALIDATION, _ = labelled(400, seed=2)
GAUSSIAN = {"density": "gmm", "options": {"components": 1, "passes": 10, "shrinkage": 0.0}}


def test_given_a_label_blocks_are_independent_and_each_is_as_it_was() -> None:
    apart = Independent(**GAUSSIAN).fit(CODES, VALIDATION, seeded())
    joint = DENSITIES["gmm"](**GAUSSIAN["options"]).fit(CODES, VALIDATION, seeded())
    asked = torch.zeros(40_000, dtype=torch.int64)
    own, whole = (d.sample(40_000, seeded(1), asked).loc[:, 0].T.cov() for d in (apart, joint))
    assert whole[:2, 2:].abs().max() > 0.2, "the blocks do depend on one another"
    assert own[:2, 2:].abs().max() < 0.05
    for block in (slice(0, 2), slice(2, 4)):
        torch.testing.assert_close(own[block, block], whole[block, block], atol=0.06, rtol=0.1)


def test_the_score_is_the_sum_of_the_blocks_scores() -> None:
    apart = Independent(**GAUSSIAN).fit(CODES, VALIDATION, seeded())
    z = VALIDATION.mean
    by_hand = sum(
        apart.parts[block.name].log_prob(part, VALIDATION.labels)
        for block, part in zip(LAYOUT, z.split([2, 2], dim=1), strict=True)
    )
    torch.testing.assert_close(apart.log_prob(z, VALIDATION.labels), by_hand)


def test_a_joint_fit_is_more_likely_where_blocks_depend_on_one_another() -> None:
    z = VALIDATION.draw(seeded(3))
    apart = Independent(**GAUSSIAN).fit(CODES, VALIDATION, seeded())
    joint = DENSITIES["gmm"](**GAUSSIAN["options"]).fit(CODES, VALIDATION, seeded())
    assert joint.log_prob(z).mean() > apart.log_prob(z).mean() + 0.05


def test_without_labels_a_block_says_nothing_of_another() -> None:
    apart = Independent(**GAUSSIAN).fit(unlabelled(CODES), unlabelled(VALIDATION), seeded())
    far = torch.full((2000, 2), 3.0)
    here = apart.condition({"z": far}, seeded()).loc[:, 0, 2:]
    there = apart.condition({"z": -far}, seeded()).loc[:, 0, 2:]
    assert torch.equal(here, there)


def test_each_block_takes_its_part_of_the_encoder() -> None:
    apart = Independent(density="vamp", options={"pseudo_inputs": 60, "steps": 10})
    assert apart.needs_encoder
    apart.fit(CODES, VALIDATION, seeded(), ENCODER)
    for name, columns in (("z", slice(0, 2)), ("w", slice(2, 4))):
        drawn = apart.parts[name].sample(4000, seeded()).loc[:, 0]
        torch.testing.assert_close(drawn.mean(0), CODES.mean[:, columns].mean(0), atol=0.15, rtol=0)


def test_it_is_not_made_of_itself() -> None:
    with pytest.raises(ValueError, match="option density: found 'independent', expected one of"):
        Independent(density="independent")
