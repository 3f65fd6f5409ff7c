"""Trains and evaluates classifiers with the Hugging Face Trainer.

Open `phases.py` first: it has the functions that train, evaluate and predict. `trainer.py` holds the Trainer that
they use, `resolve.py` fills in the options that depend on the data, and `checkpoints.py` decides which checkpoint a
run may resume from.
"""
