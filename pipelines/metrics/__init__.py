"""Scores of samples against real data: one folder per family, one or two scores per file; no file depends on a stage.

A family imports only families before it in this order: `statistics`, `features`, `fidelity`, `tables`, `coherence`,
`latent`, `privacy`, `imputation`, `utility`. Every family may import `registry`, the table of all metrics.
`scores` computes the rows of the leaderboard.
"""
