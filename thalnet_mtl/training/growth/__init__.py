"""Rules of growth: when and how a network grows along a stream."""
