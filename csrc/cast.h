// Numbers of contiguous arrays in another type. All casts are from or to float32.
#pragma once
#include <cstddef>
#include <cstdint>

// X(name, from, to)
#define DL_CASTS(X)               \
  X(f16_to_f32, Half, float)      \
  X(bf16_to_f32, Brain, float)    \
  X(f64_to_f32, double, float)    \
  X(i64_to_f32, long long, float) \
  X(i32_to_f32, int, float)       \
  X(u8_to_f32, Byte, float)       \
  X(f32_to_f16, float, Half)      \
  X(f32_to_bf16, float, Brain)    \
  X(f32_to_f64, float, double)

namespace dlcore {

using Byte = unsigned char;
enum class Half : std::uint16_t {};   // the bits of an IEEE binary16
enum class Brain : std::uint16_t {};  // and of a bfloat16

using Cast = void (*)(std::ptrdiff_t n, const void* from, void* to);

struct CastKernels {
#define DL_MEMBER(name, ...) Cast name;
  DL_CASTS(DL_MEMBER)
#undef DL_MEMBER
};

}  // namespace dlcore
