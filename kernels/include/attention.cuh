// Parts of attention kernels. A block owns 64 rows and walks over tiles of 64 others in order; without tensor cores a
// thread owns 4 x 4 of each 64 x 64 product. Sums are in float.
#pragma once
#include "warp.cuh"

constexpr int kMaxLead = 4, kOperands = 4;
enum Operand { kQ, kK, kV, kBias };

struct Attention {
  int t, s, d, e;  // queries, keys, size of queries and keys, size of values
  int causal;      // query t sees keys 0 to t
  int vectors;     // whether rows of q, k, v, dy and y are whole, aligned vectors of 4
  int axes;        // leading axes
  float scale;
  long long row[kOperands];               // elements from one row to the next
  long long bias_column;                  // from one column of the bias to the next
  long long stride[kOperands][kMaxLead];  // of the leading axes, last first
  unsigned shape[kMaxLead];
};

constexpr int kThreads = 256, kTile = 64, kOwn = 4, kGroup = kTile / kOwn;  // a row's threads: 16 neighbours
constexpr int kDepth = 32, kPitch = kDepth + 4;                             // of a slab, without bank conflicts
constexpr int kWeightPitch = kTile + 16;

struct Shared {
  float operand[2 * kTile * kPitch];  // two slabs, or a tile of kTile x kTile
  float weight[kTile * kWeightPitch];
};

// A matrix whose rows from `first` on are read; those past `rows` count as 0, like columns past `columns`.
template <class T>
struct Matrix {
  const T* x;
  long long stride;
  int rows, columns;
  bool vectors;
};

template <int COLUMNS, int PITCH, class T>
DL_DEVICE void load_tile(const Matrix<T>& m, int first_row, int first_column, float* shared) {
  DL_UNROLL
  for (int i = threadIdx.x; i < kTile * COLUMNS / 4; i += kThreads) {
    const int row = i / (COLUMNS / 4), column = (i - row * (COLUMNS / 4)) * 4;
    const int from = first_column + column, left = first_row + row < m.rows ? m.columns - from : 0;
    const T* x = m.x + (first_row + row) * m.stride + from;
    Vec<float, 4> out;
    if (m.vectors && left > 0) {
      const Vec<T, 4> in = *reinterpret_cast<const Vec<T, 4>*>(x);
      DL_UNROLL
      for (int j = 0; j < 4; ++j) out.at[j] = widen(in.at[j]);
    } else {
      DL_UNROLL
      for (int j = 0; j < 4; ++j) out.at[j] = j < left ? widen(x[j]) : 0.0f;
    }
    *reinterpret_cast<Vec<float, 4>*>(shared + row * PITCH + column) = out;
  }
}

// A thread's rows of a tile are row_of() + 16 i; its columns column_of() + 16 j in products of rows, and
// 4 column_of() + j in sums of weighted rows.
DL_DEVICE int row_of() { return threadIdx.x / kGroup; }
DL_DEVICE int column_of() { return threadIdx.x % kGroup; }

// sum[i][j] = a[row] . b[column] of the tiles from the given rows on.
template <class T>
DL_DEVICE void multiply_rows(const Matrix<T>& a, int first_a, const Matrix<T>& b, int first_b, Shared& shared,
                             float (&sum)[kOwn][kOwn]) {
  float *slab_a = shared.operand, *slab_b = slab_a + kTile * kPitch;
  DL_UNROLL
  for (int i = 0; i < kOwn; ++i) DL_UNROLL
  for (int j = 0; j < kOwn; ++j) sum[i][j] = 0.0f;
  DL_ROLLED
  for (int from = 0; from < a.columns; from += kDepth) {
    load_tile<kDepth, kPitch>(a, first_a, from, slab_a);
    load_tile<kDepth, kPitch>(b, first_b, from, slab_b);
    __syncthreads();
    DL_ROLLED
    for (int k = 0; k < kDepth; k += 4) {
      Vec<float, 4> x[kOwn], y[kOwn];
      DL_UNROLL
      for (int i = 0; i < kOwn; ++i) {
        x[i] = *reinterpret_cast<const Vec<float, 4>*>(slab_a + (row_of() + i * kGroup) * kPitch + k);
        y[i] = *reinterpret_cast<const Vec<float, 4>*>(slab_b + (column_of() + i * kGroup) * kPitch + k);
      }
      DL_UNROLL
      for (int e = 0; e < 4; ++e) DL_UNROLL
      for (int i = 0; i < kOwn; ++i) DL_UNROLL
      for (int j = 0; j < kOwn; ++j) sum[i][j] = fmaf(x[i].at[e], y[j].at[e], sum[i][j]);
    }
    __syncthreads();
  }
}

