"""A page where a trained classifier can be tried, here or as a Hugging Face Space."""
