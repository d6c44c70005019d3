"""The data of a split: what a user hands over, read, checked, and gathered for batches."""
