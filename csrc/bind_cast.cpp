// _C.f16_to_f32(x, out) and the like: one function per row of cast.h, of contiguous arrays. 16-bit floats come as their
// bits, uint16.
#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

void run(Cast CastKernels::* kernel, py::handle source, Index from_size, py::handle target, Index to_size) {
  const Array x(source.ptr(), "cast"), y(target.ptr(), "cast");
  require(x.itemsize() == from_size && y.itemsize() == to_size, "cast: not of the sizes that its name says");
  for (const Array* a : {&x, &y}) require(a->plain(), "cast: expected contiguous arrays");
  require(x.size() == y.size() && y.writeable(), "cast: x and out differ");
  unlocked_if_large(y.size(), [&] { (kernels().cast.*kernel)(y.size(), x.data(), y.data()); });
}

}  // namespace

void bind_cast(py::module_& m) {
#define DL_METHOD(name, From, To)                                                                             \
  m.def(                                                                                                      \
      #name, [](py::handle x, py::handle out) { run(&CastKernels::name, x, sizeof(From), out, sizeof(To)); }, \
      py::arg("x"), py::arg("out"));
  DL_CASTS(DL_METHOD)
}

}  // namespace dlcore
