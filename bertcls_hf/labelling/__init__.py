"""Chooses the texts that a person should label next, and takes the answers in, from a file or on a page.

Start with `strategies.py`, which holds the arithmetic, and `proposer.py`, which applies it to cached features.
`labelled_file.py` adds rows to a file of labelled texts, and `session.py` is one person's work on the page.
"""
