"""The run folder and the latent index on disk."""
