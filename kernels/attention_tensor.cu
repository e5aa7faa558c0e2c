// Scaled dot-product attention on tensor cores, f16 and bf16 (Dao, "FlashAttention-2", 2023).
//
// attention_tensor_<width>_<dtype>(q, k, v, bias, y, lse, call): as attention_forward of attention.cu, but
//   call.vectors says whether rows are whole, aligned vectors of 8. width: 64 or 128, at least D and E.
//   Grid: leading size x tiles of 64 queries; block: 128; shared: tiles of 64 keys and of 64 values.
// A warp owns 16 queries, and keeps them, their scores and their results in registers: the scores are, as they lie, the
// left operand of their product with the values. Values arrive while keys are multiplied, the next keys meanwhile too.
#include "attention.cuh"
#include "gemm_mma.cuh"

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kBlock = 128, kScores = kTile / 8;  // 16 x 8 blocks of scores that a warp holds

// Where a chunk of 8 elements of a row lies: XOR puts the same chunk of eight rows into different banks.
template <int WIDTH>
DL_DEVICE int chunk_in_row(int row, int chunk) {
  return row * WIDTH + (chunk ^ (row & 7)) * 8;
}

// Brings 64 rows; what lies outside of the matrix counts as 0.
template <int WIDTH, class T>
DL_DEVICE void fetch(const Matrix<T>& m, int first, T* shared) {
  constexpr int kChunks = WIDTH / 8, kStep = kBlock / kChunks;
  const int own = threadIdx.x / kChunks, column = threadIdx.x % kChunks * 8;
  auto each = [&](int i, auto copy) {
    const int row = first + own + i, left = row < m.rows ? m.columns - column : 0;
    copy(shared + chunk_in_row<WIDTH>(own, column / 8) + i * WIDTH, left > 0 ? m.x + row * m.stride + column : m.x,
         left);
  };
  if (m.vectors) {
    DL_UNROLL
    for (int i = 0; i < kTile; i += kStep)
      each(i, [](T* to, const T* from, int left) { dl::cp_async<16>(to, from, left > 0); });
  } else {
    DL_ROLLED
    for (int i = 0; i < kTile; i += kStep) each(i, [](T* to, const T* from, int left) { copy_part(to, from, left); });
  }
  dl::cp_async_commit();
}

DL_DEVICE void arrive() {
  dl::cp_async_wait<0>();
  __syncthreads();
}

// Matrices of 8 x 8 that a lane points into: of 16 rows and 2 chunks, rows first or chunks first.
template <int WIDTH, bool ROWS_FIRST>
struct Lane {
  int row, chunk;
  DL_DEVICE Lane() {
    const int lane = threadIdx.x % 32, low = lane >> 3 & 1, high = lane >> 4;
    row = lane % 8 + 8 * (ROWS_FIRST ? low : high), chunk = ROWS_FIRST ? high : low;
  }
  DL_DEVICE int at(int rows, int chunks) const { return rows * WIDTH + chunk_in_row<WIDTH>(row, chunks + chunk); }
};

template <int WIDTH, class T>
DL_DEVICE void read_queries(const T* shared, unsigned (&query)[WIDTH / 16][4]) {
  const Lane<WIDTH, true> lane;
  DL_UNROLL
  for (int k = 0; k < WIDTH / 16; ++k) dl::ldmatrix<4>(query[k], shared + lane.at(threadIdx.x / 32 * 16, 2 * k));
}

template <int WIDTH, class T>
DL_DEVICE void multiply_keys(const unsigned (&query)[WIDTH / 16][4], const T* keys, float (&product)[kScores][4]) {
  const Lane<WIDTH, false> lane;
  DL_UNROLL
  for (int j = 0; j < kScores; ++j) DL_UNROLL
  for (int e = 0; e < 4; ++e) product[j][e] = 0.0f;
  DL_UNROLL
  for (int k = 0; k < WIDTH / 16; ++k) DL_UNROLL
  for (int j = 0; j < kScores / 2; ++j) {
    unsigned key[4];
    dl::ldmatrix<4>(key, keys + lane.at(16 * j, 2 * k));
    multiply_add(product[2 * j], query[k], {key[0], key[1]}, T{});
    multiply_add(product[2 * j + 1], query[k], {key[2], key[3]}, T{});
  }
}

template <int WIDTH, class T>
DL_DEVICE void add_values(const float (&weight)[2][2 * kScores], const T* values, float (&sum)[WIDTH / 8][4]) {
  const Lane<WIDTH, true> lane;
  DL_UNROLL
  for (int k = 0; k < kTile / 16; ++k) {
    unsigned of_keys[4];
    DL_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float* two = &weight[i % 2][4 * k + i / 2 * 2];
      of_keys[i] = dl::pack<T>(two[0], two[1]);
    }
    DL_UNROLL
    for (int j = 0; j < WIDTH / 16; ++j) {
      unsigned value[4];
      dl::ldmatrix<4, true>(value, values + lane.at(16 * k, 2 * j));
      multiply_add(sum[2 * j], of_keys, {value[0], value[1]}, T{});
      multiply_add(sum[2 * j + 1], of_keys, {value[2], value[3]}, T{});
    }
  }
}

