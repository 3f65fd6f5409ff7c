"""`python -m bertcls_hf.hub push outputs/mine`: what a run could not push."""

import sys

from bertcls_hf.hub.push import main


if __name__ == "__main__":
    sys.exit(main())
