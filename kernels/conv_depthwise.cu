// Convolutions of as many groups as input channels, and their gradients: each plane of the result comes from one of x.
//
// conv_depthwise_forward_<dtype>(x, w, bias, y, v), conv_depthwise_dx_<dtype>(dy, w, dx, v): a block has a tile of the
//   result in some slices (of planes, one depth each). It copies to shared memory what their windows see at one depth
//   of the filter after the other. A thread has a strip of kRows results of a column, such that going to the next tap
//   of a column of the filter moves what they see on by one: each element is read once a column.
//   Grid: tiles; block: 256; dynamic shared memory: the tile, then the filters of its slices in f32 (f64).
// conv_depthwise_dw_<dtype>(dy, x, dw, part, v, chunks): a block adds up the tiles of a channel of y that are `chunks`
//   apart, for all taps; `part` [chunk][channel][tap] in f32 (f64) is null where there is one chunk.
//   Grid: channels of y x chunks; block: 256; dynamic shared memory: the tile, then 8 sums of each tap.
// conv_depthwise_sum_<dtype>(part, dw, count, chunks): the sum of the chunks. Grid: count / 256; block: 256.
#include "conv.cuh"
#include "warp.cuh"

constexpr int kThreads = 256, kWarps = kThreads / kWarp, kRows = 8, kSquare = 3;

// Along an axis, tap k of result i sees element (i * stride + start + k * dilation) / zoom, where that is whole.
struct Depthwise {
  int in[3], out[3], kernel[3], stride[3], start[3], dilation[3];
  int origin[3], skew[3];    // the first element of the first tile, and start - origin * zoom, which is not negative
  int step, cycle, jump;     // rows of results, taps and elements of the tile from one row of a strip to the next
  int pitch, slice_pitch;    // elements of the tile
  int columns, rows;         // results of a tile
  int strips, taps, planes;  // planes: of the input, for a plane of the result
  int flipped, vectors;      // whether w is turned round; whether rows of the input are whole vectors
  int square;                // whether the filter is of kSquare x kSquare taps, and cycle is 1
  unsigned slices;           // in all
  int lines;                 // of the tile that threads copy together
  int lines_slices, lines_left;  // that is so many slices, and lines of another
  int step_rows, step_columns;   // elements of the input from a tile to the next
  Divisor zoom[3], depth, channels, multiple, by_taps, by_step;
  Divisor across, down;                                // tiles
  Divisor by_columns, by_slices, by_width, by_height;  // threads of a block; pieces of the tile
};

// Where the tile of a block begins.
struct Corner {
  unsigned slice;
  int tile[2], channel;  // row and column of tiles; the first plane of the result, for dw
};

DL_DEVICE Corner corner_of(const Depthwise& v, unsigned number, int channel) {
  const unsigned row = quotient(number, v.across), group = quotient(row, v.down);
  return {group * v.by_slices.size, {int(row - group * v.down.size), int(number - row * v.across.size)}, channel};
}

struct Slice {
  unsigned plane;  // of the result
  int depth;
  bool exists;
};

// dw: the slices of a block are those of one channel, `channels` planes apart.
template <bool DW>
DL_DEVICE Slice slice_of(const Depthwise& v, const Corner& corner, unsigned slice) {
  const unsigned number = corner.slice + slice, plane = quotient(number, v.depth);
  return {DW ? plane * v.channels.size + corner.channel : plane, int(number - plane * v.depth.size), number < v.slices};
}

// The results of a thread.
struct Strip {
  Slice slice;
  unsigned own;             // slice of the tile
  int row, column;          // of the tile: its first result
  int first, across, left;  // row and column of the plane; how many of its rows there are
};

template <bool DW>
DL_DEVICE Strip strip_of(const Depthwise& v, const Corner& corner) {
  const unsigned line = quotient(threadIdx.x, v.by_columns), number = quotient(line, v.by_slices);
  const unsigned cycle = quotient(number, v.by_step);
  Strip s;
  s.own = line - number * v.by_slices.size;
  s.slice = slice_of<DW>(v, corner, s.own);
  s.column = int(threadIdx.x - line * v.by_columns.size);
  s.row = int(number) < v.strips ? int(cycle * kRows * v.step + number - cycle * v.step) : 0;
  s.first = corner.tile[0] * v.rows + s.row;
  s.across = corner.tile[1] * v.columns + s.column;
  const bool exists = int(number) < v.strips && s.slice.exists && s.across < v.out[2] && s.first < v.out[1];
  s.left = exists ? int(quotient(v.out[1] - 1 - s.first, v.by_step)) + 1 : 0;
  return s;
}

