// The loop of a product by tensor cores: f16 and bf16 with sums in f32, and f32 rounded to tf32.
//
// Slabs of 64 bytes of k pass through three stages of shared memory, filled by cp.async two slabs ahead. An operand
// lies there as it lies in global memory: line by line where k is contiguous, else k by k. Its 16-byte chunks are
// permuted by XOR, so that the eight rows of a matrix that ldmatrix loads lie in different banks. Four warps own a
// quarter each.
#pragma once
#include "gemm.cuh"

template <class T, int M, int N>
struct MmaTile {
  using Element = T;
  static constexpr int kM = M, kN = N, kThreads = 128, kStages = 3;
  static constexpr int kChunk = 16 / int(sizeof(T)), kSlab = 4 * kChunk;  // k's in 16 bytes, in a slab
  static constexpr int kWarpM = M / 2, kWarpN = N / 2;
  static constexpr int kDown = kWarpM / 16, kAcross = kWarpN / 8;  // 16 x 8 blocks of C that a warp owns
  static constexpr int kSizeA = kM * kSlab, kSizeB = kN * kSlab;
  static constexpr int kBytes = kStages * (kSizeA + kSizeB) * int(sizeof(T));
};

// Element at which chunk `chunk` of a line (of a k) begins.
template <class Tile>
DL_DEVICE int chunk_in_line(int line, int chunk) {
  return line * Tile::kSlab + (chunk ^ (line >> 1 & 3)) * Tile::kChunk;
}
template <class Tile, int LINES>
DL_DEVICE int chunk_in_k(int k, int chunk) {
  return k * LINES + (chunk ^ (k & 7)) * Tile::kChunk;
}

// A chunk of which only elements [0, count) exist, loaded one by one.
template <class T>
DL_DEVICE void copy_part(T* to, const T* from, int count) {
  constexpr int V = kPerVector<T>;
  Vec<T, V> chunk;
  DL_UNROLL
  for (int j = 0; j < V; ++j) chunk.at[j] = j < count ? from[j] : T{};
  *reinterpret_cast<Vec<T, V>*>(to) = chunk;
}

// ---- loaders: WHOLE ones copy 16 bytes at a time, the others take every size and alignment

template <class Tile, int LINES, bool WHOLE>
struct MmaAlongK {
  using T = typename Tile::Element;
  static constexpr bool kByLine = true;
  static constexpr int kCopies = LINES * 4 / Tile::kThreads, kStep = Tile::kThreads / 4;
  const T* x;
  unsigned offset[kCopies];

  DL_DEVICE MmaAlongK(const T* x, unsigned ld, int line, int lines, int k) {
    const int last = lines - 1, first = least(line + threadIdx.x / 4, last);
    this->x = x + (long long)first * ld + k + own();
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i)  // lines past the end repeat the last one; nobody stores what they give
      offset[i] = (least(line + threadIdx.x / 4 + i * kStep, last) - first) * ld;
  }
  DL_DEVICE static int own() { return threadIdx.x % 4 * Tile::kChunk; }  // of a slab's k's
  // left: how many k's there are from this slab on
  DL_DEVICE void fetch(T* slab, int left) {
    T* to = slab + chunk_in_line<Tile>(threadIdx.x / 4, threadIdx.x % 4);
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i)
      if constexpr (WHOLE) dl::cp_async<16>(to + i * kStep * Tile::kSlab, x + offset[i], left > own());
      else copy_part(to + i * kStep * Tile::kSlab, x + offset[i], left - own());
    x += Tile::kSlab;
  }
};

template <class Tile, int LINES, bool WHOLE>
struct MmaAlongLines {
  using T = typename Tile::Element;
  static constexpr bool kByLine = false;
  static constexpr int kCopies = LINES / (4 * Tile::kChunk), kStep = 4;  // chunks
  static_assert(Tile::kThreads == 4 * Tile::kSlab, "four threads bring one k");
  const T* x;
  long long step;  // from a slab to the next
  unsigned offset[kCopies];
  int here;  // lines from this thread's first chunk on

