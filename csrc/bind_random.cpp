// _C.uniform(seed, stream, out), normal, integers, dropout: random numbers of a key into contiguous arrays.
#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

using Key = RandomKernels::Key;

void require_plain(const Array& out) { require(out.plain() && out.writeable(), "random: expected a contiguous array"); }

const RandomKernels::Of& kernels_for(const Array& out) {
  require(out.type() == kFloat32 || out.type() == kFloat64, "random: expected float32 or float64");
  require_plain(out);
  return out.type() == kFloat32 ? kernels().random.f32 : kernels().random.f64;
}

void uniform(std::uint64_t seed, std::uint64_t stream, py::handle target) {
  const Array out(target.ptr(), "uniform");
  const auto& k = kernels_for(out);
  unlocked_if_large(out.size(), [&] { k.uniform(out.size(), Key{seed, stream}, out.data()); });
}

void normal(std::uint64_t seed, std::uint64_t stream, py::handle target, std::uint64_t first, std::uint64_t size) {
  const Array out(target.ptr(), "normal");
  const auto& k = kernels_for(out);
  unlocked_if_large(out.size(), [&] { k.normal(out.size(), Key{seed, stream}, first, size, out.data()); });
}

void integers(std::uint64_t seed, std::uint64_t stream, py::handle target, std::int64_t low, std::uint64_t size) {
  const Array out(target.ptr(), "integers");
  require(out.type() == kInt64, "integers: expected int64");
  require_plain(out);
  std::int64_t* const y = static_cast<std::int64_t*>(out.data());
  unlocked_if_large(out.size(), [&] { kernels().random.integers(out.size(), Key{seed, stream}, low, size, y); });
}

void dropout(std::uint64_t seed, std::uint64_t stream, py::handle source, py::handle target, float p, double scale) {
  const Array x(source.ptr(), "dropout"), out(target.ptr(), "dropout");
  const auto& k = kernels_for(out);
  require(x.type() == out.type() && x.size() == out.size() && x.plain(), "dropout: x and out differ");
  unlocked_if_large(out.size(), [&] { k.dropout(out.size(), Key{seed, stream}, x.data(), p, scale, out.data()); });
}

}  // namespace

void bind_random(py::module_& m) {
  m.def("uniform", uniform, py::arg("seed"), py::arg("stream"), py::arg("out"));
  m.def("normal", normal, py::arg("seed"), py::arg("stream"), py::arg("out"), py::arg("first") = 0, py::arg("size") = 0,
        "size > 0 maps the words to [first, first + size) before inversion.");
  m.def("integers", integers, py::arg("seed"), py::arg("stream"), py::arg("out"), py::arg("low") = 0,
        py::arg("size") = 0, "low + word mod size of 64-bit words; size 0: the words as they are.");
  m.def("dropout", dropout, py::arg("seed"), py::arg("stream"), py::arg("x"), py::arg("out"), py::arg("p"),
        py::arg("scale"));
}

}  // namespace dlcore
