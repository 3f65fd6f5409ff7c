"""What is wrong with labelled data: labels, repeated texts, leaks, lengths and rare labels."""
