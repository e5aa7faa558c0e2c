// Convolutions on tensor cores whose blocks bring each pixel to shared memory once for all taps (conv_patch.cu).
//
// The windows of a box of output pixels see a patch of the image. Slab by slab of channels it lies in shared memory as
// four planes: in plane i, pixel by pixel, the i-th 16 bytes of the slab. Eight neighbouring pixels are so in different
// banks, and a tap moves all of them by the same number of bytes. Images are read as they are, channel by channel: a
// warp brings one plane, 32 pixels at a time, and has another 32 under way while the tensor cores take a tap.
#pragma once
#include "conv.cuh"
#include "gemm_mma.cuh"

struct Patches {
  Product product;    // columns are pixels of boxes, a tile's width of each; k's are slabs of channels, then taps
  Divisor boxes[3];   // how many lie along the axes
  Divisor box[3];     // output pixels of one
  Divisor patch[3];   // pixels of the image that it sees
  Divisor kernel[3];  // taps
  int images[2];      // of a box; in all
  int tile;           // columns of a tile: a power of two
  int columns;        // pixels of a box, of all its images: as many at most
  int rounds;         // times 32 pixels of a patch
  int share;          // how many of them a tap brings at most
  int taps, channels;
  int stride[3], dilation[3], start[3];
  int limit[3];  // sizes of the image
  int x[4];      // elements from an image to the next, along the axes
  int plane;     // bytes from a channel to the next
  int out[3];    // sizes of the result
  int c[5];      // elements from an image to the next, along the axes; where the first pixel lies
};

struct Digits4 {
  int at[4];
};

DL_DEVICE Digits4 digits_of(unsigned number, const Divisor (&last)[3]) {
  Digits4 d;
  DL_UNROLL
  for (int i = 2; i >= 0; --i) {
    const unsigned rest = quotient(number, last[i]);
    d.at[i + 1] = int(number - rest * last[i].size);
    number = rest;
  }
  d.at[0] = int(number);
  return d;
}

// The first pixel of a box: image and coordinates.
DL_DEVICE Digits4 box_of(const Patches& v, unsigned number) {
  Digits4 box = digits_of(number, v.boxes);
  box.at[0] *= v.images[0];
  DL_UNROLL
  for (int i = 0; i < 3; ++i) box.at[i + 1] *= int(v.box[i].size);
  return box;
}

// Number in its patch of the pixel at `at`, from the patch's first pixel on.
DL_DEVICE int pixel_of(const Patches& v, const Digits4& at) {
  int pixel = at.at[0];
  DL_UNROLL
  for (int i = 0; i < 3; ++i) pixel = pixel * int(v.patch[i].size) + at.at[i + 1];
  return pixel;
}

// For the pixels of a patch that lie in the image their element, or -1, behind one another; whole rounds.
template <int THREADS>
DL_DEVICE void tabulate_patch(const Patches& v, const Digits4& box, int* elements) {
  DL_ROLLED
  for (int i = threadIdx.x; i < 32 * v.rounds; i += THREADS) {
    const Digits4 in_patch = digits_of(i, v.patch);
    const int image = box.at[0] + in_patch.at[0];
    int element = image * v.x[0];
    bool inside = in_patch.at[0] < v.images[0] && image < v.images[1];
    DL_UNROLL
    for (int axis = 0; axis < 3; ++axis) {
      const int at = box.at[axis + 1] * v.stride[axis] + v.start[axis] + in_patch.at[axis + 1];
      inside = inside && at >= 0 && at < v.limit[axis];
      element += at * v.x[axis + 1];
    }
    elements[i] = inside ? element : -1;
  }
}

// Bytes that a tap moves addresses by.
DL_DEVICE int shift_of(const Patches& v, int tap) {
  Digits4 at = digits_of(tap, v.kernel);
  DL_UNROLL
  for (int axis = 0; axis < 3; ++axis) at.at[axis + 1] *= v.dilation[axis];
  return 16 * pixel_of(v, at);
}

// Bytes to the pixel that the first tap of a box's pixel sees.
DL_DEVICE int seen_by(const Patches& v, int pixel) {
  Digits4 at = digits_of(pixel, v.box);
  DL_UNROLL
  for (int axis = 0; axis < 3; ++axis) at.at[axis + 1] *= v.stride[axis];
  return 16 * pixel_of(v, at);
}

