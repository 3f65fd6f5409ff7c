"""Boost: the features of a frozen encoder, computed once and cached."""
