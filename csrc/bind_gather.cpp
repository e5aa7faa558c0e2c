// _C.gather(x, index, out, axis), _C.scatter_add(x, index, updates, out, axis) and _C.place(x, out, start, axis), of
// contiguous arrays.
#include <cstring>

#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

Index product(const Array& x, int begin, int end) {
  Index n = 1;
  for (int i = begin; i < end; ++i) n *= x.dim(i);
  return n;
}

// `whole` has the axis that `part` has `count` positions of; one index per slice, or one per element.
Positions positions(const char* name, const Array& whole, const Array& part, const Array& index, int axis,
                    bool of_rows) {
  require(axis >= 0 && axis < whole.ndim(), "gather: no such axis");
  const Index outer = product(whole, 0, axis), inner = whole.size(axis + 1), n = whole.dim(axis);
  const Index count = of_rows ? index.size() : index.ndim() == whole.ndim() ? index.dim(axis) : 0;
  for (const Array* a : {&whole, &part, &index})
    if (!a->plain()) throw py::value_error(std::string(name) + ": expected contiguous arrays");
  if (index.type() != kInt64) throw py::type_error(std::string(name) + ": expected int64 indices");
  require(part.size() == outer * count * inner && (of_rows || index.size() == part.size()), "gather: sizes differ");
  const auto* at = static_cast<const long long*>(index.data());
  if (!kernels().gather.within(index.size(), n, at))
    throw py::index_error(std::string(name) + ": an index is out of range");
  return {outer, n, count, inner, at};
}

void gather(bool of_rows, const py::object& source, const py::object& index, const py::object& target, int axis) {
  const Array x(source.ptr(), "gather"), at(index.ptr(), "gather"), y(target.ptr(), "gather");
  const Positions p = positions("gather", x, y, at, axis, of_rows);
  const Index bytes = x.itemsize();
  require(x.type() == y.type() && bytes == y.itemsize() && y.writeable(), "gather: x and out differ");
  require(bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8, "gather: no kernel for items of this size");
  const auto run = of_rows ? kernels().gather.rows : kernels().gather.elements;
  unlocked_if_large(y.size(), [&] { run(p, bytes, x.data(), y.data()); });
}

void scatter_add(bool of_rows, const py::object& source, const py::object& index, const py::object& updates,
                 const py::object& target, int axis) {
  const char* const name = "scatter_add";
  const Array u(updates.ptr(), name), at(index.ptr(), name), y(target.ptr(), name);
  const Positions p = positions(name, y, u, at, axis, of_rows);
  const Array x(source.is_none() ? target.ptr() : source.ptr(), name);
  if ((y.type() != kFloat32 && y.type() != kFloat64) || u.type() != y.type() || x.type() != y.type())
    throw py::type_error("scatter_add: expected arrays of one dtype, float32 or float64");
  require(x.size() == y.size() && x.plain() && y.writeable(), "scatter_add: x and out differ");
  const GatherKernels::Of& k = y.type() == kFloat32 ? kernels().gather.f32 : kernels().gather.f64;
  const auto run = of_rows ? k.add_rows : k.add_elements;
  unlocked_if_large(y.size() + u.size(), [&] { run(p, source.is_none() ? nullptr : x.data(), u.data(), y.data()); });
}

void place(const py::object& source, const py::object& target, Index start, int axis) {
  const Array x(source.ptr(), "place"), y(target.ptr(), "place");
  require(axis >= 0 && axis < y.ndim() && x.ndim() == y.ndim(), "place: no such axis");
  const Index outer = product(y, 0, axis), n = y.dim(axis), count = x.dim(axis);
  require(x.contiguous() && y.contiguous() && y.writeable(), "place: expected contiguous arrays");
  require(x.type() == y.type() && start >= 0 && start <= n - count && x.size() * n == y.size() * count,
          "place: x does not fit into out");
  const Index row = y.size(axis + 1) * y.itemsize();
  const char* from = static_cast<const char*>(x.data());
  char* to = static_cast<char*>(y.data());
  const std::size_t before = std::size_t(start * row), bytes = std::size_t(count * row);
  const std::size_t after = std::size_t((n - count) * row) - before;
  unlocked_if_large(y.size(), [&] {
    parallel_for(0, outer, 65536 / (n * row + 1) + 1, [&](Index begin, Index end) {
      for (Index o = begin; o < end; ++o) {
        char* at = to + o * n * row;
        std::memset(at, 0, before);
        std::memcpy(at + before, from + o * count * row, bytes);
        std::memset(at + before + bytes, 0, after);
      }
    });
  });
}

}  // namespace

void bind_gather(py::module_& m) {
  using py::arg;
  m.def("place", place, arg("x"), arg("out"), arg("start"), arg("axis"),
        "out = 0, but x at positions of an axis from `start` on.");
  for (const bool of_rows : {true, false}) {
    const std::string what = of_rows ? "_rows" : "_elements";
    m.def(("gather" + what).c_str(),
          [of_rows](const py::object& x, const py::object& index, const py::object& out, int axis) {
            gather(of_rows, x, index, out, axis);
          },
          arg("x"), arg("index"), arg("out"), arg("axis"), "out = x at positions of an axis.");
    m.def(("scatter_add" + what).c_str(),
          [of_rows](const py::object& x, const py::object& index, const py::object& updates, const py::object& out,
                    int axis) { scatter_add(of_rows, x, index, updates, out, axis); },
          arg("x").none(true), arg("index"), arg("updates"), arg("out"), arg("axis"),
          "out = x (None: 0) with updates added at positions of an axis, in their order.");
  }
}

}  // namespace dlcore
