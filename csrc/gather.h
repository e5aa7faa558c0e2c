// Slices and elements at given positions of one axis, and updates added up at such positions.
#pragma once
#include <cstddef>

namespace dlcore {

// Arrays [outer, n, inner] and [outer, count, inner]: index says where on the first's middle axis the second's slices
// or elements are. Positions lie in [-n, n), negative ones count from the end.
struct Positions {
  std::ptrdiff_t outer, n, count, inner;
  const long long* index;  // [count] for rows, [outer, count, inner] for elements
};

struct GatherKernels {
  // y[o,j] = x[o,index[j]] and y[o,j,i] = x[o,index[o,j,i],i], of items of that many bytes (1, 2, 4, 8 for elements)
  using Gather = void (*)(const Positions&, std::ptrdiff_t itemsize, const void* x, void* y);
  // y = x, or 0 where x is null; then y[o,index[j]] += u[o,j] and y[o,index[o,j,i],i] += u[o,j,i] in the order of j
  using Add = void (*)(const Positions&, const void* x, const void* u, void* y);
  struct Of {
    Add add_rows, add_elements;
  };
  bool (*within)(std::ptrdiff_t size, std::ptrdiff_t n, const long long* index);  // all positions in [-n, n)
  Gather rows, elements;
  Of f32, f64;
};

}  // namespace dlcore