// Whether tap `tap` of a result sees an element along an axis, and which, counted from `start`.
DL_DEVICE bool sees(const Depthwise& v, int axis, int start, int result, int tap, int& element) {
  const int at = result * v.stride[axis] + start + tap * v.dilation[axis];
  element = int(quotient(unsigned(at), v.zoom[axis]));
  return at >= 0 && element * int(v.zoom[axis].size) == at;
}

DL_DEVICE bool sees_depth(const Depthwise& v, int result, int tap, int& element) {
  return sees(v, 0, v.start[0], result, tap, element) && element < v.in[0];
}

// Copies what the block's windows see at depth `tap` of the filter, N elements at a time; zeros where there is nothing.
// A thread stays in its column and goes down the lines of all slices.
template <class T, bool DW, int N>
DL_DEVICE void copy_tile(const T* x, T* tile, const Depthwise& v, const Corner& corner, int plane, int tap) {
  const unsigned line = quotient(threadIdx.x, v.by_width);
  const int along = int(threadIdx.x - line * v.by_width.size) * N, height = int(v.by_height.size);
  const int top = v.origin[1] + corner.tile[0] * v.step_rows;
  const int column = v.origin[2] + corner.tile[1] * v.step_columns + along;
  unsigned own = quotient(line, v.by_height);
  int down = int(line) - int(own) * height;
  if (int(line) >= v.lines) return;
  DL_ROLLED
  while (own < v.by_slices.size) {
    const Slice slice = slice_of<DW>(v, corner, own);
    int depth;
    const bool valid = slice.exists && sees_depth(v, slice.depth, tap, depth) &&
                       unsigned(top + down) < unsigned(v.in[1]) && unsigned(column) < unsigned(v.in[2]);
    const int from = int(quotient(slice.plane, v.multiple)) * v.planes + plane;
    const T* source = valid ? x + ((from * v.in[0] + depth) * v.in[1] + top + down) * v.in[2] + column : x;
    T* const to = tile + own * v.slice_pitch + down * v.pitch + along;
    if constexpr (N * sizeof(T) >= 4) dl::cp_async<N * sizeof(T)>(to, source, valid);
    else *to = valid ? *source : T{};
    own += v.lines_slices, down += v.lines_left;
    if (down >= height) ++own, down -= height;
  }
}

template <class T, bool DW>
DL_DEVICE void stage(const T* x, T* tile, const Depthwise& v, const Corner& corner, int plane, int tap) {
  if (v.vectors) copy_tile<T, DW, kPerVector<T>>(x, tile, v, corner, plane, tap);
  else copy_tile<T, DW, 1>(x, tile, v, corner, plane, tap);
  dl::cp_async_commit();
  dl::cp_async_wait<0>();
  __syncthreads();
}

// Calls f(tap, seen) for each tap of one depth of the filter: what it sees from the rows of a strip.
template <class T, class F>
DL_DEVICE void for_taps(const T* tile, const Depthwise& v, const Strip& strip, F f) {
  const T* const own = tile + strip.own * v.slice_pitch;
  DL_ROLLED
  for (int column = 0; column < v.kernel[2]; ++column) {
    int along, down;
    if (!sees(v, 2, v.skew[2], strip.column, column, along)) continue;
    DL_ROLLED
    for (int first = 0; first < v.cycle && first < v.kernel[1]; ++first) {
      if (!sees(v, 1, v.skew[1], strip.row, first, down)) continue;
      const T* from = own + down * v.pitch + along;
      wide<T> seen[kRows];
      DL_UNROLL
      for (int i = 0; i < kRows; ++i, from += v.jump) seen[i] = widen(*from);
      DL_ROLLED
      for (int row = first;; from += v.jump) {
        f(row * v.kernel[2] + column, seen);
        if ((row += v.cycle) >= v.kernel[1]) break;
        DL_UNROLL
        for (int i = 1; i < kRows; ++i) seen[i - 1] = seen[i];
        seen[kRows - 1] = widen(*from);
      }
    }
  }
}