  DL_DEVICE MmaAlongLines(const T* x, unsigned ld, int line, int lines, int k)
      : step((long long)Tile::kSlab * ld), here(lines - line - chunk() * Tile::kChunk) {
    const int last = WHOLE ? lines - Tile::kChunk : lines, first = least(line + chunk() * Tile::kChunk, last);
    this->x = x + (long long)(k + own()) * ld + first;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) offset[i] = least(line + (chunk() + i * kStep) * Tile::kChunk, last) - first;
  }
  DL_DEVICE static int own() { return threadIdx.x % 8 + threadIdx.x / 32 * 8; }
  DL_DEVICE static int chunk() { return threadIdx.x / 8 % 4; }
  DL_DEVICE void fetch(T* slab, int left) {
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      T* to = slab + chunk_in_k<Tile, LINES>(own(), chunk() + i * kStep);
      if constexpr (WHOLE) dl::cp_async<16>(to, x + offset[i], left > own());
      else copy_part(to, x + offset[i], left > own() ? here - i * kStep * Tile::kChunk : 0);
    }
    x += step;
  }
};

// ---- fragments: 16 lines x 32 bytes of k at a time, as four 8x8 matrices

// A's come as (lines, k): (first, first), (second, first), ...; B's as (first, first), (first, second), ...
template <class Tile, int LINES, int COUNT, bool OF_A, bool BY_LINE>
struct Fragments;

template <class Tile, int LINES, int COUNT, bool OF_A>
struct Fragments<Tile, LINES, COUNT, OF_A, true> {
  static constexpr int kBytes = sizeof(typename Tile::Element);
  int offset[2];  // in bytes, of either half of the slab
  DL_DEVICE explicit Fragments(int line) {
    const int lane = threadIdx.x % 32, low = lane >> 3 & 1, high = lane >> 4;
    DL_UNROLL
    for (int half = 0; half < 2; ++half)
      offset[half] =
          kBytes * chunk_in_line<Tile>(line + lane % 8 + 8 * (OF_A ? low : high), 2 * half + (OF_A ? high : low));
  }
  DL_DEVICE void read(const char* slab, int half, int i, unsigned (&fragment)[4]) const {
    dl::ldmatrix<4>(fragment, slab + offset[half] + i * 16 * Tile::kSlab * kBytes);
  }
};

template <class Tile, int LINES, int COUNT, bool OF_A>
struct Fragments<Tile, LINES, COUNT, OF_A, false> {
  static constexpr int kBytes = sizeof(typename Tile::Element);
  int offset[COUNT];  // in bytes
  DL_DEVICE explicit Fragments(int line) {
    const int lane = threadIdx.x % 32, low = lane >> 3 & 1, high = lane >> 4;
    DL_UNROLL
    for (int i = 0; i < COUNT; ++i)
      offset[i] =
          kBytes * chunk_in_k<Tile, LINES>(lane % 8 + 8 * (OF_A ? high : low), line / 8 + 2 * i + (OF_A ? low : high));
  }
  DL_DEVICE void read(const char* slab, int half, int i, unsigned (&fragment)[4]) const {
    dl::ldmatrix<4, true>(fragment, slab + offset[i] + half * 16 * LINES * kBytes);
  }
};

template <class T>
DL_DEVICE void round_fragment(unsigned (&)[4]) {}
template <>
DL_DEVICE void round_fragment<float>(unsigned (&fragment)[4]) {
  DL_UNROLL
  for (int i = 0; i < 4; ++i) fragment[i] = dl::cvt_tf32(__uint_as_float(fragment[i]));
}

DL_DEVICE void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], __half) {
  dl::mma_m16n8k16_f16(c, a, b);
}
DL_DEVICE void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], __nv_bfloat16) {
  dl::mma_m16n8k16_bf16(c, a, b);
}
DL_DEVICE void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], float) {
  dl::mma_m16n8k8_tf32(c, a, b);
}

// ---- the loop

