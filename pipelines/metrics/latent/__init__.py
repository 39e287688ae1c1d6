"""The latent space: its health and what codes say of labels."""
