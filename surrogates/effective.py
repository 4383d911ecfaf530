"""The command ``python3 -m surrogates.effective``, which is `surrogates.homogenise` by its former name."""

import sys

from surrogates.homogenise import main

if __name__ == "__main__":
    sys.exit(main())
