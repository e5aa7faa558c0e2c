#include "isa.h"
#include "parallel.h"
#include "simd_math.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kGrain = 4096;  // elements worth a thread

template <vec_f32 (*f)(vec_f32)>
void map(Index n, const float* x, float* y) {
  parallel_for(0, n, kGrain, [=](Index begin, Index end) {
    Index i = begin;
    for (; i + lanes<float> <= end; i += lanes<float>) store(y + i, f(load(x + i)));
    if (i < end) store(y + i, f(load(x + i, end - i)), end - i);
  });
}

}  // namespace

void fill_vmath(Kernels& kernels) {
  kernels.vmath = {map<exp>, map<log>, map<tanh>, map<sigmoid>, map<erf>, map<gelu<float>>};
}

}  // namespace DL_ISA
}  // namespace dlcore
