// Gradients for w of convolutions of several taps on tensor cores: f16 and bf16 with sums in f32.
//
// conv_patch_dw_<dtype>_<tile>_<2 or 8>(dy, x, null, dw, partial, gradient): rows are output channels, columns 16
//   channels of x, then taps, then further channels; k's are pixels of boxes of dy (conv_patch.cuh): steps of 32
//   pixels, then boxes, those of other images first. dy [group][image][channel][pixel] is copied 2 or 8 pixels at a
//   time, which lie side by side, as boxes' and images' rows are whole such groups; x is of any strides; images are
//   whole boxes. A tile's columns are of two groups of 16 channels at most: tiles of 128 take 8 taps or more, tiles of
//   64 take 4. dw [group][output channel][channel][tap]. Grid: tiles x splits x groups; block: 128 threads; dynamic
//   shared memory: three stages of dy, two patches of 64 bytes a pixel, two tables of 4 bytes for each pixel of a patch
//   and 8 for each of a box, and 16 bytes.
// conv_patch_dw_reduce_<dtype>(partial, null, dw, gradient): adds up splits. Grid: any; block: 256.
#include "conv_patch.cuh"

template <class T>
using Large = MmaTile<T, 128, 128>;
template <class T>
using Small = MmaTile<T, 64, 64>;

constexpr int kGroup = 16;  // channels whose taps follow each other

struct Gradient {
  Patches patches;  // c: of dy; boxes are of one image, or of as many as a box has
  Divisor blocks;   // how many of these there are
  Divisor taps;
  int steps;  // of a box
};

// What the block's threads look up. Two of each: of the boxes at a place in the image, and at the next place.
template <class Tile>
struct Places {
  const Gradient& v;
  int* elements;  // as of tabulate_patch
  int* seen;      // for each pixel of a box the bytes to what its window's first tap sees, or -1 outside of dy
  int* of_dy;     // and its element of dy, or -1
  char* zeros;

  DL_DEVICE Places(const Gradient& v, char* shared) : v(v) {
    elements = reinterpret_cast<int*>(shared);
    seen = elements + 2 * 32 * v.patches.rounds;
    of_dy = seen + 2 * 32 * v.steps;
    zeros = reinterpret_cast<char*>(of_dy + 2 * 32 * v.steps);
    if (threadIdx.x < 4) reinterpret_cast<int*>(zeros)[threadIdx.x] = 0;
  }
  DL_DEVICE int* elements_at(int place) const { return elements + place % 2 * 32 * v.patches.rounds; }
  DL_DEVICE int box_at(int place) const { return place % 2 * 32 * v.steps; }
  DL_DEVICE void fill(int place) const {
    const Patches& p = v.patches;
    const Digits4 box = box_of(p, place);  // its image is 0, or behind all of them
    tabulate_patch<Tile::kThreads>(p, box, elements_at(place));
    DL_ROLLED
    for (int i = threadIdx.x; i < 32 * v.steps; i += Tile::kThreads) {
      const Digits4 pixel = digits_of(i, p.box);
      bool inside = i < p.columns && box.at[0] == 0;
      int element = pixel.at[0] * p.c[0];
      DL_UNROLL
      for (int axis = 0; axis < 3; ++axis) {
        const int at = box.at[axis + 1] + pixel.at[axis + 1];
        inside = inside && at < p.out[axis];
        element += at * p.c[axis + 1];
      }
      seen[box_at(place) + i] = inside ? seen_by(p, i) : -1;
      of_dy[box_at(place) + i] = inside ? element : -1;
    }
  }
};

// Which box comes next: those of all images at one place, then those at the next place.
struct Walk {
  int place, block, blocks;
  DL_DEVICE Walk(const Gradient& v, int box) : place(quotient(box, v.blocks)), blocks(v.blocks.size) {
    block = box - place * blocks;
  }
  DL_DEVICE bool next() {  // whether at the next place
    ++block;
    if (block < blocks) return false;
    block = 0;
    ++place;
    return true;
  }
};

