"""Chooses for a trained model which texts its lexical features answer, and which a person should read."""
