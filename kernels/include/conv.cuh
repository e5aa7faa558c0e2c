// A convolution as a product of matrices: elements of an operand are gathered by what the digits of two numbers say.
//
// A pixel of the result is a number of four digits, image and three coordinates; a tap of three. The element of the
// image that a tap of a pixel's window sees lies at the sum of what the digits are worth; with the strides of the image
// in those worths, one loader serves every stride and dilation in one to three dimensions, and the gradient of x as
// well: there dy is the image and w is turned round (ops_conv.py).
// Whether a tap lies in the image is one test of bits: a window's offsets from its first tap are numbered along each
// axis, 31 of them in all, and a pixel has a bit for every one that is outside.
#pragma once
#include "divisor.cuh"
#include "gemm.cuh"

struct Digits {
  Divisor last[3];  // sizes of digits 1 to 3
  int worth[4];     // elements of memory that a digit counts
  int step[3];      // coordinates that digits 1 to 3 count
};

struct Position {
  int offset, at[3];
};

DL_DEVICE Position position_of(const Digits& digits, unsigned number) {
  Position p;
  p.offset = 0;
  DL_UNROLL
  for (int i = 2; i >= 0; --i) {
    const unsigned rest = quotient(number, digits.last[i]);
    const int digit = int(number - rest * digits.last[i].size);
    p.offset += digit * digits.worth[i + 1];
    p.at[i] = digit * digits.step[i];
    number = rest;
  }
  p.offset += int(number) * digits.worth[0];
  return p;
}

DL_DEVICE int most(int a, int b) { return a > b ? a : b; }

DL_DEVICE int offset_of(const Digits& digits, unsigned number) { return position_of(digits, number).offset; }

constexpr unsigned kNever = 1u << 31;  // the bit of what does not exist: always outside

struct Windows {
  Digits pixel;   // elements of the image; coordinates are strides apart
  Digits tap;     // of its digit 0 there is one; coordinates are dilations apart
  Divisor inner;  // k (dw: line) is channel and tap, or tap and channel: how many there are of the second
  int taps;       // how many
  int channel;    // elements from a channel to the next
  int origin;     // element that tap 0 of pixel 0 sees, perhaps outside of the image
  int start[3];   // its coordinates
  int limit[3];   // sizes of the image
  int span[3];    // offsets along an axis, from the first tap to the last
  int first[3];   // the bit of the first one
};

struct Tap {
  int offset;
  unsigned bits;  // three, or kNever
};

DL_DEVICE Tap tap_of(const Windows& v, unsigned number) {
  const Position p = position_of(v.tap, number);
  Tap tap{p.offset, 0};
  DL_UNROLL
  for (int axis = 0; axis < 3; ++axis) tap.bits |= 1u << (v.first[axis] + p.at[axis]);
  return tap;
}

DL_DEVICE unsigned bits_below(int n) { return (1u << n) - 1; }

// The bits of the taps that a pixel does not have, and kNever.
DL_DEVICE unsigned outside_of(const Windows& v, const Position& pixel) {
  unsigned inside = 0;
  DL_UNROLL
  for (int axis = 0; axis < 3; ++axis) {
    const int from = v.start[axis] + pixel.at[axis], span = v.span[axis];
    const int low = least(most(-from, 0), span), high = most(least(v.limit[axis] - from, span), 0);
    inside |= (bits_below(high) & ~bits_below(low)) << v.first[axis];
  }
  return ~inside;
}

// All taps, and one past the end that does not exist, for the block's threads to look up.
DL_DEVICE void tabulate(const Windows& v, Tap* taps) {
  DL_ROLLED
  for (int i = threadIdx.x; i <= v.taps; i += blockDim.x) taps[i] = i < v.taps ? tap_of(v, i) : Tap{0, kNever};
  __syncthreads();
}

struct Convolution {
  Product product;  // batches are groups
  Windows windows;  // of B
  Digits c;         // columns of C where they are pixels; its rows are ldc apart
  int c_origin;
  Divisor area;  // dw of f32 and f64: pixels of an image of dy, which is A
  int a[2];      // and elements from an image, from a pixel to the next
};

// C in images: a column is a pixel, a row a channel; bias by channel.
template <class T>
struct Images {
  using Element = T;
  T* c;
  const T* bias;
  unsigned ld;
  int n;
  const Digits& pixels;
  DL_DEVICE Images(const Convolution& v, int batch, T* c, const T* bias)
      : c(c + v.c_origin + batch_offset(v.product, batch, v.product.c_batch)),
        bias(bias ? bias + (long long)batch * v.product.m : nullptr),
        ld(v.product.ldc),
        n(v.product.n),
        pixels(v.c) {}
  DL_DEVICE bool has(int column) const { return column < n; }
  DL_DEVICE T* at(int row, int column) const { return c + (long long)row * ld + offset_of(pixels, column); }
  DL_DEVICE wide<T> bias_of(int row, int) const { return bias ? widen(bias[row]) : wide<T>(0); }
};
