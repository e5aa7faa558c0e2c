// _C.sgd and _C.adam: one call updates a list of parameters.
#include <vector>

#include "bind.h"
#include "isa.h"

namespace dlcore {
namespace {

// The arrays of a call, checked: one dtype, contiguous, each list with the sizes of the first.
class Lists {
 public:
  explicit Lists(const char* name) : name_(name) {}

  void add(const py::object& list, bool written) {
    require(count_ < 5, "optim: too many lists");
    std::vector<void*>& data = data_[count_++];
    if (list.is_none()) return;
    const py::list arrays = list;
    for (std::size_t i = 0; i < arrays.size(); ++i) add(Array(arrays[i].ptr(), name_), i, written, data);
    if (count_ > 1) require(data.size() + 1 == offset_.size(), "optim: lists of different lengths");
  }
  ParameterList list() const {
    return {Index(offset_.size()) - 1,
            offset_.data(),
            {data_[0].data(), data_[1].data(), data_[2].data(), data_[3].data(), data_[4].data()}};
  }
  bool f32() const { return type_ == kFloat32; }
  bool empty() const { return offset_.back() == 0; }

 private:
  void add(const Array& x, std::size_t i, bool written, std::vector<void*>& data) {
    if (type_ < 0) type_ = x.type();
    if (x.type() != type_ || (type_ != kFloat32 && type_ != kFloat64) || !x.native())
      throw py::type_error(std::string(name_) + ": expected arrays of one dtype, float32 or float64");
    require(x.contiguous() && x.aligned(), "optim: expected contiguous arrays");
    require(!written || x.writeable(), "optim: an array to be updated is read-only");
    if (count_ == 1) offset_.push_back(offset_.back() + x.size());
    require(i + 1 < offset_.size() && x.size() == offset_[i + 1] - offset_[i], "optim: sizes differ");
    data.push_back(x.data());
  }

  const char* name_;
  int type_ = -1, count_ = 0;
  std::vector<Index> offset_{0};
  std::vector<void*> data_[5];
};

template <class Rule>
void update(const Lists& lists, void (*OptimKernels::Of::*kernel)(const ParameterList&, const Rule&),
            const Rule& rule) {
  if (lists.empty()) return;
  const OptimKernels& all = kernels().optim;
  py::gil_scoped_release unlocked;
  ((lists.f32() ? all.f32 : all.f64).*kernel)(lists.list(), rule);
}

void sgd(const py::list& params, const py::list& grads, const py::object& buffers, double lr, double weight_decay,
         double momentum, double gain, bool nesterov) {
  Lists lists("sgd");
  lists.add(params, true), lists.add(grads, false), lists.add(buffers, true);
  require(momentum == 0 || !buffers.is_none(), "sgd: momentum needs buffers");
  update(lists, &OptimKernels::Of::sgd, SgdRule{lr, weight_decay, momentum, gain, nesterov});
}

void adam(const py::list& params, const py::list& grads, const py::list& means, const py::list& squares,
          const py::object& largest, double shrink, double weight_decay, double beta1, double beta2, double root,
          double eps, double rate) {
  Lists lists("adam");
  lists.add(params, true), lists.add(grads, false), lists.add(means, true), lists.add(squares, true);
  lists.add(largest, true);
  update(lists, &OptimKernels::Of::adam,
         AdamRule{shrink, weight_decay, beta1, beta2, root, eps, rate, !largest.is_none()});
}

}  // namespace

void bind_optim(py::module_& m) {
  m.def("sgd", sgd, py::arg("params"), py::arg("grads"), py::arg("buffers").none(true), py::kw_only(), py::arg("lr"),
        py::arg("weight_decay"), py::arg("momentum"), py::arg("gain"), py::arg("nesterov"),
        "g += weight_decay * p; buffer = momentum * buffer + gain * g; p -= lr * (buffer, or g + momentum * buffer).");
  m.def("adam", adam, py::arg("params"), py::arg("grads"), py::arg("means"), py::arg("squares"),
        py::arg("largest").none(true), py::kw_only(), py::arg("shrink"), py::arg("weight_decay"), py::arg("beta1"),
        py::arg("beta2"), py::arg("root"), py::arg("eps"), py::arg("rate"),
        "p *= shrink; g += weight_decay * p; moments; p -= rate * mean / (sqrt(square) / root + eps).");
}

}  // namespace dlcore
