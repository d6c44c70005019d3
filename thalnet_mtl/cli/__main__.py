"""``python -m thalnet_mtl.cli`` is ``thalnet``."""

import sys

from thalnet_mtl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