template <class Tile, class A, class B, class T>
DL_DEVICE void multiply_mma(A& a, B& b, int left, T* shared, float (&sum)[Tile::kDown][Tile::kAcross][4]) {
  constexpr int kStages = Tile::kStages;
  const int warp = threadIdx.x / 32;
  const Fragments<Tile, Tile::kM, Tile::kDown, true, A::kByLine> of_a(warp / 2 * Tile::kWarpM);
  const Fragments<Tile, Tile::kN, Tile::kAcross / 2, false, B::kByLine> of_b(warp % 2 * Tile::kWarpN);
  constexpr int kSizeA = Tile::kSizeA * int(sizeof(T)), kStage = Tile::kBytes / kStages, kEnd = Tile::kBytes;
  char* const base = reinterpret_cast<char*>(shared);
  auto fetch = [&](int stage) {  // stages by their first byte
    a.fetch(reinterpret_cast<T*>(base + stage), left);
    b.fetch(reinterpret_cast<T*>(base + stage + kSizeA), left);
    dl::cp_async_commit();
    left -= Tile::kSlab;
  };
  DL_UNROLL
  for (int i = 0; i < Tile::kDown; ++i) DL_UNROLL
  for (int j = 0; j < Tile::kAcross; ++j) DL_UNROLL
  for (int e = 0; e < 4; ++e) sum[i][j][e] = 0.0f;
  DL_UNROLL
  for (int stage = 0; stage < kStages - 1; ++stage) fetch(stage * kStage);
  dl::cp_async_wait<kStages - 2>();
  __syncthreads();

  unsigned rows[2][Tile::kDown][4], columns[2][Tile::kAcross][2];  // fragments of this half of a slab and of the next
  auto read = [&](int stage, int half) {
    DL_UNROLL
    for (int i = 0; i < Tile::kDown; ++i) {
      of_a.read(base + stage, half, i, rows[half][i]);
      round_fragment<T>(rows[half][i]);
    }
    DL_UNROLL
    for (int j = 0; j < Tile::kAcross / 2; ++j) {
      unsigned two[4];
      of_b.read(base + stage + kSizeA, half, j, two);
      round_fragment<T>(two);
      columns[half][2 * j][0] = two[0], columns[half][2 * j][1] = two[1];
      columns[half][2 * j + 1][0] = two[2], columns[half][2 * j + 1][1] = two[3];
    }
  };
  read(0, 0);
  int current = 0, next = kEnd - kStage;
  DL_ROLLED
  while (left > (1 - kStages) * Tile::kSlab) {
    DL_UNROLL
    for (int half = 0; half < 2; ++half) {
      if (half == 1) {
        dl::cp_async_wait<kStages - 2>();
        __syncthreads();
        current = current + kStage == kEnd ? 0 : current + kStage;
      }
      read(current, 1 - half);
      if (half == 0) {
        fetch(next);
        next = next + kStage == kEnd ? 0 : next + kStage;
      }
      DL_UNROLL
      for (int i = 0; i < Tile::kDown; ++i) DL_UNROLL
      for (int j = 0; j < Tile::kAcross; ++j) multiply_add(sum[i][j], rows[half][i], columns[half][j], T{});
    }
  }
  dl::cp_async_wait<0>();
}

// Hands the sums on, 16 rows of every warp at a time, through shared memory: whole rows are stored together.
template <class Tile, class Out>
DL_DEVICE void finish_mma(const Product& p, const Share& s, const Out& out, float* partial, float* shared,
                          const float (&sum)[Tile::kDown][Tile::kAcross][4]) {
  constexpr int kStride = Tile::kN + 8;
  static_assert(32 * kStride * 4 <= Tile::kBytes, "16 rows a warp fit the stages");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* const to = shared + (warp / 2 * 16 + lane / 4) * kStride + warp % 2 * Tile::kWarpN + lane % 4 * 2;
  DL_ROLLED
  for (int piece = 0; piece < Tile::kDown; ++piece) {
    __syncthreads();
    DL_UNROLL
    for (int i = 0; i < Tile::kDown; ++i) {
      if (i != piece) continue;
      DL_UNROLL
      for (int j = 0; j < Tile::kAcross; ++j) {
        DL_UNROLL
        for (int half = 0; half < 2; ++half) {
          Vec<float, 2> v;
          v.at[0] = sum[i][j][2 * half], v.at[1] = sum[i][j][2 * half + 1];
          *reinterpret_cast<Vec<float, 2>*>(to + j * 8 + half * 8 * kStride) = v;
        }
      }
    }
    __syncthreads();
    emit_rows<Tile::kThreads, 32, Tile::kN, kStride>(
        p, s, out, partial, shared, [=](int own) { return own / 16 * Tile::kWarpM + piece * 16 + own % 16; });
  }
}
