"""``thalnet train`` with the choosers of this benchmark, for a single run:

python -m benchmarks.search.train search/recipe search/s_minus --growth.when oracle
"""

import sys

from benchmarks.search import choosers  # noqa: F401  (registers them)
from thalnet_mtl.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
