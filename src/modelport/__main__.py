"""``python -m modelport`` is ``modelport``."""

import sys

from modelport.cli import main

if __name__ == "__main__":
    sys.exit(main())
