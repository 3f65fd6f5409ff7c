"""Runs everything from loading the data to saving the model.

Start with `pipeline.py`, which lists the steps of a run in order. `api.py` offers the run as a Python function,
and `command.py` is the command `bertcls`.
"""

from bertcls_hf.config.surroundings import require_working_directory


# Without one, the import of torch ends the process.
require_working_directory()

from bertcls_hf.run.pipeline import main  # noqa: E402


__all__ = ["main"]
