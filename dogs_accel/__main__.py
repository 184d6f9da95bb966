"""`python -m dogs_accel` is `dogs-accel`."""

import sys

from dogs_accel.cli import main

if __name__ == "__main__":
    sys.exit(main())
