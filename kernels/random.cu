// Random numbers that depend on a key (seed, stream) and the element's index alone: the bits of the references.
//
// random_uniform_<dtype>(key, y, n): multiples of 2**-b in [0, 1), b = 24, 53 (f64), 11 (f16), 8 (bf16).
// random_normal_<dtype>(key, y, n, range): the normal quantiles of words, mapped to a range of them if its size is not
// 0. random_words(key, y, n): 64-bit words w. random_integers(key, y, n, low, size): low + w mod size.
// random_dropout_<dtype>(x, key, y, n, p, scale): x * scale where the element's uniform number is >= p, else 0.
// random_bernoulli_<dtype>(x, key, y, n): 1 where the element's uniform number is < x, else 0.
//   Grid: any, threads stride over blocks of four words: 4 elements, or 2 made from 64 bits; block: 256; no shared
//   memory. x and y contiguous; y 16-byte aligned.
#include "philox.cuh"

struct Range {
  Word64 first, size;
};

// f(i, word) for the elements that block after block of four words gives; y gets them, one vector a block.
template <class W, class U, class F>
DL_DEVICE void generate(const long long* key, U* y, long long n, const F& f) {
  constexpr int V = 16 / int(sizeof(W));
  const long long blocks = (n + V - 1) / V;
  DL_ROLLED
  for (long long block = (long long)blockIdx.x * blockDim.x + threadIdx.x; block < blocks;
       block += (long long)gridDim.x * blockDim.x) {
    const Words words = philox(key, Word64(block));
    const long long first = block * V;
    Vec<U, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) {
      if constexpr (V == 4) out.at[j] = first + j < n ? f(first + j, words.at[j]) : U{};
      else out.at[j] = first + j < n ? f(first + j, words.pair(j)) : U{};
    }
    if (first + V <= n) {
      *reinterpret_cast<Vec<U, V>*>(y + first) = out;
    } else {
      DL_UNROLL
      for (int j = 0; j < V; ++j)
        if (first + j < n) y[first + j] = out.at[j];
    }
  }
}

template <class T>
struct Uniform {  // from the upper bits of a word
  DL_DEVICE static T of(unsigned word) { return unit(word); }
};
template <>
struct Uniform<double> {
  DL_DEVICE static double of(Word64 word) { return double((long long)(word >> 11)) * 0x1p-53; }
};
template <>
struct Uniform<__half> {
  DL_DEVICE static __half of(unsigned word) { return narrow<__half>(float(word >> 21) * 0x1p-11f); }
};
template <>
struct Uniform<__nv_bfloat16> {
  DL_DEVICE static __nv_bfloat16 of(unsigned word) { return narrow<__nv_bfloat16>(float(word >> 24) * 0x1p-8f); }
};

#define DL_RANDOM(T, suffix)                                                                                           \
  extern "C" __global__ void __launch_bounds__(256) random_uniform_##suffix(const long long* key, T* y, long long n) { \
    using W = WordOf<wide<T>>::type;                                                                                   \
    generate<W>(key, y, n, [](long long, W word) { return Uniform<T>::of(word); });                                    \
  }                                                                                                                    \
  DL_EXPORT(random_uniform_##suffix)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      random_normal_##suffix(const long long* key, T* y, long long n, Range range) {                                   \
    using R = wide<T>;                                                                                                 \
    using W = WordOf<R>::type;                                                                                         \
    generate<W>(key, y, n, [=](long long, W word) {                                                                    \
      if (range.size != 0) word = W(WordOf<R>::scaled(word, range.size) + range.first);                                \
      return narrow<T>(normal_quantile<R>(word));                                                                      \
    });                                                                                                                \
  }                                                                                                                    \
  DL_EXPORT(random_normal_##suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      random_dropout_##suffix(const T* x, const long long* key, T* y, long long n, float p, double scale) {            \
    const wide<T> factor = wide<T>(scale);                                                                             \
    generate<unsigned>(key, y, n, [=](long long i, unsigned word) {                                                    \
      return narrow<T>(unit(word) >= p ? widen(x[i]) * factor : wide<T>(0));                                           \
    });                                                                                                                \
  }                                                                                                                    \
  DL_EXPORT(random_dropout_##suffix)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      random_bernoulli_##suffix(const T* x, const long long* key, T* y, long long n) {                                 \
    generate<unsigned>(key, y, n, [=](long long i, unsigned word) {                                                    \
      return narrow<T>(wide<T>(wide<T>(unit(word)) < widen(x[i]) ? 1 : 0));                                            \
    });                                                                                                                \
  }                                                                                                                    \
  DL_EXPORT(random_bernoulli_##suffix)
DL_FOR_FLOATS(DL_RANDOM)

extern "C" __global__ void __launch_bounds__(256)
    random_integers(const long long* key, long long* y, long long n, long long low, Range range) {
  generate<Word64>(key, y, n, [=](long long, Word64 word) { return low + (long long)(word % range.size); });
}
DL_EXPORT(random_integers)

extern "C" __global__ void __launch_bounds__(256) random_words(const long long* key, Word64* y, long long n) {
  generate<Word64>(key, y, n, [](long long, Word64 word) { return word; });
}
DL_EXPORT(random_words)
