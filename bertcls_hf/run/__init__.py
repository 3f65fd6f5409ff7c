"""A run from data to a saved model: for the command line, for Python, and behind the command `bertcls`."""

from bertcls_hf.run.pipeline import main


__all__ = ["main"]
