// Copies in row-major order, by tiles where memory has the axes in another one.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "strided.h"

namespace dlcore {
namespace {

constexpr Index kTile = 64;  // bytes along the axis that is contiguous in x, a line of cache
constexpr Index kWide = 32;  // elements along the axis that is contiguous in out

// Rows of x, `apart` bytes from one to the next, as columns of out. A whole tile reads each line of x once and writes
// whole lines.
template <class T>
void transpose_tile(const char* x, Index apart, Index rows, Index cols, T* out, Index ld) {
  constexpr Index kMost = kTile / Index(sizeof(T));
  if (rows < kWide || cols < kMost) {
    for (Index i = 0; i < cols; ++i)
      for (Index j = 0; j < rows; ++j) std::memcpy(out + i * ld + j, x + j * apart + i * Index(sizeof(T)), sizeof(T));
    return;
  }
  T tile[kMost][kWide];
  for (Index j = 0; j < kWide; ++j) {
    T line[kMost];
    std::memcpy(line, x + j * apart, sizeof line);
    __builtin_prefetch(x + j * apart + kTile);
    for (Index i = 0; i < kMost; ++i) tile[i][j] = line[i];
  }
  for (Index i = 0; i < kMost; ++i) std::memcpy(out + i * ld, tile[i], sizeof tile[i]);
}

// A map whose operand is contiguous along `axis`, not the last one. In squares, whose pages are not too many.
template <class T>
void copy_transposed(const StridedMap& map, int axis) {
  constexpr Index kMost = kTile / Index(sizeof(T)), kSquare = 128;
  const int last = map.rank - 1;
  const StridedOperand& x = map.operand[0];
  const Index rows = map.dim[last], cols = map.dim[axis], apart = x.stride[last];
  const Index row_blocks = (rows + kSquare - 1) / kSquare, col_blocks = (cols + kSquare - 1) / kSquare;
  Index ld = 1;
  for (int i = axis + 1; i < map.rank; ++i) ld *= map.dim[i];
  const auto square = [&](Index row, Index col, const char* from, T* to) {
    const Index row_end = std::min(rows, row + kSquare), col_end = std::min(cols, col + kSquare);
    for (Index j = row; j < row_end; j += kWide)
      for (Index i = col; i < col_end; i += kMost)
        transpose_tile(from + j * apart + i * Index(sizeof(T)), apart, std::min(kWide, row_end - j),
                       std::min(kMost, col_end - i), to + i * ld + j, ld);
  };
  const Index blocks = row_blocks * col_blocks, units = map.size() / (rows * cols) * blocks;
  parallel_for(0, units, kStridedGrain / std::min(rows * cols, kSquare * kSquare) + 1, [&](Index begin, Index end) {
    for (Index unit = begin; unit < end; ++unit) {
      Index rest = unit / blocks, step = rows, to = 0;
      const char* from = x.data;
      for (int i = last - 1; i >= 0; step *= map.dim[i--]) {
        if (i == axis) continue;
        const Index at = rest % map.dim[i];
        rest /= map.dim[i], from += at * x.stride[i], to += at * step;
      }
      square(unit % row_blocks * kSquare, unit / row_blocks % col_blocks * kSquare, from,
             reinterpret_cast<T*>(map.out) + to);
    }
  });
}

template <class T>
void copy(const StridedMap& map) {
  const StridedOperand& x = map.operand[0];
  int axis = map.rank - 1;
  while (axis >= 0 && (x.stride[axis] != x.itemsize || map.dim[axis] < 2)) --axis;
  const bool transposed = axis >= 0 && axis < map.rank - 1 && x.stride[map.rank - 1] != 0;
  if (transposed) return copy_transposed<T>(map, axis);
  map.run(
      Block([](Index n, const void* const* from, void* to) { std::memcpy(to, from[0], std::size_t(n) * sizeof(T)); }));
}

}  // namespace

void StridedMap::copy() {
  coalesce();
  const Index item = operand[0].itemsize;
  item == 8   ? dlcore::copy<std::uint64_t>(*this)
  : item == 4 ? dlcore::copy<std::uint32_t>(*this)
  : item == 2 ? dlcore::copy<std::uint16_t>(*this)
              : dlcore::copy<std::uint8_t>(*this);
}

}  // namespace dlcore
