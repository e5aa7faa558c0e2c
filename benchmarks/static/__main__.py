"""`python -m benchmarks.static`."""

import sys

from benchmarks.static.report import main

main(sys.argv[1:])
