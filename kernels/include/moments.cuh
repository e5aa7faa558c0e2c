// Mean and squared distances from it, in one pass.
#pragma once
#include "row.cuh"

// Count, mean and sum of squared distances from it: Chan, Golub and LeVeque 1983, formulas 1.3 and 2.1.
template <class R>
struct Moments {
  R count = R(0), mean = R(0), squares = R(0);

  DL_DEVICE void add(R x) {
    count += R(1);
    const R off = x - mean;
    mean += off / count;
    squares = fma(off, x - mean, squares);
  }
  DL_DEVICE void merge(const Moments& other) {
    if (other.count == R(0)) return;
    const R total = count + other.count, off = other.mean - mean;
    mean += off * (other.count / total);
    squares += other.squares + off * off * (count * (other.count / total));
    count = total;
  }
  // Of what all lanes have added, the same bits in each of them.
  template <int LANES>
  DL_DEVICE void join_lanes() {
    const R own_count = count, own_mean = mean;
    count = join<LANES>(own_count, Add());
    mean = join<LANES>(own_count * own_mean, Add()) / (count > R(0) ? count : R(1));
    const R off = own_mean - mean;
    squares = join<LANES>(squares + own_count * (off * off), Add());
  }
};
