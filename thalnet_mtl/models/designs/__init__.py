"""Module designs, a file each or for a family: what a module computes from what it reads."""