// Lines are output channels of dy, copied COPY pixels at a time.
template <class Tile, int COPY>
struct MmaBoxes {
  using T = typename Tile::Element;
  static constexpr bool kByLine = true;
  static constexpr int kPerLine = Tile::kSlab / COPY, kStep = Tile::kThreads / kPerLine, kCopies = Tile::kM / kStep;
  static_assert(kStep % 8 == 0, "a thread's lines are permuted alike");
  const Places<Tile>& places;
  const T* dy;
  int lines;  // how many there are from this thread's first one on
  int step;
  Walk box;

  DL_DEVICE MmaBoxes(const T* dy, const Places<Tile>& places, int line, int box, int step)
      : places(places), lines(product().m - line - first()), step(step), box(places.v, box) {
    this->dy = dy + (long long)(line + first()) * product().lda + this->box.block * images();
  }
  DL_DEVICE const Product& product() const { return places.v.patches.product; }
  DL_DEVICE long long images() const { return (long long)places.v.patches.images[0] * places.v.patches.c[0]; }
  DL_DEVICE static int first() { return threadIdx.x / kPerLine; }
  DL_DEVICE static int own() { return threadIdx.x % kPerLine * COPY; }
  DL_DEVICE void fetch(T* slab, int) {
    T* to = slab + chunk_in_line<Tile>(first(), own() / Tile::kChunk) + own() % Tile::kChunk;
    const int element = places.of_dy[places.box_at(box.place) + 32 * step + own()];
    const int here = element >= 0 ? lines : 0;
    const T* from = dy + most(element, 0);
    const long long ld = kStep * (long long)product().lda;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i)
      dl::cp_async<COPY* int(sizeof(T))>(to + i * kStep * Tile::kSlab, from + i * ld, i * kStep < here);
    ++step;
    if (step < places.v.steps) return;
    step = 0;
    dy += box.next() ? -(box.blocks - 1) * images() : images();
  }
};

// Columns are channels and taps of x.
template <class Tile>
struct PatchTaps : TwoPatches<Tile> {
  using Base = TwoPatches<Tile>;
  using typename Base::T;
  static constexpr int kPairs = Tile::kAcross / 2, kWarpsAcross = Tile::kWarpsAcross;
  const Places<Tile>& places;
  Walk box;            // the one that is brought
  int boxes;           // how many are to be brought yet
  int pixel[2];        // bytes to the k's whose chunks this lane gives to ldmatrix, negative for zeros; of either half
  int column[kPairs];  // bytes from there to its columns

  DL_DEVICE PatchTaps(const T* x, const Places<Tile>& places, char* patches, int first, int box, int step, int boxes)
      : Base(places.v.patches, patches, places.elements_at(Walk(places.v, box).place),
             x + Walk(places.v, box).block * images(places.v), quotient(first, places.v.taps) * kGroup,
             places.v.patches.channels, step),
        places(places),
        box(places.v, box),
        boxes(boxes) {
    const int taps = places.v.taps.size, group = quotient(first, places.v.taps), high = Base::lane() >> 4;
    DL_UNROLL
    for (int i = 0; i < kPairs; ++i) {
      const int number = first + i * kWarpsAcross + Base::warp() % kWarpsAcross, own = quotient(number, places.v.taps);
      column[i] = shift_of(Base::v, number - own * taps) + (2 * (own - group) + high) * Base::plane();
    }
    next_box();
    look_up(Walk(places.v, box).place);
    this->bring();
  }
  DL_DEVICE static long long images(const Gradient& v) { return (long long)v.patches.images[0] * v.patches.x[0]; }
  DL_DEVICE void next_box() {
    this->x += box.next() ? -(box.blocks - 1) * images(places.v) : images(places.v);
    this->elements = places.elements_at(box.place);
    --boxes;
    if (boxes <= 0) this->left = 0;
  }
  DL_DEVICE void look_up(int place) {
    DL_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int seen = places.seen[places.box_at(place) + 32 * this->step + 16 * half + Base::lane() % 16];
      pixel[half] = seen < 0 ? -1 : this->current + seen;
    }
  }
  DL_DEVICE void next_step() {
    int place = box.block > 0 ? box.place : box.place - 1;  // of what is read: the box before
    if (this->turn(places.v.steps)) {
      const bool moved = box.block == 0;
      place = box.place;
      if (moved) {
        places.fill(place + 1);
        __syncthreads();
      }
      next_box();
    }
    look_up(place);
    this->bring();
  }
  DL_DEVICE void read(int half, int i, unsigned (&fragment)[4]) const {
    const char* from = pixel[half] < 0 ? places.zeros : this->patches + pixel[half] + column[i];
    dl::ldmatrix<4, true>(fragment, from);
  }
};
template <class Tile>
constexpr bool kInPatch<PatchTaps<Tile>> = true;

