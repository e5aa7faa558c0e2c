"""How kernels are compiled: for nvcc, NVRTC, `setup.py` and the static benchmarks alike. Imports nothing."""

OPTIONS = ("--std=c++17", "--fmad=false")
"""Contraction is off: kernels write fmaf where they mean it, so that every engine agrees bit for bit."""

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities (80 for 8.0) that binaries are made for; a newer device compiles the PTX of the last."""