// Two patches, of which one is read, step by step, while the other is brought, a share in each step.
template <class Tile>
struct TwoPatches {
  using T = typename Tile::Element;
  static constexpr int kChunk = Tile::kChunk;
  static_assert(Tile::kThreads == 128, "a warp for each plane");
  const Patches& v;
  char* const patches;
  const int* elements;  // of the patch that is brought
  const T* x;           // the first channel that this warp brings
  int left;             // channels from it on
  int step;             // of the patch that is read
  int current;          // bytes to that patch
  int round;            // which 32 pixels of the other come next
  int own;              // bytes to this thread's first chunk
  T next[kChunk];       // a pixel's chunk under way
  unsigned came;        // a mask of its bits: zero for what is outside

  DL_DEVICE TwoPatches(const Patches& v, char* patches, const int* elements, const T* x, int channel, int left,
                       int step)
      : v(v),
        patches(patches),
        elements(elements),
        x(x),
        left(left - channel - warp() * kChunk),
        step(step),
        current(0),
        own(16 * (32 * warp() * v.rounds + lane())),
        next() {
    skip(channel + warp() * kChunk);
    DL_ROLLED
    for (round = 0; round < v.rounds; ++round) load(), keep(0);
    round = 0;
  }
  DL_DEVICE static int lane() { return threadIdx.x % 32; }
  DL_DEVICE static int warp() { return threadIdx.x / 32; }
  DL_DEVICE int plane() const { return 16 * 32 * v.rounds; }
  DL_DEVICE int other() const { return 4 * plane() - current; }
  DL_DEVICE void skip(int channels) {
    x = reinterpret_cast<const T*>(reinterpret_cast<const char*>(x) + (long long)v.plane * channels);
  }

  DL_DEVICE void load() {
    const int element = round < v.rounds ? elements[32 * round + lane()] : -1;
    const char* from = reinterpret_cast<const char*>(x + element);
    came = element >= 0 && left > 0 ? ~0u : 0u;
    DL_UNROLL
    for (int i = 0; i < kChunk; ++i)
      if (came) next[i] = *reinterpret_cast<const T*>(from + (long long)v.plane * i);
  }
  DL_DEVICE void keep(int patch) const {
    Vec<T, kChunk> chunk;
    DL_UNROLL
    for (int i = 0; i < kChunk; ++i) chunk.at[i] = next[i];
    uint4 bits = *reinterpret_cast<const uint4*>(&chunk);
    bits.x &= came, bits.y &= came, bits.z &= came, bits.w &= came;
    *reinterpret_cast<uint4*>(patches + (patch + own) + 512 * round) = bits;
  }
  // A step's share, of which the last pixels are left under way.
  DL_DEVICE void bring() {
    DL_ROLLED
    while (true) {
      load();
      if (round + 1 >= (step + 1) * v.share) break;
      finish_step();
    }
  }
  // Before the barrier after which the next step is read: what came meanwhile.
  DL_DEVICE void finish_step() {
    if (round < v.rounds) keep(other());
    ++round;
  }
  // After it: whether the other patch is read now, and yet another to be brought.
  DL_DEVICE bool turn(int steps) {
    ++step;
    if (step < steps) return false;
    step = round = 0;
    current = other();
    return true;
  }
};

// Lines are filters w[line][tap][channel]; k's as of Patches.
template <class Tile>
struct MmaFilters {
  using T = typename Tile::Element;
  static constexpr bool kByLine = true;
  static constexpr int kCopies = Tile::kM * 4 / Tile::kThreads, kStep = Tile::kThreads / 4;
  const Patches& v;
  const T* w;
  int lines;  // how many there are from this thread's first one on
  int tap, channel;

