#!/usr/bin/env python
"""Trains, evaluates and applies a text classifier with a BERT-family encoder.

    python run_classification.py recipes/quickstart.yaml
    python run_classification.py recipes/imdb/frozen_256.yaml --head_learning_rate 2e-3
    python run_classification.py --train_file train.csv --validation_file dev.csv --output_dir outputs/mine
    accelerate launch run_classification.py recipes/imdb/finetuned_512.yaml

A recipe is a YAML file of options; those on the command line win. `--help` lists them all.
Exit codes: 0 done, 2 bad arguments, 65 bad data, 70 unforeseen, 74 disk full, 75 stopped by a signal, 76 diverged, 77
the push failed (the model is saved), 130 interrupted.
"""

import sys

from bertcls_hf.run import main


if __name__ == "__main__":
    sys.exit(main())
