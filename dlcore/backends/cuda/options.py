"""How kernels are compiled: for nvcc, NVRTC, `setup.py` and the static benchmarks alike. Imports nothing."""

OPTIONS = ("--std=c++17", "--fmad=false")
"""Contraction is off: kernels write fmaf where they mean it, so that every engine agrees bit for bit."""

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
"""Compute capabilities (80 for 8.0) that binaries are made for; others compile with NVRTC, which CuPy needs too."""

SCHEDULED = (
    "attention", "attention_grad", "attention_grad_kv", "conv", "conv_direct", "gemm", "gru", "lstm", "rnn",
)  # fmt: skip
"""Kernel files of f32 multiply-adds, which 8.6 issues twice as often as 8.0: code for 8.0 waits between them."""


def in_wheel(module: str) -> tuple[int, ...]:
    """What the wheel's fat binary of a kernel file holds code for, so that the wheel stays small.

    Devices of 8.9 run code for 8.6, whose multiprocessor is theirs, and both run code for 8.0: kernels that wait for
    memory or for tensor cores have no other. Lessons, which no op calls, have none and are compiled when asked for.
    """
    if module == "gemm_ladder":
        return ()
    left_out = (89,) if module in SCHEDULED else (86, 89)
    return tuple(a for a in ARCHITECTURES if a not in left_out)
