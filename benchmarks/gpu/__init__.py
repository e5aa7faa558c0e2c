"""The GPU day: everything that only a GPU can tell, run unattended, with a report at the end (`docs/gpu.md`)."""


def main(argv: list[str]) -> None:
    """`benchmarks.gpu.run.main`; this package alone imports nothing."""
    from benchmarks.gpu.run import main as run

    run(argv)
