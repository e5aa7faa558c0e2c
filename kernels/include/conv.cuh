// A convolution as a product of matrices: elements of an operand are gathered by what the digits of two numbers say.
//
// The lines of a matrix (pixels, or channels and taps) and its k's are numbers of four digits: image or channel, then
// three coordinates. An element's place in memory, and its coordinates in the image, are sums of what the digits of its
// line and of its k are worth; outside of the image it is zero. So one loader serves forward, dx and dw, with any
// stride, padding and dilation, in one to three dimensions.
#pragma once
#include "gemm.cuh"

// Division of n < 2^31 by `size`: multiplier = ceil(2^(31 + shift) / size), shift = ceil(log2(size)).
struct Divisor {
  unsigned size, multiplier, shift;
};

DL_DEVICE unsigned quotient(unsigned n, const Divisor& by) { return __umulhi(n + n, by.multiplier) >> by.shift; }

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

DL_DEVICE int offset_of(const Digits& digits, unsigned number) { return position_of(digits, number).offset; }

struct Gather {
  Digits line, k;
  int origin;              // element of line 0 and k 0, perhaps outside of the image
  int start[3], limit[3];  // its coordinates; the image's sizes
};

struct Convolution {
  Product product;  // batches are groups
  Digits a;         // k's of A where it is gathered; its lines are lda apart
  int a_origin;
  Gather b;
  Digits c;  // columns of C where they are pixels; its rows are ldc apart
  int c_origin;
};

// C in images: a column is a pixel, a row a channel; bias by channel.
template <class T>
struct Images {
  using Element = T;
  T* c;
  const T* bias;
  unsigned ld;
  const Digits& pixels;
  DL_DEVICE Images(const Convolution& v, int batch, T* c, const T* bias)
      : c(c + v.c_origin + batch_offset(v.product, batch, v.product.c_batch)),
        bias(bias ? bias + (long long)batch * v.product.m : nullptr),
        ld(v.product.ldc),
        pixels(v.c) {}
  DL_DEVICE T* at(int row, int column) const { return c + (long long)row * ld + offset_of(pixels, column); }
  DL_DEVICE wide<T> bias_of(int row, int) const { return bias ? widen(bias[row]) : wide<T>(0); }
};
