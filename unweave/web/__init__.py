"""The web app: one server on this machine for runs, their latents, and questions to their models."""
