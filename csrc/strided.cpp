#include "strided.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "chain.h"
#include "memory.h"

namespace dlcore {
namespace {

constexpr Index kGrain = 16384;  // elements worth a thread
constexpr Index kPiece = 512;    // elements copied at a time from an operand that is not contiguous
constexpr Index kMaxItem = 8;

template <class T>
void gather(Index n, const char* from, Index stride, char* to) {
  if (stride == 0) {
    T same;
    std::memcpy(&same, from, sizeof same);
    for (Index i = 0; i < n; ++i) std::memcpy(to + i * Index(sizeof(T)), &same, sizeof same);
  } else {
    for (Index i = 0; i < n; ++i) std::memcpy(to + i * Index(sizeof(T)), from + i * stride, sizeof(T));
  }
}
void gather(Index n, const char* from, Index stride, char* to, Index itemsize) {
  if (itemsize == 4) gather<float>(n, from, stride, to);
  else if (itemsize == 8) gather<double>(n, from, stride, to);
  else if (itemsize == 2) gather<std::uint16_t>(n, from, stride, to);
  else gather<char>(n, from, stride, to);
}

// One row: operands with a fixed stride, the output contiguous.
template <class F>
class Row {
 public:
  Row(const StridedMap& map, const F& f) : map_(map), f_(f), axis_(map.rank - 1) {
    for (int k = 0; k < map.count; ++k) {
      const StridedOperand& x = map.operand[k];
      direct_[k] = x.stride[axis_] == x.itemsize && reinterpret_cast<std::uintptr_t>(x.data) % x.itemsize == 0;
      all_direct_ = all_direct_ && direct_[k];
    }
  }
  void run(Index n, const char* const* data, char* out) {
    if (all_direct_) return f_(n, reinterpret_cast<const void* const*>(data), out);
    for (Index start = 0; start < n; start += kPiece) {
      const Index count = std::min(kPiece, n - start);
      const void* pieces[kMaxOperands];
      for (int k = 0; k < map_.count; ++k) pieces[k] = piece(k, data[k], start, count);
      f_(count, pieces, out + start * map_.out_itemsize);
    }
  }

 private:
  const void* piece(int k, const char* data, Index start, Index count) {
    const StridedOperand& x = map_.operand[k];
    const Index stride = x.stride[axis_];
    const char* from = data + start * stride;
    if (direct_[k]) return from;
    if (stride != 0 || start == 0) gather(count, from, stride, buffer_[k], x.itemsize);
    return buffer_[k];
  }

  const StridedMap& map_;
  const F& f_;
  const int axis_;
  bool all_direct_ = true, direct_[kMaxOperands];
  alignas(64) char buffer_[kMaxOperands][kPiece * kMaxItem];
};

// The elements [begin, end) of the output, row by row.
template <class F>
void run_range(const StridedMap& map, const F& f, Index begin, Index end) {
  const int last = map.rank - 1;
  Index at[kMaxRank], rest = begin;
  const char* data[kMaxOperands];
  for (int k = 0; k < map.count; ++k) data[k] = map.operand[k].data;
  for (int i = last; i >= 0; --i) {
    at[i] = rest % map.dim[i], rest /= map.dim[i];
    for (int k = 0; k < map.count; ++k) data[k] += at[i] * map.operand[k].stride[i];
  }
  Row<F> row(map, f);
  while (true) {
    const Index n = std::min(map.dim[last] - at[last], end - begin);
    row.run(n, data, map.out + begin * map.out_itemsize);
    begin += n;
    if (begin >= end) return;
    for (int k = 0; k < map.count; ++k) data[k] -= at[last] * map.operand[k].stride[last];
    at[last] = 0;
    for (int i = last - 1; i >= 0; --i) {
      for (int k = 0; k < map.count; ++k) data[k] += map.operand[k].stride[i];
      if (++at[i] < map.dim[i]) break;
      at[i] = 0;
      for (int k = 0; k < map.count; ++k) data[k] -= map.dim[i] * map.operand[k].stride[i];
    }
  }
}

// ---- copies

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
  parallel_for(0, units, kGrain / std::min(rows * cols, kSquare * kSquare) + 1, [&](Index begin, Index end) {
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

Index StridedMap::size() const {
  Index n = 1;
  for (int i = 0; i < rank; ++i) n *= dim[i];
  return n;
}

void StridedMap::coalesce() {
  int kept = 0;
  for (int i = 0; i < rank; ++i) {
    if (dim[i] == 1) continue;
    bool joins = kept > 0;
    for (int k = 0; joins && k < count; ++k) joins = operand[k].stride[kept - 1] == dim[i] * operand[k].stride[i];
    const int to = joins ? kept - 1 : kept++;
    dim[to] = joins ? dim[to] * dim[i] : dim[i];
    for (int k = 0; k < count; ++k) operand[k].stride[to] = operand[k].stride[i];
  }
  rank = kept;
  if (rank > 0) return;
  rank = 1, dim[0] = 1;
  for (int k = 0; k < count; ++k) operand[k].stride[0] = operand[k].itemsize;
}

namespace {

// Whether operand k is contiguous along another axis than the last, so that its rows lie across those of memory.
bool lies_across(const StridedMap& map, int k) {
  constexpr Index kLong = 8;
  const StridedOperand& x = map.operand[k];
  const Index along = x.stride[map.rank - 1];
  if (along == 0 || along == x.itemsize) return false;
  for (int i = 0; i < map.rank - 1; ++i)
    if (x.stride[i] == x.itemsize && map.dim[i] >= kLong) return true;
  return false;
}

// A contiguous copy of operand k, which takes its place.
std::unique_ptr<Scratch> straighten(StridedMap& map, int k) {
  StridedMap one;
  StridedOperand& x = map.operand[k];
  one.rank = map.rank, one.count = 1, one.operand[0] = x, one.out_itemsize = x.itemsize;
  Index bytes = x.itemsize;
  for (int i = map.rank - 1; i >= 0; --i) {
    one.dim[i] = x.stride[i] == 0 ? 1 : map.dim[i];
    if (x.stride[i] != 0) x.stride[i] = bytes;
    bytes *= one.dim[i];
  }
  auto memory = std::make_unique<Scratch>(std::size_t(bytes));
  x.data = one.out = static_cast<char*>(memory->data());
  one.copy();
  return memory;
}

template <class F>
void run_straightened(StridedMap map, const F& f) {
  std::unique_ptr<Scratch> copies[kMaxOperands];
  for (int k = 0; k < map.count; ++k)
    if (lies_across(map, k)) copies[k] = straighten(map, k);
  map.run(f);
}

}  // namespace

template <class F>
void StridedMap::run(const F& f) const {
  const Index n = size();
  int across = 0;
  for (int k = 0; n >= kGrain && k < count; ++k) across += lies_across(*this, k);
  if (across > 0) return run_straightened(*this, f);
  parallel_for(0, n, kGrain, [&](Index begin, Index end) { run_range(*this, f, begin, end); });
}

template void StridedMap::run(const Block&) const;
template void StridedMap::run(const Chain&) const;

}  // namespace dlcore
