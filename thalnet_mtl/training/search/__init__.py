"""Online architecture search: for each new task of a stream, what to reuse and what to add."""