// Scores of a thread: rows `query` and 8 further on; of every 8 columns from `key` on, two neighbours.
template <class T>
DL_DEVICE void finish(bool plain, const Head<T>& head, const float (&product)[kScores][4], int query, int key,
                      float (&score)[2][2 * kScores]) {
  DL_UNROLL
  for (int j = 0; j < kScores; ++j) DL_UNROLL
  for (int e = 0; e < 4; ++e) score[e / 2][2 * j + e % 2] = product[j][e] * head.call->scale;
  if (plain) return;
  DL_UNROLL
  for (int j = 0; j < kScores; ++j) DL_UNROLL
  for (int e = 0; e < 4; ++e)
    score[e / 2][2 * j + e % 2] = head.score(product[j][e], query + e / 2 * 8, key + 8 * j + e % 2);
}

// Stores the warp's 16 rows through shared memory, 16 bytes at a time.
template <int WIDTH, class T>
DL_DEVICE void store(const float (&sum)[WIDTH / 8][4], const float (&factor)[2], T* shared, const Matrix<T>& to,
                     int first, T* y) {
  constexpr int kChunks = WIDTH / 8;
  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
  DL_UNROLL
  for (int j = 0; j < kChunks; ++j) DL_UNROLL
  for (int i = 0; i < 2; ++i)
    *reinterpret_cast<unsigned*>(shared + chunk_in_row<WIDTH>(own + lane / 4 + 8 * i, j) + lane % 4 * 2) =
        dl::pack<T>(sum[j][2 * i] * factor[i], sum[j][2 * i + 1] * factor[i]);
  __syncwarp();
  DL_ROLLED
  for (int i = lane; i < 16 * kChunks; i += 32) {
    const int row = own + i / kChunks, column = i % kChunks * 8, left = to.columns - column;
    if (first + row >= to.rows || left <= 0) continue;
    const Vec<T, 8> v = *reinterpret_cast<const Vec<T, 8>*>(shared + chunk_in_row<WIDTH>(row, column / 8));
    T* out = y + (first + row) * to.stride + column;
    if (to.vectors) {
      *reinterpret_cast<Vec<T, 8>*>(out) = v;
    } else {
      DL_UNROLL
      for (int j = 0; j < 8; ++j)
        if (j < left) out[j] = v.at[j];
    }
  }
}

template <int WIDTH, class T>
DL_DEVICE void attend(const T* q, const T* k, const T* v, const T* bias, T* y, T* lse, const Attention& c) {
  __shared__ __align__(16) T keys[kTile * WIDTH], values[kTile * WIDTH];
  const unsigned place = blockIdx.x / tiles_of(c.t);
  const int first = (blockIdx.x - place * tiles_of(c.t)) * kTile, lane = threadIdx.x % 32;
  const int own = first + threadIdx.x / 32 * 16 + lane / 4;  // a thread's first query
  const Head<T> head(q, k, v, bias, c, place);
  unsigned query[WIDTH / 16][4];
  fetch<WIDTH>(head.q, first, keys);
  arrive();
  read_queries<WIDTH>(keys, query);
  __syncthreads();
  fetch<WIDTH>(head.k, 0, keys);
  Softmax<2, 2 * kScores, 4> softmax;
  float sum[WIDTH / 8][4] = {};
  const int end = c.causal ? smaller(c.s, first + kTile) : c.s;
  DL_ROLLED
  for (int key = 0; key < end; key += kTile) {
    float product[kScores][4], weight[2][2 * kScores], fade[2];
    arrive();
    fetch<WIDTH>(head.v, key, values);
    multiply_keys<WIDTH>(query, keys, product);
    finish(head.plain(first, key), head, product, own, key + lane % 4 * 2, weight);
    softmax.join(weight, fade, [](float x, float top) { return dl::exp2_approx(fmaf(x, kLog2E, -kLog2E * top)); });
    DL_UNROLL
    for (int j = 0; j < WIDTH / 8; ++j) DL_UNROLL
    for (int e = 0; e < 4; ++e) sum[j][e] *= fade[e / 2];
    arrive();
    if (key + kTile < end) fetch<WIDTH>(head.k, key + kTile, keys);
    add_values<WIDTH>(weight, values, sum);
  }
  arrive();
  DL_UNROLL
  for (int i = 0; i < 2; ++i)
    if (lane % 4 == 0 && own + 8 * i < c.t) lse[(long long)place * c.t + own + 8 * i] = narrow<T>(softmax.lse(i));
  const float factor[2] = {softmax.factor(0), softmax.factor(1)};
  const Matrix<T> to{nullptr, c.e, c.t, c.e, c.vectors != 0};
  store<WIDTH>(sum, factor, keys, to, first, y + (long long)place * c.t * c.e);
}

#define DL_ATTENTION(T, suffix, width)                                                      \
  extern "C" __global__ void __launch_bounds__(kBlock) attention_tensor_##width##_##suffix( \
      const T* q, const T* k, const T* v, const T* bias, T* y, T* lse, Attention call) {    \
    attend<width>(q, k, v, bias, y, lse, call);                                             \
  }                                                                                         \
  DL_EXPORT(attention_tensor_##width##_##suffix)
DL_ATTENTION(__half, f16, 64)
DL_ATTENTION(__half, f16, 128)
DL_ATTENTION(__nv_bfloat16, bf16, 64)
DL_ATTENTION(__nv_bfloat16, bf16, 128)
