#include "chain.h"

#include <algorithm>

#include "isa.h"

namespace dlcore {
namespace {

constexpr Index kPiece = 512;
constexpr Index kMaxItem = 8;

}  // namespace

void Chain::prepare(Index itemsize, char* const* outputs) {
  itemsize_ = itemsize;
  const auto& known = kernels().elementwise;
  const Block* const blocks = itemsize == 4 ? known.f32 : known.f64;
  int next = 0;
  for (int s = 0; s < steps; ++s) {
    block_[s] = blocks[step[s].function];
    output_[s] = step[s].output ? outputs[next++] : nullptr;
  }
  first_ = outputs[0];
}

void Chain::operator()(Index n, const void* const* data, void* out) const {
  alignas(64) char buffer[kMaxSteps][kPiece * kMaxItem];
  const Index offset = static_cast<char*>(out) - first_;
  for (Index start = 0; start < n; start += kPiece) {
    const Index count = std::min(kPiece, n - start), bytes = start * itemsize_;
    const char* value[kMaxOperands + kMaxSteps];
    for (int k = 0; k < operands; ++k) value[k] = static_cast<const char*>(data[k]) + bytes;
    for (int s = 0; s < steps; ++s) {
      const void* given[kMostOperands];
      for (int k = 0; k < step[s].operands; ++k) given[k] = value[step[s].from[k]];
      char* const to = output_[s] == nullptr ? buffer[s] : output_[s] + offset + bytes;
      block_[s](count, given, to);
      value[operands + s] = to;
    }
  }
}

InPlace::InPlace(const Chain& chain, Index itemsize, char* const* data) : chain_(chain), itemsize_(itemsize) {
  std::copy(data, data + chain.operands, data_);
  chain_.prepare(itemsize, data_);
}

void InPlace::run(const void* self, Index begin, Index n) {
  const InPlace& here = *static_cast<const InPlace*>(self);
  const void* data[kMaxOperands];
  for (int k = 0; k < here.chain_.operands; ++k) data[k] = here.data_[k] + begin * here.itemsize_;
  here.chain_(n, data, const_cast<void*>(data[0]));
}

}  // namespace dlcore
