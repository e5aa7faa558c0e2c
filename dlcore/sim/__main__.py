"""Command line: `python -m dlcore.sim report OP --shape 64x128 --shape 128x32`."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from typing import Any

from dlcore.errors import DlcoreError
from dlcore.sim import report


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="dlcore.sim", description="Kernels in the CUDA emulator.")
    commands = parser.add_subparsers(dest="command", required=True)
    own = commands.add_parser("report", help="what the memory accesses of an op's kernels cost, by source line")
    own.add_argument("op", help="a function of dlcore or dlcore.nn, such as matmul or softmax")
    own.add_argument(
        "--shape", action="append", type=shape, required=True, help="of an operand, such as 64x128; once each"
    )
    own.add_argument("--dtype", default="float32")
    own.add_argument("--attr", action="append", type=attribute, default=[], help="such as axis=1")
    own.add_argument("--backward", action="store_true", help="the kernels of the gradient too")
    given = parser.parse_args(argv)
    os.environ["DLCORE_SIM"] = "checked"
    try:
        print("\n".join(report.of_op(given.op, given.shape, given.dtype, dict(given.attr), given.backward)))
    except (DlcoreError, TypeError) as error:  # TypeError: attributes that the op does not have
        print(f"dlcore.sim: {error}", file=sys.stderr)
        return 1
    return 0


def shape(text: str) -> tuple[int, ...]:
    """`64x128` as (64, 128)."""
    return tuple(int(size) for size in text.split("x"))


def attribute(text: str) -> tuple[str, Any]:
    """`axis=(0, 1)` as ("axis", (0, 1)); what is no Python literal is text."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
