// Random numbers that depend on a key (seed, stream) and the element's index alone: the bits of the references.
//
// random_uniform_<dtype>(key, y, n): multiples of 2**-b in [0, 1), b = 24, 53 (f64), 11 (f16), 8 (bf16).
// random_normal_<dtype>(key, y, n, range): the normal quantiles of words, mapped to a range of them if its size is not
// 0. random_words(key, y, n): 64-bit words w. random_integers(key, y, n, low, size): low + w mod size.
// random_dropout_<dtype>(x, key, y, n, p, scale, vectors): x * scale where the element's uniform number is >= p, else
// 0. random_bernoulli_<dtype>(x, key, y, n, vectors): 1 where the element's uniform number is < x, else 0.
//   Grid: any, threads stride over vectors of 16 bytes of y; block: 256; no shared memory.
//   x and y contiguous; y 16-byte aligned. vectors: whether x is, too.
#include "philox.cuh"
#include "strided.cuh"

struct Range {
  Word64 first, size;
};

// The words that V elements from `first` on are made from: numbers first to first + V of the key's sequence.
template <class W, int V>
DL_DEVICE void words_from(const long long* key, long long first, W (&word)[V]) {
  constexpr int kPerBlock = 16 / int(sizeof(W));
  DL_UNROLL
  for (int j = 0; j < V; j += kPerBlock) {
    const Words block = philox(key, Word64(first + j) / kPerBlock);
    const bool second_half = V < kPerBlock && first % kPerBlock != 0;
    DL_UNROLL
    for (int k = 0; k < kPerBlock && j + k < V; ++k) {
      if constexpr (kPerBlock == 2) word[j + k] = block.pair(k);
      else word[j + k] = second_half ? block.at[(k + V) % kPerBlock] : block.at[k];
    }
  }
}

// y = f(word, element of x), a vector at a time; x may be null.
template <class W, class T, class U, class F>
DL_DEVICE void generate(const long long* key, const T* x, U* y, long long n, bool vectors, const F& f) {
  constexpr int V = kPerVector<U>;
  const long long step = (long long)gridDim.x * blockDim.x * V, own_key[] = {key[0], key[1]};
  DL_ROLLED
  for (long long first = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * V; first < n; first += step) {
    const int count = n - first < V ? int(n - first) : V;
    Vec<T, V> in{};
    if (x != nullptr) load_chunk(x, first, 1, count, vectors, 0.0, in);
    W word[V];
    words_from(own_key, first, word);
    Vec<U, V> out;
    DL_UNROLL
    for (int j = 0; j < V; ++j) out.at[j] = f(word[j], in.at[j]);
    store_chunk(y, first, count, true, out);
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
    generate<W>(key, (const T*)nullptr, y, n, true, [](W word, T) { return Uniform<T>::of(word); });                   \
  }                                                                                                                    \
  DL_EXPORT(random_uniform_##suffix)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      random_normal_##suffix(const long long* key, T* y, long long n, Range range) {                                   \
    using R = wide<T>;                                                                                                 \
    using W = WordOf<R>::type;                                                                                         \
    generate<W>(key, (const T*)nullptr, y, n, true, [=](W word, T) {                                                   \
      if (range.size != 0) word = W(WordOf<R>::scaled(word, range.size) + range.first);                                \
      return narrow<T>(normal_quantile<R>(word));                                                                      \
    });                                                                                                                \
  }                                                                                                                    \
  DL_EXPORT(random_normal_##suffix)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256) random_dropout_##suffix(                                           \
      const T* x, const long long* key, T* y, long long n, float p, double scale, int vectors) {                       \
    const wide<T> factor = wide<T>(scale);                                                                             \
    generate<unsigned>(key, x, y, n, vectors, [=](unsigned word, T own) {                                              \
      return narrow<T>(unit(word) >= p ? widen(own) * factor : wide<T>(0));                                            \
    });                                                                                                                \
  }                                                                                                                    \
  DL_EXPORT(random_dropout_##suffix)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      random_bernoulli_##suffix(const T* x, const long long* key, T* y, long long n, int vectors) {                    \
    generate<unsigned>(key, x, y, n, vectors, [=](unsigned word, T own) {                                              \
      return narrow<T>(wide<T>(wide<T>(unit(word)) < widen(own) ? 1 : 0));                                             \
    });                                                                                                                \
  }                                                                                                                    \
  DL_EXPORT(random_bernoulli_##suffix)
DL_FOR_FLOATS(DL_RANDOM)

extern "C" __global__ void __launch_bounds__(256)
    random_integers(const long long* key, long long* y, long long n, long long low, Range range) {
  generate<Word64>(key, (const double*)nullptr, y, n, true,
                   [=](Word64 word, double) { return low + (long long)(word % range.size); });
}
DL_EXPORT(random_integers)

extern "C" __global__ void __launch_bounds__(256) random_words(const long long* key, Word64* y, long long n) {
  generate<Word64>(key, (const double*)nullptr, y, n, true, [](Word64 word, double) { return word; });
}
DL_EXPORT(random_words)
