// _C.concat(out, axis, *xs): contiguous arrays, one behind the other along an axis.
#include <cstring>
#include <vector>

#include "bind.h"

namespace dlcore {
namespace {

constexpr Index kWorthAThread = 64 << 10;  // bytes

// What one array gives to each of the rows that the axes before `axis` make.
struct Piece {
  const char* data;
  Index bytes;
};

// Bytes [begin, end) of rows that are made of one piece after the other.
void copy(const std::vector<Piece>& pieces, Index row_bytes, Index begin, Index end, char* out) {
  Index row = begin / row_bytes, at = row * row_bytes;
  for (; at < end; ++row)
    for (const Piece& piece : pieces) {
      const Index from = std::max(begin, at), to = std::min(end, at + piece.bytes);
      if (from < to) std::memcpy(out + from, piece.data + row * piece.bytes + (from - at), std::size_t(to - from));
      at += piece.bytes;
    }
}

bool fits(const Array& x, const Array& out, int axis) {
  bool same = x.ndim() == out.ndim() && x.type() == out.type() && x.contiguous();
  for (int i = 0; same && i < x.ndim(); ++i) same = i == axis || x.dim(i) == out.dim(i);
  return same;
}

PyObject* concat(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&]() -> py::object {
    if (count < 2 || !PyLong_Check(args[1])) throw py::type_error("concat: expected (out, axis, *xs)");
    const Array out(args[0], "concat");
    const Index axis = PyLong_AsSsize_t(args[1]);
    require(axis >= 0 && axis < out.ndim(), "concat: no such axis");
    require(out.contiguous() && out.writeable(), "concat: expected a contiguous, writeable out");
    const Index itemsize = out.itemsize();
    std::vector<Piece> pieces;
    Index row_bytes = 0;
    for (Py_ssize_t k = 2; k < count; ++k) {
      const Array x(args[k], "concat");
      require(fits(x, out, int(axis)), "concat: expected contiguous arrays of one dtype, alike but for the axis");
      pieces.push_back({static_cast<const char*>(x.data()), x.size(int(axis)) * itemsize});
      row_bytes += pieces.back().bytes;
    }
    require(row_bytes == out.size(int(axis)) * itemsize, "concat: the sizes do not add up to those of out");
    const Index all = out.size() * itemsize;
    if (all == 0) return py::none();
    unlocked_if_large(out.size(), [&] {
      parallel_for(0, all, kWorthAThread, [&](Index begin, Index end) {
        copy(pieces, row_bytes, begin, end, static_cast<char*>(out.data()));
      });
    });
    return py::none();
  });
}

PyMethodDef method = {
    "concat", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(concat)), METH_FASTCALL,
    "concat(out, axis, *xs)\n\nout = xs, one behind the other along the axis; all contiguous and of one dtype."};

}  // namespace

void bind_join(py::module_& m) { add_function(m, &method); }

}  // namespace dlcore
