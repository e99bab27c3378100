"""`python -m saliency_r1` is `saliency-r1`."""

import sys

from saliency_r1.cli import main

if __name__ == "__main__":
    sys.exit(main())
