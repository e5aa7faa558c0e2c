#include "optim.h"

#include "isa.h"
#include "parallel.h"
#include "simd.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 16384;  // elements worth a thread

// The vectors of one position of a parameter's arrays: a full one, or the first n lanes.
template <class T>
struct At {
  void* const* array[5];
  Index parameter, start, n;

  DL_INLINE T* data(int k) const { return static_cast<T*>(array[k][parameter]) + start; }
  DL_INLINE vec<T> get(int k) const { return n == lanes<T> ? load(data(k)) : load(data(k), n); }
  DL_INLINE void put(int k, vec<T> v) const {
    if (n == lanes<T>) store(data(k), v);
    else store(data(k), v, n);
  }
};

// update(at) for every vector of every parameter.
template <class T, class F>
void for_each(const ParameterList& list, const F& update) {
  parallel_for(0, list.offset[list.count], kGrain, [&](Index begin, Index end) {
    Index i = 0;
    while (list.offset[i + 1] <= begin) ++i;
    At<T> at{{list.array[0], list.array[1], list.array[2], list.array[3], list.array[4]}, i, begin - list.offset[i], 0};
    for (; begin < end; ++at.parameter, at.start = 0) {
      const Index stop = smaller(end, list.offset[at.parameter + 1]);
      for (; begin < stop; begin += at.n, at.start += at.n) {
        at.n = smaller<Index>(lanes<T>, stop - begin);
        update(at);
      }
    }
  });
}

template <class T>
void sgd(const ParameterList& list, const SgdRule& rule) {
  const T lr = T(rule.lr), decay = T(rule.weight_decay), momentum = T(rule.momentum), gain = T(rule.gain);
  for_each<T>(list, [&](const At<T>& at) {
    const vec<T> p = at.get(0);
    vec<T> g = at.get(1);
    if (decay != 0) g = g + decay * p;
    if (momentum != 0) {
      const vec<T> velocity = at.get(2) * momentum + gain * g;
      at.put(2, velocity);
      g = rule.nesterov ? g + momentum * velocity : velocity;
    }
    at.put(0, p - lr * g);
  });
}

template <class T>
void adam(const ParameterList& list, const AdamRule& rule) {
  const T shrink = T(rule.shrink), decay = T(rule.weight_decay), b1 = T(rule.beta1), b2 = T(rule.beta2);
  const T c1 = T(1 - rule.beta1), c2 = T(1 - rule.beta2), root = T(rule.root), eps = T(rule.eps), rate = T(rule.rate);
  for_each<T>(list, [&](const At<T>& at) {
    const vec<T> p = at.get(0) * shrink;
    vec<T> g = at.get(1);
    if (decay != 0) g = g + decay * p;
    const vec<T> mean = at.get(2) * b1 + c1 * g, square = at.get(3) * b2 + c2 * (g * g);
    at.put(2, mean);
    at.put(3, square);
    vec<T> largest = square;
    if (rule.amsgrad) {
      largest = at.get(4);
      largest = (largest > square) | (largest != largest) ? largest : square;
      at.put(4, largest);
    }
    at.put(0, p - rate * mean / (sqrt(largest) / root + eps));
  });
}

}  // namespace

void fill_optim(Kernels& kernels) { kernels.optim = {{sgd<float>, adam<float>}, {sgd<double>, adam<double>}}; }

}  // namespace DL_ISA
}  // namespace dlcore