// The same for kSquare x kSquare taps, each of which sees the row after that of the tap above it.
template <class T, class F>
DL_DEVICE void for_square(const T* tile, const Depthwise& v, const Strip& strip, F f) {
  int down;
  if (!sees(v, 1, v.skew[1], strip.row, 0, down)) return;
  const T* const own = tile + strip.own * v.slice_pitch + down * v.pitch;
  DL_UNROLL
  for (int column = 0; column < kSquare; ++column) {
    int along;
    if (!sees(v, 2, v.skew[2], strip.column, column, along)) continue;
    const T* from = own + along;
    wide<T> seen[kRows + kSquare - 1];
    DL_UNROLL
    for (int i = 0; i < kRows + kSquare - 1; ++i, from += v.jump) seen[i] = widen(*from);
    DL_UNROLL
    for (int row = 0; row < kSquare; ++row) f(row * kSquare + column, seen + row);
  }
}

template <class T>
DL_DEVICE void load_filters(const T* w, wide<T>* filters, const Depthwise& v, const Corner& corner, int plane) {
  DL_ROLLED
  for (unsigned i = threadIdx.x; i < v.by_slices.size * v.taps; i += kThreads) {
    const unsigned own = quotient(i, v.by_taps), tap = i - own * v.taps;
    const Slice slice = slice_of<false>(v, corner, own);
    const unsigned channel = slice.plane - quotient(slice.plane, v.channels) * v.channels.size;
    const unsigned from = (channel * v.planes + plane) * v.taps + (v.flipped ? v.taps - 1 - tap : tap);
    if (slice.exists) filters[i] = widen(w[from]);
  }
}

template <class T>
DL_DEVICE void correlate(const T* x, const T* w, const T* bias, T* y, const Depthwise& v) {
  DL_SHARED(T, tile);
  wide<T>* const filters = reinterpret_cast<wide<T>*>(tile + v.by_slices.size * v.slice_pitch);
  const Corner corner = corner_of(v, blockIdx.x, 0);
  const Strip strip = strip_of<false>(v, corner);
  const unsigned channel = strip.slice.plane - quotient(strip.slice.plane, v.channels) * v.channels.size;
  wide<T> sum[kRows];
  DL_UNROLL
  for (int i = 0; i < kRows; ++i) sum[i] = bias && strip.left ? widen(bias[channel]) : wide<T>(0);
  DL_ROLLED
  for (int plane = 0; plane < v.planes; ++plane) {
    load_filters(w, filters, v, corner, plane);
    DL_ROLLED
    for (int tap = 0; tap < v.kernel[0]; ++tap) {
      stage<T, false>(x, tile, v, corner, plane, tap);
      const wide<T>* const filter = filters + strip.own * v.taps + tap * v.kernel[1] * v.kernel[2];
      const auto add = [&](int at, const wide<T>* seen) {
        const wide<T> by = filter[at];
        DL_UNROLL
        for (int i = 0; i < kRows; ++i) sum[i] = multiply_add(by, seen[i], sum[i]);
      };
      int depth;
      if (strip.left && sees_depth(v, strip.slice.depth, tap, depth))
        v.square ? for_square(tile, v, strip, add) : for_taps(tile, v, strip, add);
      __syncthreads();
    }
  }
  T* to = y + ((corner.slice + strip.own) * v.out[1] + strip.first) * v.out[2] + strip.across;
  DL_UNROLL
  for (int i = 0; i < kRows; ++i)
    if (i < strip.left) to[i * v.step * v.out[2]] = narrow<T>(sum[i]);
}

template <class R>
DL_DEVICE R sum_of_lanes(R sum) {
  DL_UNROLL
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += lane_xor(sum, mask);
  return sum;
}

// A strip of dy. Rows that do not exist multiply nothing, lest infinities spoil the sum.
template <class T>
struct Grad {
  wide<T> at[kRows];
  int left;

  DL_DEVICE Grad(const T* dy, const Depthwise& v, const Strip& strip) : left(strip.left) {
    const T* from = dy + ((strip.slice.plane * v.out[0] + strip.slice.depth) * v.out[1] + strip.first) * v.out[2];
    DL_UNROLL
    for (int i = 0; i < kRows; ++i) at[i] = i < left ? widen(from[i * v.step * v.out[2] + strip.across]) : wide<T>(0);
  }

  DL_DEVICE wide<T> times(const wide<T>* seen, wide<T> sum) const {
    if (left >= kRows) {
      DL_UNROLL
      for (int i = 0; i < kRows; ++i) sum = multiply_add(at[i], seen[i], sum);
    } else {
      DL_UNROLL
      for (int i = 0; i < kRows; ++i) sum = i < left ? multiply_add(at[i], seen[i], sum) : sum;
    }
    return sum;
  }
};

