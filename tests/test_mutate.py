"""The mutation test finds every place that it should break, and breaks it alone."""

import mutate
import pytest

KERNEL = """#include "dl.cuh"
template <class T, int N = (sizeof(T) < 4 ? 2 : 4)>
DL_DEVICE void f(float (&x)[kRows][4], int n) {
  if (i >= n || j >= m) return;  // i < n
  for (int k = 0; k < n && first + k < end; ++k) x[i][k + 1] = y[a][b][c];
  const bool valid = left > own() + 1;
  if constexpr (N < 4) dl::cp_async<4>(to, from, count(i) < n);
  while (i < n) ++i;
  dl::cp_async_wait<0>();
  __syncthreads();
}
"""


def found():
    return mutate.mutants("f.cu", KERNEL)


def test_barriers_waits_guards_and_index_pairs_are_found():
    assert [(m.line, m.what) for m in found()] == [
        (4, "never i >= n"), (4, "never j >= m"), (5, "always k < n"), (5, "always first + k < end"),
        (5, "swap [i][k + 1]"), (5, "swap [a][b]"), (5, "swap [b][c]"), (6, "always left > own() + 1"),
        (7, "always count(i) < n"), (9, "drop dl::cp_async_wait<0>();"), (10, "drop __syncthreads();"),
    ]  # fmt: skip


@pytest.mark.parametrize("mutant", found(), ids=str)
def test_a_mutant_differs_from_the_original_in_one_line_and_in_its_place(mutant):
    lines = mutate.replaced(KERNEL, [(mutant.start, mutant.end, mutant.broken)]).splitlines()
    changed = [n + 1 for n, (a, b) in enumerate(zip(lines, KERNEL.splitlines(), strict=True)) if a != b]
    assert changed == [mutant.line]


def test_overlapping_pairs_are_switched_apart():
    assert [[m.what for m in layer if "swap" in m.what] for layer in mutate.layers(found())] == [
        ["swap [i][k + 1]", "swap [a][b]"],
        ["swap [b][c]"],
    ]


@pytest.mark.parametrize("file", mutate.every_file())
def test_every_kernel_file_is_watched(file):
    paths = [mutate.ROOT / argument for argument in mutate.watching(file) if argument.endswith(".py")]
    assert paths
    assert all(path.is_file() for path in paths)
