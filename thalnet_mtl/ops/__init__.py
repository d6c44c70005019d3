"""The sequence of a ThalNet, several times with one signature; ``reference`` is the definition."""

from thalnet_mtl.ops import batched, reference

SEQUENCES = {"reference": reference.sequence, "batched": batched.sequence}
