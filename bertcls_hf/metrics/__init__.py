"""What a model's outputs are worth: probabilities, metrics, their intervals, and calibration."""