DL_DEVICE void store_weights(const float (&weight)[kOwn][kOwn], Shared& shared) {
  DL_UNROLL
  for (int i = 0; i < kOwn; ++i) DL_UNROLL
  for (int j = 0; j < kOwn; ++j)
    shared.weight[(row_of() + i * kGroup) * kWeightPitch + column_of() + j * kGroup] = weight[i][j];
}

// sum[row] += weight[row][other] x[other] over a tile of x, after store_weights; parts of 64 columns.
template <int PARTS, class T>
DL_DEVICE void add_weighted(const Matrix<T>& x, int first, Shared& shared, float (&sum)[PARTS][kOwn][4]) {
  DL_UNROLL
  for (int part = 0; part < PARTS; ++part) {
    if (part * kTile >= x.columns) break;
    load_tile<kTile, kTile>(x, first, part * kTile, shared.operand);
    __syncthreads();
    DL_ROLLED
    for (int k = 0; k < kTile; k += 4) {
      Vec<float, 4> w[kOwn];
      DL_UNROLL
      for (int i = 0; i < kOwn; ++i)
        w[i] = *reinterpret_cast<const Vec<float, 4>*>(shared.weight + (row_of() + i * kGroup) * kWeightPitch + k);
      DL_UNROLL
      for (int e = 0; e < 4; ++e) {
        const Vec<float, 4> y =
            *reinterpret_cast<const Vec<float, 4>*>(shared.operand + (k + e) * kTile + 4 * column_of());
        DL_UNROLL
        for (int i = 0; i < kOwn; ++i) DL_UNROLL
        for (int j = 0; j < 4; ++j) sum[part][i][j] = fmaf(w[i].at[e], y.at[j], sum[part][i][j]);
      }
    }
    __syncthreads();
  }
}

// y[row] = sum[row] * factor[i], the thread's rows from `first` on.
template <int PARTS, class T>
DL_DEVICE void store_rows(const float (&sum)[PARTS][kOwn][4], const float (&factor)[kOwn], T* y, int first, int rows,
                          int columns, bool vectors) {
  DL_UNROLL
  for (int part = 0; part < PARTS; ++part) DL_UNROLL
  for (int i = 0; i < kOwn; ++i) {
    const int row = first + row_of() + i * kGroup, column = part * kTile + 4 * column_of();
    if (row >= rows || column >= columns) continue;
    T* out = y + (long long)row * columns + column;
    Vec<T, 4> value;
    DL_UNROLL
    for (int j = 0; j < 4; ++j) value.at[j] = narrow<T>(sum[part][i][j] * factor[i]);
    if (vectors) {
      *reinterpret_cast<Vec<T, 4>*>(out) = value;
    } else {
      DL_UNROLL
      for (int j = 0; j < 4; ++j)
        if (column + j < columns) out[j] = value.at[j];
    }
  }
}

// ---- what a block works on

// The operands at one place of the leading axes.
template <class T>
struct Head {
  Matrix<T> q, k, v;
  const T* bias;
  const Attention* call;

  DL_DEVICE Head(const T* q_, const T* k_, const T* v_, const T* bias_, const Attention& c, unsigned place)
      : q{q_, c.row[kQ], c.t, c.d, c.vectors != 0},
        k{k_, c.row[kK], c.s, c.d, c.vectors != 0},
        v{v_, c.row[kV], c.s, c.e, c.vectors != 0},
        bias(bias_),
        call(&c) {
    DL_ROLLED
    for (int axis = 0; axis < c.axes; ++axis) {
      const unsigned next = place / c.shape[axis], index = place - next * c.shape[axis];
      q.x += index * c.stride[kQ][axis], k.x += index * c.stride[kK][axis], v.x += index * c.stride[kV][axis];
      if (bias != nullptr) bias += index * c.stride[kBias][axis];
      place = next;
    }
  }

