// The loop of a product by tensor cores: f16 and bf16 with sums in f32, and f32 rounded to tf32.
//
// Slabs of 64 bytes of k pass through three stages of shared memory, filled by cp.async two slabs ahead. An operand
// lies there as it lies in global memory: line by line where k is contiguous, else k by k. Its 16-byte chunks are
// permuted by XOR, so that the eight rows of a matrix that ldmatrix loads lie in different banks. The warps form a
// grid; each owns every kWarpsDown-th 16 rows and every kWarpsAcross-th 16 columns of the tile, so that where it reads
// k by k, few addresses differ in the permuted bits.
#pragma once
#include "gemm.cuh"

template <class T, int M, int N, int WARP = (M < 128 ? 32 : 64)>
struct MmaTile {
  using Element = T;
  static constexpr int kM = M, kN = N, kStages = 3;
  static constexpr int kWarpsDown = M / WARP, kWarpsAcross = N / WARP, kThreads = 32 * kWarpsDown * kWarpsAcross;
  static constexpr int kBlocks = 256 / kThreads * (64 / WARP);            // that a multiprocessor's registers must hold
  static constexpr int kChunk = 16 / int(sizeof(T)), kSlab = 4 * kChunk;  // k's in 16 bytes, in a slab
  static constexpr int kDown = WARP / 16, kAcross = WARP / 8;             // 16 x 8 blocks of C that a warp owns
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
  static constexpr int kStep = Tile::kThreads / 8, kDown = Tile::kSlab / kStep;  // k's, of which 8 chunks come at once
  static constexpr int kNext = 8 * Tile::kChunk, kAcross = LINES / kNext;        // lines to a thread's next chunk
  const T* x;
  long long step;  // from a k of this thread to its next
  unsigned offset[kAcross];
  int here;  // lines from this thread's first chunk on

  DL_DEVICE MmaAlongLines(const T* x, unsigned ld, int line, int lines, int k)
      : step((long long)kStep * ld), here(lines - line - chunk() * Tile::kChunk) {
    const int last = WHOLE ? lines - Tile::kChunk : lines, first = least(line + chunk() * Tile::kChunk, last);
    this->x = x + (long long)(k + own()) * ld + first;
    DL_UNROLL
    for (int i = 0; i < kAcross; ++i) offset[i] = least(line + chunk() * Tile::kChunk + i * kNext, last) - first;
  }
  DL_DEVICE static int own() { return threadIdx.x / 8; }
  DL_DEVICE static int chunk() { return threadIdx.x % 8; }
  DL_DEVICE void fetch(T* slab, int left) {
    T* to = slab + chunk_in_k<Tile, LINES>(own(), chunk());
    DL_UNROLL
    for (int j = 0; j < kDown; ++j, x += step) {
      const bool inside = left > own() + j * kStep;
      DL_UNROLL
      for (int i = 0; i < kAcross; ++i) {
        if constexpr (WHOLE) dl::cp_async<16>(to + j * kStep * LINES + i * kNext, x + offset[i], inside);
        else copy_part(to + j * kStep * LINES + i * kNext, x + offset[i], inside ? here - i * kNext : 0);
      }
    }
  }
};

// ---- fragments: 16 lines x 32 bytes of k at a time, as four 8x8 matrices; the i-th of warp w of WARPS begins at line
// 16 (i WARPS + w)

// A's come as (lines, k): (first, first), (second, first), ...; B's as (first, first), (first, second), ...
template <class Tile, int LINES, int WARPS, bool OF_A, bool BY_LINE>
struct Fragments;

template <class Tile, int LINES, int WARPS, bool OF_A>
struct Fragments<Tile, LINES, WARPS, OF_A, true> {
  static constexpr int kBytes = sizeof(typename Tile::Element);
  int offset[2];  // in bytes, of either half of the slab
  DL_DEVICE explicit Fragments(int warp) {
    const int lane = threadIdx.x % 32, low = lane >> 3 & 1, high = lane >> 4;
    DL_UNROLL
    for (int half = 0; half < 2; ++half)
      offset[half] =
          kBytes * chunk_in_line<Tile>(16 * warp + lane % 8 + 8 * (OF_A ? low : high), 2 * half + (OF_A ? high : low));
  }
  DL_DEVICE void read(const char* slab, int half, int i, unsigned (&fragment)[4]) const {
    dl::ldmatrix<4>(fragment, slab + offset[half] + i * WARPS * 16 * Tile::kSlab * kBytes);
  }
};

