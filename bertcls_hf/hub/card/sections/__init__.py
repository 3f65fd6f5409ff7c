"""The sections of a model card: sentences and Markdown tables from what a run knows."""
