"""PTX kernels around one instruction, for tests of the interpreter."""

import numpy as np

from dlcore.sim.ptx import Module

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"


def size(kind):
    return (
        1 if kind == "pred" else 4 if kind.endswith("x2") else int(kind.lstrip("busfa")) // 8 if kind[:2] != "bf" else 2
    )


def program(instruction, result, kinds):
    """PTX of a kernel that executes `instruction`, with result {0} and operands {1} ..., once per thread."""
    names = ["out", *(f"in{k}" for k in range(len(kinds)))]
    lines = [f".visible .entry k({', '.join(f'.param .u64 {name}' for name in names)})", "{", ".reg .b32 %t;"]
    lines += ["mov.u32 %t, %tid.x;"]
    registers = []
    for k, (name, kind) in enumerate(zip(names, [result, *kinds], strict=True)):
        width = max(8 * size(kind), 16)
        lines += [f".reg .b64 %p{k};", f".reg .b{width} %x{k};", f"ld.param.u64 %p{k}, [{name}];"]
        lines += [f"mad.wide.u32 %p{k}, %t, {size(kind)}, %p{k};"]
        lines += [f"ld.global.u{8 * size(kind)} %x{k}, [%p{k}];"] if k else []
        lines += [f".reg .pred %b{k};"] if kind == "pred" else []
        lines += [f"setp.ne.u16 %b{k}, %x{k}, 0;"] if kind == "pred" and k else []
        registers.append(f"%b{k}" if kind == "pred" else f"%x{k}")
    lines += [instruction.format(*registers) + ";"]
    lines += ["selp.u16 %x0, 1, 0, %b0;"] if result == "pred" else []
    lines += [f"st.global.u{8 * size(result)} [%p0], %x0;", "ret;", "}"]
    return HEADER + "\n".join(lines)


def dtype(kind):
    if kind in ("pred", "bf16") or kind.endswith("x2"):
        return {"pred": np.uint8, "bf16": np.uint16}.get(kind, np.uint32)
    return np.dtype({"b": "u", "u": "u", "s": "i", "f": "f"}[kind[0]] + str(size(kind)))


def execute(instruction, result, *operands):
    """The results of an instruction on arrays of equal length; operands are pairs (type, array)."""
    kinds = [kind for kind, _ in operands]
    arrays = [np.ascontiguousarray(values).astype(dtype(kind)) for kind, values in operands]
    out = np.zeros(len(arrays[0]), dtype(result))
    Module(program(instruction, result, kinds)).launch("k", 1, len(out), [out, *arrays])
    return out
