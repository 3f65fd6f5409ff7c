"""A whole run, from data to a saved model.

Start with `pipeline.py`, which lists the steps of a run in order. `api.py` is the same run as a Python function, and
`command.py` is the command `bertcls`.
"""

from bertcls_hf.run.pipeline import main


__all__ = ["main"]