template <class Tile, int LINES, int WARPS, bool OF_A>
struct Fragments<Tile, LINES, WARPS, OF_A, false> {
  static constexpr int kBytes = sizeof(typename Tile::Element);
  static constexpr int kOffsets = 4 / WARPS;  // fragments until 8 chunks have passed, which XOR does not tell apart
  int offset[kOffsets];                       // in bytes
  DL_DEVICE explicit Fragments(int warp) {
    const int lane = threadIdx.x % 32, low = lane >> 3 & 1, high = lane >> 4;
    DL_UNROLL
    for (int i = 0; i < kOffsets; ++i)
      offset[i] = kBytes * chunk_in_k<Tile, LINES>(lane % 8 + 8 * (OF_A ? high : low),
                                                   2 * (i * WARPS + warp) + (OF_A ? low : high));
  }
  DL_DEVICE void read(const char* slab, int half, int i, unsigned (&fragment)[4]) const {
    dl::ldmatrix<4, true>(fragment, slab + offset[i % kOffsets] + i / kOffsets * 128 + half * 16 * LINES * kBytes);
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

// Whether columns do not pass through the stages: their loader fills and reads a place of its own (conv_patch.cuh).
template <class B>
constexpr bool kInPatch = false;

template <class Tile, class B, bool IN_PATCH = kInPatch<B>>
struct Columns : Fragments<Tile, Tile::kN, Tile::kWarpsAcross, false, B::kByLine> {
  using Fragments<Tile, Tile::kN, Tile::kWarpsAcross, false, B::kByLine>::Fragments;
};
template <class Tile, class B>
struct Columns<Tile, B, true> {
  DL_DEVICE explicit Columns(int) {}
};

template <class Tile, class A, class B, class T>
DL_DEVICE void multiply_mma(A& a, B& b, int left, T* shared, float (&sum)[Tile::kDown][Tile::kAcross][4]) {
  constexpr int kStages = Tile::kStages;
  constexpr int kWarpsDown = Tile::kWarpsDown, kWarpsAcross = Tile::kWarpsAcross;
  const int warp = threadIdx.x / 32;
  const Fragments<Tile, Tile::kM, kWarpsDown, true, A::kByLine> of_a(warp / kWarpsAcross);
  const Columns<Tile, B> of_b(warp % kWarpsAcross);
  constexpr int kSizeA = Tile::kSizeA * int(sizeof(T)), kSizeB = kInPatch<B> ? 0 : Tile::kSizeB * int(sizeof(T));
  constexpr int kStage = kSizeA + kSizeB, kEnd = kStages * kStage;
  char* const base = reinterpret_cast<char*>(shared);
  auto fetch = [&](int stage) {  // stages by their first byte
    a.fetch(reinterpret_cast<T*>(base + stage), left);
    if constexpr (!kInPatch<B>) b.fetch(reinterpret_cast<T*>(base + stage + kSizeA), left);
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
      if constexpr (kInPatch<B>) b.read(half, j, two);
      else of_b.read(base + stage + kSizeA, half, j, two);
      round_fragment<T>(two);
      columns[half][2 * j][0] = two[0], columns[half][2 * j][1] = two[1];
      columns[half][2 * j + 1][0] = two[2], columns[half][2 * j + 1][1] = two[3];
    }
  };
  read(0, 0);
  int current = 0, freed = kEnd - kStage;  // the stage in use, and the one that was before it
  DL_ROLLED
  while (left > (1 - kStages) * Tile::kSlab) {
    DL_UNROLL
    for (int half = 0; half < 2; ++half) {
      if (half == 1) {
        if constexpr (kInPatch<B>) b.finish_step();
        dl::cp_async_wait<kStages - 2>();
        __syncthreads();
        freed = current;
        current = current + kStage == kEnd ? 0 : current + kStage;
        if constexpr (kInPatch<B>) b.next_step();
      }
      read(current, 1 - half);
      if (half == 0) fetch(freed);
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
  constexpr int kStride = Tile::kN + 8, kRows = 16 * Tile::kWarpsDown, kWarpsAcross = Tile::kWarpsAcross;
  static_assert(kRows * kStride * 4 <= Tile::kBytes, "16 rows a warp fit the stages");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* const to = shared + (warp / kWarpsAcross * 16 + lane / 4) * kStride + warp % kWarpsAcross * 16 + lane % 4 * 2;
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
          *reinterpret_cast<Vec<float, 2>*>(to + j / 2 * 16 * kWarpsAcross + j % 2 * 8 + half * 8 * kStride) = v;
        }
      }
    }
    __syncthreads();
    emit_rows<Tile::kThreads, kRows, Tile::kN, kStride>(p, s, out, partial, shared,
                                                        [=](int own) { return piece * kRows + own; });
  }
}
