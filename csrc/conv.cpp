#include "conv_pass.h"
#include "isa.h"

namespace dlcore {
namespace DL_ISA {
namespace {

constexpr Index kNear = 128 * 1024;  // results that stay in L2: others are fetched before they are written
// Of B: its panel stays in L1.
constexpr Index kTermsPerBlock = Index(30 << 10) / (kTileVectors * lanes<float> * Index(sizeof(float)));

// The channels whose terms make one block of a sum.
DL_INLINE Index channels_per_block(Index channels, Index taps) {
  const Index most = larger<Index>(1, kTermsPerBlock / larger<Index>(1, taps));
  const Index blocks = (channels + most - 1) / most;
  return (channels + blocks - 1) / blocks;
}

// The weights of a group in panels of rows, as the micro-kernels read them. For each pass, each block of channels, each
// panel: [term][row].
template <class T>
class Weights {
 public:
  DL_INLINE Weights(const Correlation<T>& p)
      : p_(p),
        panels_(p.features, kTileRows),
        size_(p.features * p.channels * p.taps()),
        scratch_(sizeof(T) * size_t(size_ * p.groups)) {}
  DL_INLINE const Panels& panels() const { return panels_; }
  DL_INLINE T* pass(Index group, const Pass& pass) const {
    return static_cast<T*>(scratch_.data()) + group * size_ + pass.first_term * p_.features;
  }

  void pack(const Passes<T>& passes, int tid, int nt) const {
    const Index jobs = p_.groups * passes.count() * panels_.count;
    for (Index job = jobs * tid / nt; job < jobs * (tid + 1) / nt; ++job) {
      const Index i = job / panels_.count % passes.count();
      pack_panel(passes, job / panels_.count / passes.count(), i, job % panels_.count);
    }
  }

 private:
  void pack_panel(const Passes<T>& passes, Index group, Index index, Index panel) const {
    const Pass& pass = passes[index];
    const Index* weight = passes.weight(pass);
    const Index rows = panels_.size(panel), m0 = panels_.begin(panel);
    const Index step = channels_per_block(p_.channels, pass.taps);
    const T* w = p_.w + group * p_.w_group + m0 * p_.w_feature;
    T* block = this->pass(group, pass);
    for (Index c0 = 0; c0 < p_.channels; c0 += step) {
      const Index channels = smaller(step, p_.channels - c0);
      const Index terms = channels * pass.taps;
      T* out = block + m0 * terms;
      if (pass.taps == p_.taps()) {
        pack_terms(p_, w + c0 * p_.w_channel, channels, rows, out);
      } else {
        for (Index c = c0; c < c0 + channels; ++c)
          for (Index t = 0; t < pass.taps; ++t, out += rows)
            for (Index m = 0; m < rows; ++m) out[m] = w[m * p_.w_feature + c * p_.w_channel + weight[t]];
      }
      block += terms * p_.features;
    }
  }

