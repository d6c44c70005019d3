"""The tasks that come with the package, and what a task of your own is made of."""
