"""The command line as ``python -m thalnet_mtl.cli``, which is how sweeps start their runs."""

import sys

from thalnet_mtl.signals import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    from thalnet_mtl.cli.main import main

    sys.exit(main())
