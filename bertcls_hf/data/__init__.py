"""Loads texts and labels from files, folders, the Hub or memory, checks them, splits them and tokenizes them.

Start with `load.py`, which lists the steps from the options to checked splits, and `tokenization.py`, which turns them
into token ids. `sources.py` chooses the reader of each source.
"""
