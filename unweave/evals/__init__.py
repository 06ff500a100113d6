"""Evaluation suites: figures of a finished coder on held-out text."""
