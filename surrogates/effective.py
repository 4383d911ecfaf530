"""The command ``python3 -m surrogates.effective``: the former name of `surrogates.homogenise`."""

import sys

from micro.threads import limit_threads

if __name__ == "__main__":
    limit_threads(sys.argv)  # before PyTorch and NumPy are loaded

from surrogates.homogenise import main

if __name__ == "__main__":
    sys.exit(main())
