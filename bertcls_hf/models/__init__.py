"""The classifier, how it is loaded, and what it needs to compute."""
