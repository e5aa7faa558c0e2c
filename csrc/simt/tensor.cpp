// ldmatrix and mma.sync. Layout of the fragments: PTX ISA, "Warp-level Matrix Instructions".
#include <string.h>

#include "check.h"
#include "warp.h"

namespace simt {

namespace {

template <class Operands>
Operands& operands(const Meeting& meeting, int lane) {
  return *static_cast<Operands*>(meeting.operands[lane]);
}

float bits_to_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

struct Bf16 {
  static constexpr int kDepth = 16;
  static float low(uint32_t pair) { return bits_to_float(pair << 16); }
  static float high(uint32_t pair) { return bits_to_float(pair & 0xffff0000u); }
};

struct F16 {
  static constexpr int kDepth = 16;
  static float low(uint32_t pair) {
    auto bits = static_cast<uint16_t>(pair);
    _Float16 x;
    memcpy(&x, &bits, sizeof x);
    return static_cast<float>(x);
  }
  static float high(uint32_t pair) { return low(pair >> 16); }
};

struct Tf32 {
  static constexpr int kDepth = 8;
  static float value(uint32_t bits) { return bits_to_float(bits & ~0x1fffu); }
};

template <int depth>
struct Tiles {
  typedef float Row __attribute__((vector_size(32)));
  float a[16][depth];
  Row b[depth], c[16];

  // The products are exact in float; they are added to c one after the other, k ascending.
  void multiply() {
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < depth; ++k) c[i] += a[i][k] * b[k];
  }
};

template <class Type>
void gather(const Meeting& meeting, Tiles<16>& tiles) {
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4 * 2;
    const Mma& m = operands<Mma>(meeting, lane);
    auto put_a = [&](int row, int column, uint32_t pair) {
      tiles.a[row][column] = Type::low(pair), tiles.a[row][column + 1] = Type::high(pair);
    };
    put_a(g, t, m.a.x), put_a(g + 8, t, m.a.y), put_a(g, t + 8, m.a.z), put_a(g + 8, t + 8, m.a.w);
    tiles.b[t][g] = Type::low(m.b.x), tiles.b[t + 1][g] = Type::high(m.b.x);
    tiles.b[t + 8][g] = Type::low(m.b.y), tiles.b[t + 9][g] = Type::high(m.b.y);
  }
}

template <class Type>
void gather(const Meeting& meeting, Tiles<8>& tiles) {
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4;
    const Mma& m = operands<Mma>(meeting, lane);
    tiles.a[g][t] = Type::value(m.a.x), tiles.a[g + 8][t] = Type::value(m.a.y);
    tiles.a[g][t + 4] = Type::value(m.a.z), tiles.a[g + 8][t + 4] = Type::value(m.a.w);
    tiles.b[t][g] = Type::value(m.b.x), tiles.b[t + 4][g] = Type::value(m.b.y);
  }
}

template <class Type>
void complete_mma(Meeting& meeting) {
  Tiles<Type::kDepth> tiles;
  gather<Type>(meeting, tiles);
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4 * 2;
    const float4& c = operands<Mma>(meeting, lane).c;
    tiles.c[g][t] = c.x, tiles.c[g][t + 1] = c.y, tiles.c[g + 8][t] = c.z, tiles.c[g + 8][t + 1] = c.w;
  }
  tiles.multiply();
  for (int lane = 0; lane < 32; ++lane) {
    int g = lane / 4, t = lane % 4 * 2;
    operands<Mma>(meeting, lane).c = {tiles.c[g][t], tiles.c[g][t + 1], tiles.c[g + 8][t], tiles.c[g + 8][t + 1]};
  }
}

}  // namespace

void complete_mma_tf32(Warp&, Meeting& meeting) { complete_mma<Tf32>(meeting); }
void complete_mma_bf16(Warp&, Meeting& meeting) { complete_mma<Bf16>(meeting); }
void complete_mma_f16(Warp&, Meeting& meeting) { complete_mma<F16>(meeting); }

void complete_ldmatrix(Warp&, Meeting& meeting) {
  for (int j = 0; j < operands<Ldmatrix>(meeting, 0).matrices; ++j) {
    uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) memcpy(matrix[row], operands<Ldmatrix>(meeting, j * 8 + row).row, 16);
    for (int lane = 0; lane < 32; ++lane) {
      Ldmatrix& own = operands<Ldmatrix>(meeting, lane);
      int i = lane / 4, k = lane % 4 * 2;
      uint16_t low = own.transposed ? matrix[k][i] : matrix[i][k],
               high = own.transposed ? matrix[k + 1][i] : matrix[i][k + 1];
      own.fragment[j] = static_cast<unsigned>(high) << 16 | low;
    }
  }
}

}  // namespace simt

using namespace simt;

uint4 simt_ldmatrix(const void* row, int matrices, int transposed, int line) {
  Ldmatrix own{static_cast<const char*>(row), matrices, transposed, {}};
  bool gives_address = static_cast<int>(machine.current->lane) < 8 * matrices;
  if (gives_address && reinterpret_cast<uintptr_t>(row) % 16)
    fail(Kind::alignment, SIMT_CALLER, "ldmatrix: the address %p of a row is not a multiple of 16", row);
  if (machine.checking && gives_address)
    check_access(reinterpret_cast<uintptr_t>(row), 16, kRead | kMatrixAccess, SIMT_CALLER);
  meet(~0u, kLdmatrix, line, SIMT_CALLER, &own);
  return {own.fragment[0], own.fragment[1], own.fragment[2], own.fragment[3]};
}

float4 simt_mma(int kind, uint4 a, uint2 b, float4 c, int line) {
  Mma own{a, b, c};
  meet(~0u, kMma + kind, line, SIMT_CALLER, &own);
  return own.c;
}
