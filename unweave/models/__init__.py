"""Unmodified Hugging Face models, read and edited through plain PyTorch hooks."""
