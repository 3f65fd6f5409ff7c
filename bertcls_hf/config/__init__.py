"""The options of a run: what they are, what contradicts what, and how a recipe and a command line give them."""
