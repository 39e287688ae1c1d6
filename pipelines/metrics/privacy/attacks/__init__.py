"""Attacks on single people with the help of synthetic rows: singling out, linking and inferring attributes.

They are the three risks of Giomi et al. 2023 (https://arxiv.org/abs/2211.10459), written from the paper.
"""
