// Winograd's minimal filtering of 4 results by 3 taps (Lavin and Gray, "Fast algorithms for convolutional neural
// networks", CVPR 2016): At (G g * Bt d) are the sums d[i] g[0] + d[i+1] g[1] + d[i+2] g[2]. In two dimensions the
// transforms go over rows and columns: 36 multiplications for 144.
//
// It is interpolation at 0, a, -a, b, -b and infinity. With 1 and 2 for a and b, which are usual as they need fewer
// operations, errors are two to four times as large (on the choice: Barabasz et al., "Error analysis and improving the
// accuracy of Winograd convolution for deep neural networks", ACM TOMS 46(4), 2020).
#pragma once
#include "simd.h"

namespace dlcore {
namespace DL_ISA {

inline constexpr int kTile = 4, kPatch = 6, kPoints = kPatch * kPatch;

// The transforms, of vectors that are `from` apart to vectors that are `to` apart.
template <class T>
struct Winograd {
  using V = vec<T>;
  static constexpr T a = T(0.625), b = T(1.5), a2 = a * a, b2 = b * b;
  static constexpr T g0 = 1 / (a2 * b2), ga = 1 / (2 * a2 * (a2 - b2)), gb = 1 / (2 * b2 * (b2 - a2));  // of rows of G

  // Bt d, 6 elements of the source.
  static DL_INLINE void source(const V* d, int from, V* out, int to) {
    const V d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from];
    const V even_a = plus(d4, -b2, d2), odd_a = plus(d3, -b2, d1);
    const V even_b = plus(d4, -a2, d2), odd_b = plus(d3, -a2, d1);
    out[0] = plus(even_a, -a2, plus(d2, -b2, d[0]));
    out[5 * to] = plus(plus(d[5 * from], -b2, d3), -a2, odd_a);
    both(even_a, a, odd_a, out + to, to), both(even_b, b, odd_b, out + 3 * to, to);
  }

  // G g, 3 weights.
  static DL_INLINE void weights(const V* g, int from, V* out, int to) {
    const V x = g[0], y = g[from], z = g[2 * from];
    out[0] = x * broadcast(g0);
    out[5 * to] = z;
    both(plus(x, a2, z) * broadcast(ga), a * ga, y, out + to, to);
    both(plus(x, b2, z) * broadcast(gb), b * gb, y, out + 3 * to, to);
  }

  // At m, 6 sums of products, to 4 results.
  static DL_INLINE void results(const V* m, int from, V* out, int to) {
    const V even_a = m[from] + m[2 * from], odd_a = (m[from] - m[2 * from]) * broadcast(a);
    const V even_b = m[3 * from] + m[4 * from], odd_b = (m[3 * from] - m[4 * from]) * broadcast(b);
    out[0] = m[0] + even_a + even_b;
    out[to] = odd_a + odd_b;
    out[2 * to] = plus(even_a * broadcast(a2), b2, even_b);
    out[3 * to] = plus(plus(m[5 * from], a2, odd_a), b2, odd_b);
  }

  // A dy, 4 elements of the gradient of results.
  static DL_INLINE void results_gradient(const V* dy, int from, V* out, int to) {
    const V x = dy[0], y = dy[from], z = dy[2 * from], w = dy[3 * from];
    out[0] = x;
    out[5 * to] = w;
    both(plus(x, a2, z), a, plus(y, a2, w), out + to, to), both(plus(x, b2, z), b, plus(y, b2, w), out + 3 * to, to);
  }

  // Gt s, 6 sums of products, to the gradient of 3 weights.
  static DL_INLINE void weights_gradient(const V* s, int from, V* out, int to) {
    const V even_a = (s[from] + s[2 * from]) * broadcast(ga), odd_a = s[from] - s[2 * from];
    const V even_b = (s[3 * from] + s[4 * from]) * broadcast(gb), odd_b = s[3 * from] - s[4 * from];
    out[0] = plus(even_a + even_b, g0, s[0]);
    out[to] = plus(odd_a * broadcast(a * ga), b * gb, odd_b);
    out[2 * to] = plus(plus(s[5 * from], a2, even_a), b2, even_b);
  }

 private:
  static DL_INLINE V plus(V x, T k, V y) { return fma(broadcast(k), y, x); }
  static DL_INLINE void both(V x, T k, V y, V* out, int to) { out[0] = plus(x, k, y), out[to] = plus(x, -k, y); }
};

}  // namespace DL_ISA
}  // namespace dlcore
