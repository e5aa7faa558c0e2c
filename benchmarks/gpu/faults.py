"""Sections that go wrong on purpose, for a rehearsal: `fail`, `crash` or `hang`."""

from __future__ import annotations

import os
import sys
import time


def main(way: str) -> None:
    """Go wrong."""
    print("about to", way, flush=True)
    if way == "fail":
        raise RuntimeError("failed on purpose")
    if way == "crash":
        os.abort()
    time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
