"""Data sets: their files, where they come from, and the store that holds them."""
