// Running sums and products along the middle axis of contiguous arrays [outer, length, inner].
#pragma once
#include "parallel.h"

namespace dlcore {

enum class Running { sum, product, linear };
enum class ScanType { f32, f64, i64 };

// y[t] = y[t-1] + x[t], y[t-1] * x[t], or a[t] * y[t-1] + x[t]; what comes before the first is 0, 1, 0.
struct Scan {
  Running kind;
  ScanType type;
  Index outer, length, inner;
  bool reverse;  // from the end
  const void *a, *x;
  void* y;
};

void scan(const Scan& s);

}  // namespace dlcore
