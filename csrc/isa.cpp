#include "isa.h"

#include <atomic>

// The build defines DL_ISAS(X), which applies X to the instruction sets that are there, best first.

namespace dlcore {

#define DL_DECLARE_FILL(family) void fill_##family(Kernels&);
#define DL_DECLARE_ISA(isa)    \
  namespace isa {              \
  DL_FAMILIES(DL_DECLARE_FILL) \
  }
DL_ISAS(DL_DECLARE_ISA)

namespace {

namespace supported {  // by this machine
bool baseline() { return true; }
#if defined(__x86_64__)
bool avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool avx512() {
  return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif
}  // namespace supported

struct Isa {
  const char* name;
  bool usable;
  Kernels kernels;
};

#define DL_FILL(family) ns::fill_##family(isa.kernels);
#define DL_MAKE_ISA(isa_name)                      \
  [] {                                             \
    namespace ns = isa_name;                       \
    Isa isa{#isa_name, supported::isa_name(), {}}; \
    if (isa.usable) {                              \
      DL_FAMILIES(DL_FILL)                         \
    }                                              \
    return isa;                                    \
  }(),

const std::vector<Isa>& isas() {  // best first
  static const std::vector<Isa> all{DL_ISAS(DL_MAKE_ISA)};
  return all;
}

const Isa* best() {
  for (const Isa& isa : isas())
    if (isa.usable) return &isa;
  return &isas().back();
}

std::atomic<const Isa*> current{best()};

}  // namespace

const Kernels& kernels() { return current.load(std::memory_order_relaxed)->kernels; }

const char* isa() { return current.load()->name; }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : isas())
    if (isa.usable) names.push_back(isa.name);
  return names;
}

bool set_isa(const std::string& name) {
  for (const Isa& isa : isas())
    if (isa.usable && name == isa.name) {
      current.store(&isa);
      return true;
    }
  return false;
}

}  // namespace dlcore
