"""Continual-learning strategies: ways to keep a network from forgetting earlier experiences."""
