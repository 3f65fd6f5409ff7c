"""A trained classifier at work on texts and files."""