  const Correlation<T>& p_;
  const Panels panels_;
  const Index size_;
  const Scratch scratch_;
};

// Working memory of one thread.
template <class T>
struct Space {
  static constexpr Index kRoom = kPanelPixels<T>;
  T *panel, *planes, *results;  // the panel is aligned to vectors
  static DL_INLINE Index panel_size(const Correlation<T>& p) { return (kTermsPerBlock + p.taps() + 1) * kRoom; }
  static DL_INLINE Index planes_size(const Division<T>& d) { return d.image * d.images + kRoom; }
  static DL_INLINE Index size(const Correlation<T>& p, const Division<T>& d) {
    return panel_size(p) + (planes_size(d) + d.results * d.images + kRoom - 1) / kRoom * kRoom;
  }
  DL_INLINE Space(T* memory, const Correlation<T>& p, const Division<T>& d)
      : panel(memory), planes(panel + panel_size(p)), results(planes + planes_size(d)) {}
};

// Everything that the threads share while they make a correlation.
template <class T>
struct Job {
  const Correlation<T>& p;
  const Division<T>& d;
  const Passes<T>& passes;
  const Weights<T>& weights;
  bool far;  // results are too large for L2
};

template <class T>
constexpr ConvMicro<T> micro = make_conv_micro<T>();

// Where the vectors of a panel's pixels go, for feature 0; whole: they do so as vectors.
template <class T>
struct Goal {
  T* at[kTileVectors];
  bool whole;
};

// All features of the pixels of one panel; `tile`, which it changes, is complete but for a, c and bias, which are those
// of feature 0. No struct is copied on the way: a load of several fields just stored waits until every store before
// them is in the cache, results on their way to memory among them.
template <class T>
DL_INLINE void run_panel(const Panels& panels, ConvTile<T>& tile, Pixels pixels, const Goal<T>& goal, Index per_image,
                         const Target<T>& target) {
  constexpr int W = lanes<T>;
  const int vectors = (pixels.count + W - 1) / W;
  alignas(64) T buffer[kTileRows * kPanelPixels<T>];
  tile.c_step = goal.whole ? target.feature_step : kPanelPixels<T>;
  for (Index i = 0; i < panels.count; i += tile.panels) {
    const int rows = panels.size(i);
    const Index first = panels.begin(i) * target.feature_step;
    tile.panels = 1;
    while (goal.whole && i + tile.panels < panels.count && panels.size(i + tile.panels) == rows) ++tile.panels;
    if (!goal.whole && tile.add) move_tile<T, false>(buffer, rows, pixels, per_image, target, first);
    for (int v = 0; v < vectors; ++v) tile.c[v] = goal.whole ? goal.at[v] + first : buffer + v * W;
    micro<T>.run[vectors][rows](tile);
    if (!goal.whole) move_tile<T, true>(buffer, rows, pixels, per_image, target, first);
    tile.a += tile.panels * rows * tile.channels * tile.taps;
    if (tile.bias != nullptr) tile.bias += tile.panels * rows;
  }
}

// One feature of one channel: straight from the planes, no panel.
template <class T>
void run_depthwise(const Job<T>& job, const Pass& pass, const Unit& unit, const T* weights, const T* bias,
                   const T* planes, const Target<T>& target) {
  constexpr int W = lanes<T>;
  const Correlation<T>& p = job.p;
  const Index* offset = job.passes.offset(pass);
  const vec<T> start = broadcast(bias == nullptr ? T(0) : *bias);
  for (Index n = 0; n < unit.images; ++n)
    for (Index y = 0; y < smaller(unit.rows, pass.rows - unit.row); ++y) {
      const T* from = planes + n * job.d.image + y * p.xs.places;
      T* to = target.base + n * target.image_step + y * pass.cols;
      for (Index x = 0; x < pass.cols; x += W) {
        vec<T> sum = start;
        for (Index t = 0; t < pass.taps; ++t) sum = fma(broadcast(weights[t]), load(from + offset[t] + x), sum);
        if (x + W <= pass.cols) store(to + x, sum);
        else store(to + x, sum, pass.cols - x);
      }
    }
}

// The pixels of a pass, of all images of a unit, by some channels.
template <class T>
struct Block {
  const Job<T>& job;
  const Pass& pass;
  Index rows, cols, images;
  Index channels;
  const T *planes, *a, *bias;  // of the channels; the bias only with the first
  bool add;

