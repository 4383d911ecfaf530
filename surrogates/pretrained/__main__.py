"""`python3 -m surrogates.pretrained`: list the shipped laws."""

import sys

from surrogates.pretrained import main

if __name__ == "__main__":
    sys.exit(main())
