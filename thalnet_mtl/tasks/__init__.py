"""Tasks: the built-in ones, the classes for new ones, and the data sets that they read."""
