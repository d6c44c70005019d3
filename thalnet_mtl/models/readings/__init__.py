"""Readings, a file each: how a module reads the center."""
