"""The emulator of the CUDA execution model: kernels compiled by g++, run under checks, behind a fake driver library."""