  DL_DEVICE MmaFilters(const T* w, const Patches& v, int line, int slab, int tap)
      : v(v), lines(v.product.m - line - int(threadIdx.x) / 4), tap(tap) {
    channel = slab * Tile::kSlab + threadIdx.x % 4 * Tile::kChunk;
    this->w = w + (long long)(line + threadIdx.x / 4) * v.product.lda + tap * v.channels + channel;
  }
  DL_DEVICE void fetch(T* slab, int left) {
    T* to = slab + chunk_in_line<Tile>(threadIdx.x / 4, threadIdx.x % 4);
    const int here = left > 0 && channel < v.channels ? lines : 0;
    const long long step = kStep * (long long)v.product.lda;
    DL_UNROLL
    for (int i = 0; i < kCopies; ++i) dl::cp_async<16>(to + i * kStep * Tile::kSlab, w + i * step, i * kStep < here);
    w += v.channels;
    if (++tap == v.taps) tap = 0, channel += Tile::kSlab, w += Tile::kSlab - v.taps * v.channels;
  }
};

// Columns are the pixels of a box; k's as of Patches: a step is a tap.
template <class Tile>
struct PatchPixels : TwoPatches<Tile> {
  using Base = TwoPatches<Tile>;
  using Base::current, Base::v;
  using typename Base::T;
  static constexpr int kPairs = Tile::kAcross / 2, kWarpsAcross = Tile::kWarpsAcross;
  const int* shifts;   // for each tap
  int shift;           // bytes to the tap that is read
  int column[kPairs];  // bytes to the pixels whose chunks this lane gives to ldmatrix

  // end: slabs and taps of all slabs that the block adds up
  DL_DEVICE PatchPixels(const T* x, const Patches& v, char* patches, const int* elements, int slab, int tap, int end)
      : Base(v, patches, elements, x, slab * Tile::kSlab,
             least(v.channels, rounded_up(end, most(v.taps, 1)) * Tile::kSlab), tap),
        shifts(elements + 32 * v.rounds) {
    const int lane = Base::lane(), first = 16 * (Base::warp() % kWarpsAcross) + lane % 8 + 8 * (lane >> 4);
    DL_UNROLL
    for (int i = 0; i < kPairs; ++i)
      column[i] = seen_by(v, least(first + 16 * kWarpsAcross * i, v.columns - 1)) + (lane >> 3 & 1) * Base::plane();
    next_slab();
    this->bring();
    shift = tap < v.taps ? shifts[tap] : 0;
  }
  DL_DEVICE void next_slab() {
    this->skip(Tile::kSlab);
    this->left -= Tile::kSlab;
  }
  DL_DEVICE void next_step() {
    if (this->turn(v.taps)) next_slab();
    shift = current + shifts[this->step];
    this->bring();
  }
  DL_DEVICE void read(int half, int i, unsigned (&fragment)[4]) const {
    dl::ldmatrix<4>(fragment, this->patches + (shift + half * 2 * Base::plane()) + column[i]);
  }
};
template <class Tile>
constexpr bool kInPatch<PatchPixels<Tile>> = true;

// C in images: a column is a pixel of a box, a row a channel; bias by channel.
template <class T>
struct Boxes {
  using Element = T;
  T* c;
  const T* bias;
  unsigned ld;
  const Patches& v;
  Digits4 box;
  DL_DEVICE Boxes(const Patches& v, const Digits4& box, int batch, T* c, const T* bias)
      : c(c + v.c[4] + batch_offset(v.product, batch, v.product.c_batch)),
        bias(bias ? bias + (long long)batch * v.product.m : nullptr),
        ld(v.product.ldc),
        v(v),
        box(box) {}
  DL_DEVICE bool has(int column) const {
    const Digits4 pixel = digits_of((column & v.tile - 1), v.box);
    bool inside = (column & v.tile - 1) < v.columns && box.at[0] + pixel.at[0] < v.images[1];
    DL_UNROLL
    for (int i = 0; i < 3; ++i) inside = inside && box.at[i + 1] + pixel.at[i + 1] < v.out[i];
    return inside;
  }
  DL_DEVICE T* at(int row, int column) const {
    const Digits4 pixel = digits_of((column & v.tile - 1), v.box);
    int offset = 0;
    DL_UNROLL
    for (int i = 0; i < 4; ++i) offset += (box.at[i] + pixel.at[i]) * v.c[i];
    return c + (long long)row * ld + offset;
  }
  DL_DEVICE wide<T> bias_of(int row, int) const { return bias ? widen(bias[row]) : wide<T>(0); }
};