// C as dw: a column is a group of channels, a tap and a channel of the group.
template <class T>
struct Filters {
  using Element = T;
  T* c;
  const Gradient& v;
  DL_DEVICE Filters(const Gradient& v, int batch, T* c)
      : c(c + batch_offset(v.patches.product, batch, v.patches.product.c_batch)), v(v) {}
  DL_DEVICE int channel_of(int column) const { return quotient(column / kGroup, v.taps) * kGroup + column % kGroup; }
  DL_DEVICE bool has(int column) const { return channel_of(column) < v.patches.channels; }
  DL_DEVICE T* at(int row, int column) const {
    const int taps = v.taps.size, group = column / kGroup;
    const int tap = group - quotient(group, v.taps) * taps;
    return c + (long long)row * v.patches.product.ldc + channel_of(column) * taps + tap;
  }
  DL_DEVICE float bias_of(int, int) const { return 0.0f; }
};

template <class Tile, int COPY, class T>
DL_DEVICE void gradient(const T* dy, const T* x, T* dw, float* partial, const Gradient& v) {
  DL_SHARED(T, shared);
  const Product& p = v.patches.product;
  const Share s = share_of<Tile::kM, Tile::kN>(p);
  char* const patches = reinterpret_cast<char*>(shared) + Tile::kStages * Tile::kSizeA * sizeof(T);
  const Places<Tile> places(v, patches + 2 * 64 * 32 * v.patches.rounds);
  const int begin = s.k_begin / Tile::kSlab, box = begin / v.steps, step = begin - box * v.steps;
  const int place = Walk(v, box).place, boxes = rounded_up(s.k_end / Tile::kSlab, v.steps) - box;
  places.fill(place);
  places.fill(place + 1);
  __syncthreads();
  MmaBoxes<Tile, COPY> load_dy(dy + batch_offset(p, s.batch, p.a_batch), places, s.row, box, step);
  PatchTaps<Tile> load_x(x + batch_offset(p, s.batch, p.b_batch), places, patches, s.column / kGroup, box, step, boxes);
  float sum[Tile::kDown][Tile::kAcross][4];
  multiply_mma<Tile>(load_dy, load_x, s.k_end - s.k_begin, shared, sum);
  finish_mma<Tile>(p, s, Filters<T>(v, s.batch, dw), partial, reinterpret_cast<float*>(shared), sum);
}

#define DL_CONV_PATCH_DW(T, Tile, COPY, suffix)                                                      \
  extern "C" __global__ void __launch_bounds__(128, 2)                                               \
      conv_patch_dw_##suffix(const T* dy, const T* x, const T*, T* dw, float* partial, Gradient v) { \
    gradient<Tile<T>, COPY>(dy, x, dw, partial, v);                                                  \
  }                                                                                                  \
  DL_EXPORT(conv_patch_dw_##suffix)
#define DL_CONV_PATCH_DWS(T, suffix)            \
  DL_CONV_PATCH_DW(T, Large, 8, suffix##_128_8) \
  DL_CONV_PATCH_DW(T, Large, 2, suffix##_128_2) \
  DL_CONV_PATCH_DW(T, Small, 8, suffix##_64_8)
DL_CONV_PATCH_DWS(__half, f16)
DL_CONV_PATCH_DWS(__nv_bfloat16, bf16)

#define DL_CONV_PATCH_DW_REDUCE(T, suffix)                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                                  \
      conv_patch_dw_reduce_##suffix(const float* partial, const T*, T* dw, Gradient v) {                             \
    reduce_splits<Filters<T>>(v.patches.product, partial, [&](int batch, int) { return Filters<T>(v, batch, dw); }); \
  }                                                                                                                  \
  DL_EXPORT(conv_patch_dw_reduce_##suffix)
DL_CONV_PATCH_DW_REDUCE(__half, f16)
DL_CONV_PATCH_DW_REDUCE(__nv_bfloat16, bf16)
