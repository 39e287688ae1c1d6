"""Scores of samples against real data, one family a folder, one score or two a file; none of them knows a stage.

Families import those before them alone: `statistics`, `features`, `fidelity`, `coherence`, `latent`, `privacy`,
`imputation`, `utility`. All may ask `registry` what a metric is called and where it lies; `scores` is the leaderboard.
"""
