"""Score a generator: the baselines, and the fidelity, utility, privacy and imputations of one density."""
