"""Applies a trained classifier to texts and files.

Start with `predictor.py`, whose `Predictor` classifies texts. For the prediction command, `input.py` reads rows,
`run.py` classifies them chunk by chunk, and `output.py` writes the predictions.
"""
