"""Command line: `python -m dlcore doctor` and `python -m dlcore env`."""

from __future__ import annotations

import argparse
import sys

from dlcore import doctor
from dlcore.errors import DlcoreError


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dlcore", description="Look at an installation of dlcore.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("doctor", help="what is here, and which path each op takes")
    check.add_argument("--device", help="backend to look at (default: the one that DLCORE_BACKEND chooses)")
    check.add_argument("--ops", action="store_true", help="one line per op, with the reasons of refusals")
    commands.add_parser("env", help="versions and DLCORE_* settings, for a bug report")
    given = parser.parse_args(argv)
    try:
        lines = doctor.environment() if given.command == "env" else doctor.report(given.device, given.ops)
        print("\n".join(lines))
    except DlcoreError as error:
        print(f"dlcore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