  DL_INLINE Index per_image() const { return rows * cols; }
  DL_INLINE Index channel_step() const { return job.p.ys.planes * job.p.xs.planes * job.d.plane; }
  DL_INLINE ConvTile<T> tile(const Index* offset, Index b_step) const {
    return {channels, pass.taps, a, {}, b_step, offset, {}, 0, bias, add, !add && job.far, 1};
  }
};

// Vectors that lie in several places are packed.
template <class T>
void run_block(const Block<T>& block, T* panel, const Target<T>& target) {
  constexpr int W = lanes<T>;
  const Job<T>& job = block.job;
  const Index pixels = block.images * block.per_image(), taps = block.pass.taps,
              *offset = job.passes.offset(block.pass);
  const Panels panels((pixels + W - 1) / W, kTileVectors);
  Walk walk(block.rows, block.cols, job.p.xs.places, job.d.image);
  for (Index i = 0; i < panels.count; ++i) {
    const Index begin = panels.begin(i) * W;
    const int vectors = panels.size(i);
    const Pixels some{begin, int(smaller<Index>(vectors * W, pixels - begin))};
    Pieces<T> pieces[kTileVectors];
    Goal<T> goal{{}, some.count == vectors * W};
    bool direct = true;
    for (int v = 0; v < vectors; ++v) {
      walk.take(smaller(W, some.count - v * W), &pieces[v]);
      direct = direct && pieces[v].count == 1;
      goal.whole = goal.whole && pieces[v].pixel + W <= block.per_image();
      goal.at[v] = target.base + pieces[v].image * target.image_step + pieces[v].pixel;
    }
    ConvTile<T> tile = block.tile(direct ? offset : job.passes.packed_offset(),
                                  direct ? block.channel_step() : taps * kPanelPixels<T>);
    for (int v = 0; v < vectors; ++v) {
      if (!direct)
        pack_patches(block.planes, block.channels, block.channel_step(), offset, taps, pieces[v], panel + v * W);
      tile.b[v] = direct ? block.planes + pieces[v].from[0] : panel + v * W;
    }
    run_panel(job.weights.panels(), tile, some, goal, block.per_image(), target);
  }
}

// The same where every row follows the one before: image by image, nothing is packed.
template <class T>
void run_joined(const Block<T>& block, const Target<T>& target) {
  constexpr int W = lanes<T>;
  const Index per_image = block.per_image();
  const Panels panels((per_image + W - 1) / W, kTileVectors);
  for (Index n = 0; n < block.images; ++n)
    for (Index i = 0; i < panels.count; ++i) {
      const Index begin = panels.begin(i) * W;
      const int vectors = panels.size(i);
      const Pixels some{n * per_image + begin, int(smaller<Index>(vectors * W, per_image - begin))};
      Goal<T> goal{{}, some.count == vectors * W};
      ConvTile<T> tile = block.tile(block.job.passes.offset(block.pass), block.channel_step());
      for (int v = 0; v < vectors; ++v) {
        goal.at[v] = target.base + n * target.image_step + begin + v * W;
        tile.b[v] = block.planes + n * block.job.d.image + begin + v * W;
      }
      run_panel(block.job.weights.panels(), tile, some, goal, per_image, target);
    }
}

template <class T>
void run_pass(const Job<T>& job, const Unit& unit, Index index, const Space<T>& space, const Target<T>& target) {
  const Correlation<T>& p = job.p;
  const Pass& pass = job.passes[index];
  const T* const weights = job.weights.pass(unit.group, pass);
  const T* const bias = p.bias == nullptr ? nullptr : p.bias + unit.group * p.features;
  if (p.channels == 1 && p.features == 1) return run_depthwise(job, pass, unit, weights, bias, space.planes, target);
  const Index step = channels_per_block(p.channels, pass.taps);
  for (Index c0 = 0; c0 < p.channels; c0 += step) {
    Block<T> block{job,
                   pass,
                   smaller(unit.rows, pass.rows - unit.row),
                   pass.cols,
                   unit.images,
                   smaller(step, p.channels - c0),
                   nullptr,
                   weights + c0 * pass.taps * p.features,
                   c0 > 0 ? nullptr : bias,
                   c0 > 0};
    block.planes = space.planes + c0 * block.channel_step();
    if (p.xs.places == pass.cols) run_joined(block, target);
    else run_block(block, space.panel, target);
  }
}

// Interleaves the grids of a unit into the results.
template <class T>
void join_grids(const Job<T>& job, const Unit& unit, const T* grids) {
  const Correlation<T>& p = job.p;
  const Index first = unit.row * p.ys.grids, last = smaller(p.ys.results, (unit.row + unit.rows) * p.ys.grids);
  for (Index n = 0; n < unit.images; ++n)
    for (Index m = 0; m < p.features; ++m) {
      T* image = p.results + (((unit.image + n) * p.groups + unit.group) * p.features + m) * p.result_image();
      for (Index y = first; y < last; ++y) {
        const Index pass = y % p.ys.grids * p.xs.grids, row = y / p.ys.grids - unit.row;
        join_row(p.xs, image + y * p.xs.results, [&](Index b) {
          return grids + n * job.d.results + ((pass + b) * p.features + m) * job.d.grid + row * p.xs.grid(b);
        });
      }
    }
}

template <class T>
void run_tail(const Correlation<T>& p, const Unit& unit) {
  const Index first = unit.row * p.ys.grids, last = smaller(p.ys.results, (unit.row + unit.rows) * p.ys.grids);
  const bool whole = last - first == p.ys.results;
  const Index count = whole ? 1 : p.features,
              size = whole ? p.features * p.result_image() : (last - first) * p.xs.results;
  for (Index n = 0; n < unit.images; ++n)
    for (Index m = 0; m < count; ++m) {
      const Index plane = ((unit.image + n) * p.groups + unit.group) * p.features + m;
      p.tail.run(p.tail.self, plane * p.result_image() + first * p.xs.results, size);
    }
}

template <class T>
void run_unit(const Job<T>& job, const Unit& unit, const Space<T>& space) {
  const Correlation<T>& p = job.p;
  for (Index n = 0; n < unit.images; ++n)
    fill_planes(p.ys, p.xs, p.source + ((unit.image + n) * p.groups + unit.group) * p.channels * p.source_image(),
                p.channels, unit.row, job.d.plane_rows, space.planes + n * job.d.image);
  for (Index i = 0; i < job.passes.count(); ++i) {
    const Pass& pass = job.passes[i];
    if (unit.row >= pass.rows || pass.cols == 0) continue;
    const Index image = p.features * p.result_image();
    const Target<T> direct{p.results + (unit.image * p.groups + unit.group) * image + unit.row * pass.cols,
                           p.groups * image, p.result_image()};
    const Target<T> grid{space.results + i * p.features * job.d.grid, job.d.results, job.d.grid};
    run_pass(job, unit, i, space, p.grids() > 1 ? grid : direct);
  }
  if (p.grids() > 1) join_grids(job, unit, space.results);
  if (p.tail.run != nullptr) run_tail(p, unit);
}

template <class T>
void correlate(const Correlation<T>& p) {
  if (p.batch * p.groups * p.features * p.result_image() == 0) return;
  const double work = double(p.batch * p.groups * p.features * p.result_image()) * double(p.channels * p.taps());
  const int width = work < kConvWorthATeam ? 1 : num_threads();
  const Division<T> d(p, width);
  const Passes<T> passes(p, d);
  const Weights<T> weights(p);
  const Index size = Space<T>::size(p, d);
  const Scratch memory(sizeof(T) * size_t(size * width));
  const Job<T> job{p, d, passes, weights, p.batch * p.groups * p.features * p.result_image() > kNear};
  Shares shares(width);
  team().run(
      [&](int tid, int nt) {
        weights.pack(passes, tid, nt);
        team().barrier();
        const Space<T> space(static_cast<T*>(memory.data()) + size * tid, p, d);
        shares.each(tid, nt, d.units, [&](Index i) { run_unit(job, unit_of(p, d, i), space); });
      },
      width);
}

// Whether each column of taps has a plane of its own: rows follow each other there, so that vectors go on from one to
// the next and nothing is packed. Many planes would not stay near; short rows are worth more of them.
template <class T>
DL_INLINE bool apart(const Correlation<T>& p) {
  constexpr Index kFewPlanes = 24;
  return p.features > 1 && p.channels * p.xs.kernel <= (p.xs.results < 2 * lanes<T> ? 2 : 1) * kFewPlanes;
}

template <class T>
void forward(const Conv2d& c, const T* x, const T* w, const T* b, T* y) {
  Correlation<T> p = forward_correlation(c, x, w, b, y);
  if (apart(p)) p.xs = axis_of_taps(c.W, c.Q, c.KW, c.stride[1], c.dilation[1], c.padding[1]);
  correlate(p);
}

template <class T>
void dx(const Conv2d& c, const T* dy, const T* w, T* dx) {
  correlate(backward_correlation(c, dy, w, dx));
}

}  // namespace

template <class T>
void conv_dw(const Conv2d& c, const T* x, const T* dy, T* dw);
void conv_winograd(const Conv2d& c, const float* x, const float* w, const float* b, float* y);
void conv_dx_winograd(const Conv2d& c, const float* dy, const float* w, float* dx);
void conv_dw_winograd(const Conv2d& c, const float* x, const float* dy, float* dw);

void fill_conv(Kernels& kernels) {
  kernels.conv = {{forward<float>, dx<float>, conv_dw<float>},
                  {forward<double>, dx<double>, conv_dw<double>},
                  {conv_winograd, conv_dx_winograd, conv_dw_winograd}};
}

}  // namespace DL_ISA
}  // namespace dlcore
