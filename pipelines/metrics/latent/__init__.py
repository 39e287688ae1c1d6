"""Diagnostics of the latent space: its use by the codes, and label information in the codes."""
