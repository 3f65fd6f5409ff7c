"""Boost: computes the features of a frozen encoder once, caches them on disk, and serves them for head training.

Open `extractor.py` first: `FeatureExtractor.features` turns a split into a `FeatureDataset`, which is in `dataset.py`.
`plan.py` chooses the rows to compute, and `cache.py` reads and writes the shards.
"""
