"""The model card of a run: its text, tables and pictures."""
