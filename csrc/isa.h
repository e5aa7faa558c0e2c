// Which instruction set runs, and what it offers. Each kernel family is one .cpp compiled once per instruction set into
// namespace dlcore::<isa>; csrc/README.md says how to add one.
#pragma once
#include <string>
#include <vector>

#include "attention.h"
#include "cast.h"
#include "conv.h"
#include "elementwise.h"
#include "gather.h"
#include "gemm.h"
#include "norm.h"
#include "optim.h"
#include "pool.h"
#include "random.h"
#include "recurrent.h"
#include "reduce.h"
#include "softmax.h"

// The families, one per line: X(name) needs a member below and `void fill_name(Kernels&)` in csrc/name.cpp.
#define DL_FAMILIES(X) \
  X(attention)         \
  X(cast)              \
  X(conv)              \
  X(elementwise)       \
  X(gather)            \
  X(gemm)              \
  X(norm)              \
  X(optim)             \
  X(pool)              \
  X(random)            \
  X(recurrent)         \
  X(reduce)            \
  X(softmax)

namespace dlcore {

struct Kernels {
  AttentionKernels attention;
  CastKernels cast;
  ConvKernels conv;
  ElementwiseKernels elementwise;
  GatherKernels gather;
  GemmKernels gemm;
  NormKernels norm;
  OptimKernels optim;
  PoolKernels pool;
  RandomKernels random;
  RecurrentKernels recurrent;
  ReduceKernels reduce;
  SoftmaxKernels softmax;
};

const Kernels& kernels();  // of the instruction set in use

const char* isa();
std::vector<std::string> available_isas();  // on this machine, best first
bool set_isa(const std::string& name);      // false: not available. Not during a computation.

}  // namespace dlcore
