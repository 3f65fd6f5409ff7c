"""Text classification with BERT-family encoders on the Hugging Face Trainer."""

__version__ = "0.1.0"
