"""`python -m benchmarks.static`."""

import sys

from benchmarks.static import main

main(sys.argv[1:])