  DL_DEVICE bool visible(int query, int key) const {
    return query < call->t && key < call->s && (!call->causal || key <= query);
  }
  // Whether the queries from `query` on see all of a tile of keys, without a bias: their scores are scaled products.
  DL_DEVICE bool plain(int query, int key) const {
    return bias == nullptr && key + kTile <= call->s && (!call->causal || key + kTile <= query + 1);
  }
  DL_DEVICE float score(float product, int query, int key) const {
    if (!visible(query, key)) return -INFINITY;
    const float logit = product * call->scale;
    return bias == nullptr ? logit : logit + widen(bias[query * call->row[kBias] + key * call->bias_column]);
  }
};

DL_DEVICE float finite_or_zero(float x) { return x == -INFINITY ? 0.0f : x; }
DL_DEVICE int tiles_of(int rows) { return (rows + kTile - 1) / kTile; }
DL_DEVICE int smaller(int a, int b) { return a < b ? a : b; }

// ---- forward

// Reduces over the LANES neighbouring threads of a row.
template <int LANES, class F>
DL_DEVICE float across_row(float x, const F& join) {
  DL_UNROLL
  for (int mask = LANES / 2; mask > 0; mask /= 2) x = join(x, lane_xor(x, mask));
  return x;
}

// Running maximum and sum of a thread's rows, each of which LANES neighbours share.
template <int ROWS, int COLUMNS, int LANES>
struct Softmax {
  float top[ROWS], total[ROWS];

  DL_DEVICE Softmax() {
    DL_UNROLL
    for (int i = 0; i < ROWS; ++i) top[i] = -INFINITY, total[i] = 0.0f;
  }
  // From scores to weights exponential(score, top), e**(score - top); returns in `fade` what earlier sums are worth
  // now.
  template <class F>
  DL_DEVICE void join(float (&score)[ROWS][COLUMNS], float (&fade)[ROWS], const F& exponential) {
    DL_UNROLL
    for (int i = 0; i < ROWS; ++i) {
      float largest = score[i][0], sum = 0.0f;
      DL_UNROLL
      for (int j = 1; j < COLUMNS; ++j) largest = fmaxf(largest, score[i][j]);
      largest = fmaxf(top[i], across_row<LANES>(largest, [](float a, float b) { return fmaxf(a, b); }));
      const float shift = finite_or_zero(largest);
      DL_UNROLL
      for (int j = 0; j < COLUMNS; ++j) sum += score[i][j] = exponential(score[i][j], shift);
      fade[i] = exponential(top[i], shift);
      total[i] = total[i] * fade[i] + across_row<LANES>(sum, [](float a, float b) { return a + b; });
      top[i] = largest;
    }
  }
  DL_DEVICE float factor(int i) const { return total[i] == 0.0f ? 0.0f : 1.0f / total[i]; }
  DL_DEVICE float lse(int i) const { return finite_or_zero(top[i]) + logf(total[i]); }
};

// ---- backward

// Of a query: what turns scores into probabilities, and the part of their gradient that all keys share.
template <class T>
struct Query {
  float lse, delta;
  DL_DEVICE Query(const T* lse_, const float* delta_, int query, int count)
      : lse(query < count ? finite_or_zero(widen(lse_[query])) : 0.0f), delta(query < count ? delta_[query] : 0.0f) {}
};

// Probabilities and gradients of the scores, in place of products of queries with keys and of dy with values.
// kQueries: queries are the rows, else the columns.
template <bool kQueries, class T>
DL_DEVICE void finish_scores(const Head<T>& head, const T* lse, const float* delta, int first_row, int first_column,
                             float (&p)[kOwn][kOwn], float (&ds)[kOwn][kOwn]) {
  DL_UNROLL
  for (int i = 0; i < kOwn; ++i) DL_UNROLL
  for (int j = 0; j < kOwn; ++j) {
    const int row = first_row + row_of() + i * kGroup, column = first_column + column_of() + j * kGroup;
    const int query = kQueries ? row : column, key = kQueries ? column : row;
    const Query<T> own(lse, delta, query, head.call->t);
    p[i][j] = expf(head.score(p[i][j], query, key) - own.lse);
    ds[i][j] = p[i][j] * (ds[i][j] - own.delta);
  }
}
