"""Command line: `python -m dlcore doctor`, `env` and `ops`."""

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
    commands.add_parser("ops", help="the op table, as Markdown")
    given = parser.parse_args(argv)
    makers = {
        "doctor": lambda: doctor.report(given.device, given.ops),
        "env": doctor.environment,
        "ops": doctor.op_table,
    }
    try:
        lines = makers[given.command]()
        print("\n".join(lines))
    except DlcoreError as error:
        print(f"dlcore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
