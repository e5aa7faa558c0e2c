// Loaders of windows for the loop of gemm_simt.cuh.
#pragma once
#include "conv.cuh"
#include "gemm_simt.cuh"

// Lines are pixels, k's channels and taps. Neighbouring lanes bring neighbouring pixels; every warp has its own k's of
// a slab.
template <class Tile, int LINES>
struct Pixels {
  using T = typename Tile::Element;
  static constexpr int kWarps = Tile::kThreads / 32, kLines = LINES / 32, kKs = Tile::kSlab / kWarps;
  const T* x;
  const Windows& v;
  const Tap* taps;
  unsigned offset[kLines], outside[kLines];
  int k;
  const T* from[kKs];  // the taps of the next slab's k's
  unsigned bits[kKs];

  DL_DEVICE Pixels(const T* x, const Windows& v, const Tap* taps, int first, int lines, int k)
      : x(x + v.origin), v(v), taps(taps), k(k + threadIdx.x / 32) {
    DL_UNROLL
    for (int i = 0; i < kLines; ++i) {
      const Position pixel = position_of(v.pixel, least(first + threadIdx.x % 32 + 32 * i, lines - 1));
      offset[i] = pixel.offset;
      outside[i] = outside_of(v, pixel);
    }
    look_up();
  }
  DL_DEVICE void look_up() {
    DL_UNROLL
    for (int j = 0; j < kKs; ++j) {
      const unsigned number = k + j * kWarps, channel = quotient(number, v.inner);
      const Tap tap = taps[number - channel * v.inner.size];
      from[j] = x + (tap.offset + int(channel) * v.channel);
      bits[j] = tap.bits;
    }
  }
  DL_DEVICE void fetch(T* slab, int left) {
    DL_UNROLL
    for (int j = 0; j < kKs; ++j) {
      const int own = threadIdx.x / 32 + j * kWarps;
      const unsigned wanted = left > own ? bits[j] : kNever;
      T* to = slab + own * (LINES + Tile::kPad) + threadIdx.x % 32;
      DL_UNROLL
      for (int i = 0; i < kLines; ++i)
        dl::cp_async<sizeof(T)>(to + 32 * i, from[j] + offset[i], !(wanted & outside[i]));
    }
    k += Tile::kSlab;
    look_up();
  }
};

// Lines are channels and taps, k's pixels. Neighbouring lanes bring neighbouring pixels of a line.
template <class Tile, int LINES>
struct Taps {
  using T = typename Tile::Element;
  static constexpr int kCopies = LINES * Tile::kSlab / Tile::kThreads, kStep = Tile::kThreads / Tile::kSlab;
  const T* x;
  const Windows& v;
  unsigned offset[kCopies], bits[kCopies];
  int k;
  const T* from;     // the pixel of the next slab's k
  unsigned outside;  // its bits

  DL_DEVICE Taps(const T* x, const Windows& v, int first, int lines, int k) : x(x + v.origin), v(v), k(k + own()) {
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const unsigned line = least(first + threadIdx.x / Tile::kSlab + i * kStep, lines - 1);
      const unsigned channel = quotient(line, v.inner);
      const Tap tap = tap_of(v, line - channel * v.inner.size);
      offset[i] = tap.offset + channel * v.channel;
      bits[i] = tap.bits;
    }
    look_up();
  }
  DL_DEVICE static int own() { return threadIdx.x % Tile::kSlab; }
  DL_DEVICE void look_up() {
    const Position pixel = position_of(v.pixel, k);
    from = x + pixel.offset;
    outside = outside_of(v, pixel);
  }
  DL_DEVICE void fetch(T* slab, int left) {
    const unsigned missing = left > own() ? outside : ~0u;
    T* to = slab + own() * (LINES + Tile::kPad) + threadIdx.x / Tile::kSlab;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) dl::cp_async<sizeof(T)>(to + i * kStep, from + offset[i], !(bits[i] & missing));
    k += Tile::kSlab;
    look_up();
  }
};

// Lines are channels, k's the pixels of all images. Neighbouring lanes bring neighbouring pixels.
template <class Tile, int LINES>
struct ImagesAlongK {
  using T = typename Tile::Element;
  static constexpr int kCopies = LINES * Tile::kSlab / Tile::kThreads, kStep = Tile::kThreads / Tile::kSlab;
  const T* x;
  const Convolution& v;
  unsigned offset[kCopies];
  int k;

  DL_DEVICE ImagesAlongK(const T* x, const Convolution& v, int line, int k) : x(x), v(v), k(k + own()) {
    const Product& p = v.product;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) offset[i] = least(line + threadIdx.x / Tile::kSlab + i * kStep, p.m - 1) * p.lda;
  }
  DL_DEVICE static int own() { return threadIdx.x % Tile::kSlab; }
  DL_DEVICE void fetch(T* slab, int left) {
    const unsigned image = quotient(k, v.area), pixel = k - image * v.area.size;
    const T* from = x + (int(image) * v.a[0] + int(pixel) * v.a[1]);
    T* to = slab + own() * (LINES + Tile::kPad) + threadIdx.x / Tile::kSlab;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) dl::cp_async<sizeof(T)>(to + i * kStep, from + offset[i], left > own());
    k += Tile::kSlab;
  }
};
