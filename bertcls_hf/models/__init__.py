"""The classifier model: its definition and its loading, with helpers for batches, checks and content hashes.

Start with `modeling.py`, which defines the model and its configuration, and `loading.py`, which builds a classifier
from the options. `padding_free.py` makes an encoder compute without padding.
"""
