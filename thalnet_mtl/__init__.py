"""ThalNet: recurrent modules around a routing center, for one task or many."""
