"""Runs that are killed, find a full disk, or find their files damaged, at every place where that can happen."""
