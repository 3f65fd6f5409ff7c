"""Runs everything from loading the data to saving the model.

Start with `pipeline.py`, which lists the steps of a run in order. `api.py` offers the run as a Python function,
and `command.py` is the command `bertcls`.
"""

from bertcls_hf.run.pipeline import main


__all__ = ["main"]
