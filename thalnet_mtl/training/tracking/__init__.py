"""Callbacks of a run, and trackers: callbacks that log it to a program such as TensorBoard."""
