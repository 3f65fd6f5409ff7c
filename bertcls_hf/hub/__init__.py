"""What others get to see of a run: its model card, and the push to the Hub."""
