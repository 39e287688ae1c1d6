"""Explicit random generators: the same seed gives the same numbers, and no global generator is used."""

import numpy as np
import torch

from postprior.stage1_vae.randomness import generator_for, generator_from, normal, seed_from, seeded, uniform


def test_layers_draw_from_the_seed_and_the_global_generator_stays_as_it_was() -> None:
    before = torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        with seeded(seed):
            weights.append(torch.nn.Linear(3, 3).weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbouring_counters_share_nothing() -> None:
    seeds = [generator_for("cpu", *counters).initial_seed() for counters in ((0, 1), (1, 0), (0, 1), (0, 1, 0))]
    assert seeds[0] == seeds[2]
    assert len(set(seeds)) == 3


def test_one_generator_seeds_another() -> None:
    first, again = (generator_from(np.random.default_rng(3)) for _ in range(2))
    assert first.initial_seed() == again.initial_seed()
    seeds = [seed_from(first) for _ in range(100)]
    assert [seed_from(again) for _ in range(100)] == seeds
    assert len(set(seeds)) == 100
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_noise_is_like_what_it_is_added_to() -> None:
    like = torch.zeros(2, dtype=torch.float64)
    for draw, mean, variance in ((normal, 0.0, 1.0), (uniform, 0.5, 1 / 12)):
        drawn = draw((200, 500), like, torch.Generator().manual_seed(0))
        assert drawn.dtype == like.dtype
        assert abs(float(drawn.mean()) - mean) < 0.01
        assert abs(float(drawn.var()) - variance) < 0.01
