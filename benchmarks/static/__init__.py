"""Static performance of the CUDA kernels: read off machine code and the emulator's counters, without a GPU."""

from benchmarks.static.report import main
