#include "strided.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "chain.h"
#include "memory.h"

namespace dlcore {
namespace {

constexpr Index kPiece = 512;  // elements copied at a time from an operand that is not contiguous
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

}  // namespace

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
  for (int k = 0; n >= kStridedGrain && k < count; ++k) across += lies_across(*this, k);
  if (across > 0) return run_straightened(*this, f);
  parallel_for(0, n, kStridedGrain, [&](Index begin, Index end) { run_range(*this, f, begin, end); });
}

template void StridedMap::run(const Block&) const;
template void StridedMap::run(const Chain&) const;

}  // namespace dlcore