template <class T>
DL_DEVICE void filters_grad(const T* dy, const T* x, T* dw, wide<T>* part, const Depthwise& v, int chunks) {
  DL_SHARED(T, tile);
  wide<T>* const sums = reinterpret_cast<wide<T>*>(tile + v.by_slices.size * v.slice_pitch);
  wide<T>* const own = sums + threadIdx.x / kWarp * v.taps;
  const int channel = blockIdx.x / chunks, chunk = blockIdx.x - channel * chunks, area = v.kernel[1] * v.kernel[2];
  const bool first = threadIdx.x % kWarp == 0, square = v.square && v.kernel[0] == 1;
  const unsigned groups = (v.slices + v.by_slices.size - 1) / v.by_slices.size;
  wide<T> of_square[kSquare * kSquare] = {};
  for (int i = threadIdx.x; i < kWarps * v.taps; i += kThreads) sums[i] = 0;
  __syncthreads();
  DL_ROLLED
  for (unsigned number = chunk; number < groups * v.down.size * v.across.size; number += chunks) {
    const Corner corner = corner_of(v, number, channel);
    const Strip strip = strip_of<true>(v, corner);
    DL_ROLLED
    for (int depth = 0; depth < v.kernel[0]; ++depth) {
      stage<T, true>(x, tile, v, corner, 0, depth);
      const Grad<T> grad(dy, v, strip);
      if (square)
        for_square(tile, v, strip,
                   [&](int tap, const wide<T>* seen) { of_square[tap] = grad.times(seen, of_square[tap]); });
      else
        for_taps(tile, v, strip, [&](int tap, const wide<T>* seen) {
          const wide<T> sum = sum_of_lanes(grad.times(seen, wide<T>(0)));
          if (first) own[depth * area + tap] += sum;
        });
      __syncthreads();
    }
  }
  DL_UNROLL
  for (int tap = 0; tap < kSquare * kSquare; ++tap)
    if (square) {
      const wide<T> sum = sum_of_lanes(of_square[tap]);
      if (first) own[tap] = sum;
    }
  __syncthreads();
  for (int tap = threadIdx.x; tap < v.taps; tap += kThreads) {
    wide<T> sum = 0;
    DL_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp * v.taps + tap];
    if (part) part[(chunk * v.channels.size + channel) * v.taps + tap] = sum;
    else dw[channel * v.taps + tap] = narrow<T>(sum);
  }
}

template <class T>
DL_DEVICE void add_chunks(const wide<T>* part, T* dw, unsigned count, int chunks) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  wide<T> sum = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) sum += part[chunk * count + i];
  dw[i] = narrow<T>(sum);
}

#define DL_DEPTHWISE(T, suffix)                                                                            \
  extern "C" __global__ void __launch_bounds__(kThreads, 4)                                                \
      conv_depthwise_forward_##suffix(const T* x, const T* w, const T* bias, T* y, Depthwise v) {          \
    correlate(x, w, bias, y, v);                                                                           \
  }                                                                                                        \
  DL_EXPORT(conv_depthwise_forward_##suffix)                                                               \
  extern "C" __global__ void __launch_bounds__(kThreads, 4)                                                \
      conv_depthwise_dx_##suffix(const T* dy, const T* w, T* dx, Depthwise v) {                            \
    correlate<T>(dy, w, nullptr, dx, v);                                                                   \
  }                                                                                                        \
  DL_EXPORT(conv_depthwise_dx_##suffix)                                                                    \
  extern "C" __global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 3)                           \
      conv_depthwise_dw_##suffix(const T* dy, const T* x, T* dw, wide<T>* part, Depthwise v, int chunks) { \
    filters_grad(dy, x, dw, part, v, chunks);                                                              \
  }                                                                                                        \
  DL_EXPORT(conv_depthwise_dw_##suffix)                                                                    \
  extern "C" __global__ void __launch_bounds__(kThreads)                                                   \
      conv_depthwise_sum_##suffix(const wide<T>* part, T* dw, unsigned count, int chunks) {                \
    add_chunks<T>(part, dw, count, chunks);                                                                \
  }                                                                                                        \
  DL_EXPORT(conv_depthwise_sum_##suffix)
DL_FOR_FLOATS(DL_DEPTHWISE)
