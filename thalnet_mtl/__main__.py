"""The command line as ``python -m thalnet_mtl``, which ``torchrun -m`` starts."""

import sys

from thalnet_mtl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
