"""Training, evaluation and what they leave in output_dir."""
