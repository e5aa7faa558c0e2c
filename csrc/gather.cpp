// Threads divide the output, so each element is summed by one thread, in the order of the positions.
#include "gather.h"

#include "isa.h"
#include "parallel.h"
#include "simd.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 65536;  // bytes of output worth a thread

DL_INLINE Index wrapped(long long position, Index n) { return position < 0 ? position + n : position; }

bool within(Index size, Index n, const long long* index) {
  bool outside = false;
  for (Index i = 0; i < size; ++i) outside |= (index[i] < -n) | (index[i] >= n);
  return !outside;
}

// f(o, begin, end) for the parts [begin, end) of each run of `length` in [from, to).
template <class F>
DL_INLINE void for_runs(Index length, Index from, Index to, const F& f) {
  for (Index o = from / length; from < to; ++o) {
    const Index end = smaller(to, (o + 1) * length);
    f(o, from - o * length, end - o * length);
    from = end;
  }
}

// ---- gather

template <int fixed>  // bytes of a row, if not 0
DL_INLINE void copy_run(Index count, Index n, Index bytes, const long long* index, const char* x, char* y) {
  if (fixed != 0) bytes = fixed;
  for (Index j = 0; j < count; ++j)
    __builtin_memcpy(y + j * bytes, x + wrapped(index[j], n) * bytes, std::size_t(bytes));
}

template <int fixed>
void copy_rows(const Positions& p, Index bytes, const char* x, char* y) {
  parallel_for(0, p.outer * p.count, kGrain / bytes + 1, [=](Index from, Index to) {
    for_runs(p.count, from, to, [=](Index o, Index begin, Index end) {
      copy_run<fixed>(end - begin, p.n, bytes, p.index + begin, x + o * p.n * bytes, y + (o * p.count + begin) * bytes);
    });
  });
}

void rows(const Positions& p, Index itemsize, const void* from, void* to) {
  const Index bytes = p.inner * itemsize;
  if (bytes == 0 || p.count == 0) return;
  const auto copy = bytes == 4 ? copy_rows<4> : bytes == 8 ? copy_rows<8> : bytes == 32 ? copy_rows<32> : copy_rows<0>;
  copy(p, bytes, static_cast<const char*>(from), static_cast<char*>(to));
}

template <int bytes>
void copy_elements(const Positions& p, const char* x, char* y) {
  parallel_for(0, p.outer * p.count, kGrain / (bytes * p.inner) + 1, [=](Index from, Index to) {
    for_runs(p.count, from, to, [=](Index o, Index begin, Index end) {
      const Index first = (o * p.count + begin) * p.inner, n = p.n, inner = p.inner;
      const long long* index = p.index + first;
      const char* whole = x + o * n * inner * bytes;
      char* out = y + first * bytes;
      if (inner == 1) return copy_run<bytes>(end - begin, n, bytes, index, whole, out);
      for (; begin < end; ++begin, index += inner, out += inner * bytes)
        for (Index i = 0; i < inner; ++i)
          __builtin_memcpy(out + i * bytes, whole + (wrapped(index[i], n) * inner + i) * bytes, bytes);
    });
  });
}

void elements(const Positions& p, Index itemsize, const void* from, void* to) {
  if (p.inner == 0 || p.count == 0) return;
  const auto copy = itemsize == 1   ? copy_elements<1>
                    : itemsize == 2 ? copy_elements<2>
                    : itemsize == 4 ? copy_elements<4>
                                    : copy_elements<8>;
  copy(p, static_cast<const char*>(from), static_cast<char*>(to));
}

// ---- scatter-add

// Rows [begin, end) of y[o], and their columns [left, right).
struct Block {
  Index o, begin, end, left, right;
};

// f(block) for blocks that make up y: of whole rows, or of whole columns.
template <class F>
DL_INLINE void for_blocks(const Positions& p, bool of_rows, Index itemsize, const F& f) {
  const Index length = of_rows ? p.n : p.inner, units = p.outer * length;
  const Index bytes = p.outer * (p.n + p.count) * p.inner * itemsize;
  if (units == 0 || bytes == 0) return;
  parallel_for(0, units, kGrain * units / bytes + 1, [&](Index from, Index to) {
    for_runs(length, from, to, [&](Index o, Index begin, Index end) {
      f(of_rows ? Block{o, begin, end, 0, p.inner} : Block{o, 0, p.n, begin, end});
    });
  });
}

template <class T>
void copy(Index n, const T* x, T* y) {
  if (x == nullptr) __builtin_memset(y, 0, std::size_t(n) * sizeof(T));
  else __builtin_memcpy(y, x, std::size_t(n) * sizeof(T));
}
template <class T>
void start(const Positions& p, const Block& b, const T* x, T* y) {
  const Index first = (b.o * p.n + b.begin) * p.inner + b.left, width = b.right - b.left;
  if (x != nullptr) x += first;
  y += first;
  if (width == p.inner) return copy(width * (b.end - b.begin), x, y);
  for (Index r = 0; r < b.end - b.begin; ++r) copy(width, x == nullptr ? x : x + r * p.inner, y + r * p.inner);
}

template <class T>
DL_INLINE void add(Index n, const T* __restrict u, T* __restrict y) {
  for (Index i = 0; i < n; ++i) y[i] += u[i];
}
template <class T>
DL_INLINE void add_at(Index count, Index n, const long long* __restrict index, const T* __restrict u, T* __restrict y) {
  for (Index j = 0; j < count; ++j) y[wrapped(index[j], n)] += u[j];
}

template <class T>
void add_rows(const Positions& p, const void* from, const void* updates, void* to) {
  const T *x = static_cast<const T*>(from), *u = static_cast<const T*>(updates);
  T* y = static_cast<T*>(to);
  for_blocks(p, p.n >= p.inner, sizeof(T), [=](const Block& b) {
    start(p, b, x, y);
    const T* run = u + b.o * p.count * p.inner + b.left;
    T* out = y + b.o * p.n * p.inner + b.left;
    if (p.inner == 1 && b.end - b.begin == p.n) return add_at(p.count, p.n, p.index, run, out);
    for (Index j = 0; j < p.count; ++j) {
      const Index i = wrapped(p.index[j], p.n);
      if (i >= b.begin && i < b.end) add(b.right - b.left, run + j * p.inner, out + i * p.inner);
    }
  });
}

template <class T>
void add_elements(const Positions& p, const void* from, const void* updates, void* to) {
  const T *x = static_cast<const T*>(from), *u = static_cast<const T*>(updates);
  T* y = static_cast<T*>(to);
  for_blocks(p, false, sizeof(T), [=](const Block& b) {
    start(p, b, x, y);
    const Index inner = p.inner, n = p.n, first = b.o * p.count * inner;
    const long long* index = p.index + first;
    const T* run = u + first;
    T* out = y + b.o * n * inner;
    if (inner == 1) return add_at(p.count, n, index, run, out);
    for (Index j = 0; j < p.count; ++j, index += inner, run += inner)
      for (Index i = b.left; i < b.right; ++i) out[wrapped(index[i], n) * inner + i] += run[i];
  });
}

template <class T>
GatherKernels::Of of() {
  return {add_rows<T>, add_elements<T>};
}

}  // namespace

void fill_gather(Kernels& kernels) { kernels.gather = {within, rows, elements, of<float>(), of<double>()}; }

}  // namespace DL_ISA
}  // namespace dlcore
