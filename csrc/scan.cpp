// States are double for floats, so that only the results are rounded. Four rows go together, whose chains of additions
// do not wait for each other; a long row is cut into pieces by its length alone, so that the bits do not depend on the
// number of threads.
#include "scan.h"

#include <algorithm>
#include <type_traits>
#include <vector>

namespace dlcore {
namespace {

constexpr Index kTogether = 4;     // rows
constexpr Index kColumns = 256;    // columns whose states a unit holds
constexpr Index kPiece = 1 << 14;  // elements of a row that is cut
constexpr Index kFewRows = 8;      // up to which long rows are cut
constexpr Index kChunk = 32768;    // elements worth a unit

struct Sum {
  static constexpr bool kFactor = false;
  static constexpr int first = 0;
  template <class S>
  static S next(S state, S, S x) {
    return state + x;
  }
};
struct Product {
  static constexpr bool kFactor = false;
  static constexpr int first = 1;
  template <class S>
  static S next(S state, S, S x) {
    return state * x;
  }
};
struct Linear {
  static constexpr bool kFactor = true;
  static constexpr int first = 0;
  template <class S>
  static S next(S state, S a, S x) {
    return a * state + x;
  }
};

template <class T>
constexpr bool kFloat = std::is_floating_point_v<T>;

template <class T, class F>
class Scanner {
  using S = std::conditional_t<kFloat<T>, double, unsigned long long>;  // of whole numbers, which wrap around

  // Elements that are scanned from a state of their own: a row, or a piece of one.
  struct Line {
    Index first, size;
  };

 public:
  explicit Scanner(const Scan& s)
      : s_(s),
        a_(static_cast<const T*>(s.a)),
        x_(static_cast<const T*>(s.x)),
        y_(static_cast<T*>(s.y)),
        most_(s.outer <= kFewRows && s.length > kPiece ? kPiece : s.length),
        pieces_((s.length + most_ - 1) / most_) {}

  void run() const {
    if (s_.inner > 1) return by_columns();
    std::vector<S> states(std::size_t(s_.outer * pieces_), S(F::first));
    if (pieces_ > 1) find_states(states);
    each_group(
        [&](Index k, const Line* lines, int count) { advance_all<true>(lines, count, &states[std::size_t(k)]); });
  }

 private:
  Line line(Index k) const {
    const Index row = k / pieces_, done = k % pieces_ * most_;
    return {row * s_.length + (s_.reverse ? s_.length - 1 - done : done), std::min(most_, s_.length - done)};
  }

  // f(number of the first, lines, how many) of all lines, kTogether of one size at a time or one.
  template <class G>
  void each_group(const G& f) const {
    const Index all = s_.outer * pieces_;
    parallel_for(0, (all + kTogether - 1) / kTogether, 1 + kChunk / (kTogether * most_), [&](Index begin, Index end) {
      for (Index k = begin * kTogether; k < std::min(all, end * kTogether); k += kTogether) {
        Line lines[kTogether];
        const int count = int(std::min<Index>(kTogether, all - k));
        for (int u = 0; u < count; ++u) lines[u] = line(k + u);
        const auto alike = [&](const Line& x) { return x.size == lines[0].size; };
        if (count == kTogether && std::all_of(lines, lines + count, alike)) f(k, lines, count);
        else
          for (int u = 0; u < count; ++u) f(k + u, lines + u, 1);
      }
    });
  }

  // Takes N lines of one size in, from the states before to those after.
  template <int N, bool Store>
  void advance(const Line* lines, S* states) const {
    S own[N];
    std::copy(states, states + N, own);
    const Index step = s_.reverse ? -1 : 1;
    for (Index t = 0; t < lines[0].size; ++t)
      for (int u = 0; u < N; ++u) {
        const Index i = lines[u].first + t * step;
        own[u] = next(own[u], i);
        if constexpr (Store) y_[i] = T(own[u]);
      }
    std::copy(own, own + N, states);
  }

  template <bool Store>
  void advance_all(const Line* lines, int count, S* states) const {
    count == kTogether ? advance<kTogether, Store>(lines, states) : advance<1, Store>(lines, states);
  }

  S next(S state, Index i) const { return F::next(state, F::kFactor ? S(a_[i]) : S(1), S(x_[i])); }

  // The states before all pieces, from what each piece makes of the first one: factor * state + x for linear ones.
  void find_states(std::vector<S>& states) const {
    std::vector<S> factors(states.size(), S(1));
    each_group([&](Index k, const Line* lines, int count) {
      advance_all<false>(lines, count, &states[std::size_t(k)]);
      for (int u = 0; F::kFactor && u < count; ++u)
        for (Index t = 0; t < lines[u].size; ++t)
          factors[std::size_t(k + u)] *= S(a_[lines[u].first + (s_.reverse ? -t : t)]);
    });
    for (Index row = 0; row < s_.outer; ++row) {
      S state = F::first;
      for (Index k = row * pieces_; k < (row + 1) * pieces_; ++k) {
        const S made = states[std::size_t(k)];
        states[std::size_t(k)] = state;
        state = F::next(state, factors[std::size_t(k)], made);
      }
    }
  }

  // Memory is read along the rows of columns.
  void by_columns() const {
    const Index blocks = (s_.inner + kColumns - 1) / kColumns, per_unit = s_.length * std::min(s_.inner, kColumns);
    parallel_for(0, s_.outer * blocks, 1 + kChunk / (per_unit + 1), [&](Index begin, Index end) {
      for (Index unit = begin; unit < end; ++unit) {
        const Index j0 = unit % blocks * kColumns, n = std::min(kColumns, s_.inner - j0);
        S states[kColumns];
        std::fill(states, states + n, S(F::first));
        for (Index t = 0; t < s_.length; ++t) {
          const Index row = unit / blocks * s_.length + (s_.reverse ? s_.length - 1 - t : t), i = row * s_.inner + j0;
          for (Index j = 0; j < n; ++j) y_[i + j] = T(states[j] = next(states[j], i + j));
        }
      }
    });
  }

  const Scan& s_;
  const T* __restrict const a_;
  const T* __restrict const x_;
  T* __restrict const y_;
  const Index most_, pieces_;
};

template <class T>
void of_type(const Scan& s) {
  switch (s.kind) {
    case Running::sum:
      return Scanner<T, Sum>(s).run();
    case Running::product:
      return Scanner<T, Product>(s).run();
    case Running::linear:
      if constexpr (kFloat<T>) Scanner<T, Linear>(s).run();
  }
}

}  // namespace

void scan(const Scan& s) {
  if (s.outer * s.length * s.inner == 0) return;
  switch (s.type) {
    case ScanType::f32:
      return of_type<float>(s);
    case ScanType::f64:
      return of_type<double>(s);
    case ScanType::i64:
      return of_type<long long>(s);
  }
}

}  // namespace dlcore
