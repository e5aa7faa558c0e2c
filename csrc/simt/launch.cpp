// A launch from its first thread to its last, and how it fails.
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <numeric>

#include "check.h"
#include "signals.h"

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace simt {

Machine machine;

namespace {

// ---- the life of a thread

void thread_main() {
  machine.launch->kernel->call(machine.launch->arguments);
  Thread& self = *machine.current;
  if (self.fiber.overflowed())
    fail(Kind::stack, nullptr, "stack overflow: a thread has %zu bytes for its variables", kStackBytes);
  async_when_thread_exits(self);
  self.warp->ready &= ~(1u << self.lane);
  self.warp->exited |= 1u << self.lane;
  --self.block->alive, --machine.alive;
  warp_when_thread_exits(self);
  barrier_when_thread_exits(self);
  leave();
}

// ---- blocks

void grow(Block& block, unsigned threads) {
  if (block.capacity >= threads) return;
  unsigned capacity = std::max(threads, 2 * block.capacity);
  block.threads = std::make_unique<Thread[]>(capacity);
  block.capacity = capacity;
  std::vector<Fiber*> fibers;
  for (unsigned i = 0; i < capacity; ++i) fibers.push_back(&block.threads[i].fiber);
  allocate_stacks(fibers.data(), fibers.size());
}

void prepare_threads(Block& block, const dim3& shape) {
  unsigned rank = 0;
  for (unsigned z = 0; z < shape.z; ++z)
    for (unsigned y = 0; y < shape.y; ++y)
      for (unsigned x = 0; x < shape.x; ++x, ++rank) {
        Thread& thread = block.threads[rank];
        thread.index = {x, y, z};
        thread.rank = rank, thread.lane = rank % kWarpSize;
        thread.warp = &block.warps[rank / kWarpSize], thread.block = &block;
        thread.copies.clear(), thread.groups.clear(), thread.log.clear();
        thread.fenced = false;
        thread.fiber.prepare(thread_main);
      }
}

void prepare_warps(Block& block) {
  block.warps.resize((block.size + kWarpSize - 1) / kWarpSize);
  for (unsigned w = 0; w < block.warps.size(); ++w) {
    Warp& warp = block.warps[w];
    unsigned lanes = std::min(block.size - w * kWarpSize, kWarpSize);
    warp.block = &block, warp.rank = w;
    warp.members = warp.ready = lanes == 32 ? ~0u : (1u << lanes) - 1;
    warp.exited = 0;
    for (Meeting& meeting : warp.meetings) meeting.mask = 0;
  }
}

size_t static_shared_bytes(const Kernel& kernel) {
  size_t bytes = 0;
  for (const SharedArray* array = kernel.shared; array->address; ++array) bytes += array->bytes;
  return bytes;
}

uint3 block_index(const dim3& grid, size_t number) {
  auto y = number / grid.x, z = y / grid.y;
  return {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(y % grid.y), static_cast<unsigned>(z)};
}

// Shared memory holds 0xFF, a NaN in every float type, until the block writes it.
void poison_static_shared(const Kernel& kernel) {
  for (const SharedArray* array = kernel.shared; array->address; ++array) memset(array->address, 0xff, array->bytes);
}

void prepare(Block& block, const Launch& launch, size_t number) {
  constexpr size_t kAlignment = 128;
  block.number = static_cast<unsigned>(number);
  block.index = block_index(launch.grid, number);
  block.size = block.alive = launch.block.x * launch.block.y * launch.block.z;
  block.barrier = Barrier(), block.sum = block.last_sum = 0;
  grow(block, block.size);
  prepare_warps(block);
  prepare_threads(block, launch.block);
  block.dynamic.assign(launch.dynamic_bytes + kAlignment, '\xff');
  auto start = reinterpret_cast<uintptr_t>(block.dynamic.data());
  block.dynamic_shared = reinterpret_cast<char*>((start + kAlignment - 1) & ~(kAlignment - 1));
  if (launch.cooperative) block.saved.assign(static_shared_bytes(*launch.kernel), '\xff');
  if (machine.checking) check_block_begins(block);
}

void make_resident(size_t count) {
  while (machine.blocks.size() < count) machine.blocks.push_back(std::make_unique<Block>());
  machine.resident = count;
}

// Runs the blocks with these numbers together, to their end.
void run_blocks(const Launch& launch, const size_t* numbers, size_t count) {
  make_resident(count);
  machine.alive = 0;
  for (size_t i = 0; i < count; ++i) {
    prepare(*machine.blocks[i], launch, numbers[i]);
    machine.alive += machine.blocks[i]->size;
  }
  poison_static_shared(*launch.kernel);
  machine.grid_barrier = Barrier();
  machine.running = machine.blocks[0].get();
  blockIdx = machine.running->index;
  start(*machine.running);
  if (machine.checking && !machine.failed)
    for (size_t i = 0; i < count; ++i) check_block_ends(*machine.blocks[i]);
}

std::vector<size_t> block_order(size_t count) {
  std::vector<size_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), size_t(0));
  if (machine.order == Order::reverse) std::reverse(numbers.begin(), numbers.end());
  if (machine.order == Order::random)
    for (size_t i = count; i > 1; --i)
      std::swap(numbers[i - 1], numbers[(machine.seed * 2654435761u + i * 40503u) % i]);
  return numbers;
}

void repair_stacks() {
  for (auto& block : machine.blocks)
    for (unsigned i = 0; i < block->capacity; ++i) block->threads[i].fiber.repair();
}

void locate_image(const Kernel& kernel) {
  Dl_info info;
  dladdr(reinterpret_cast<const void*>(kernel.call), &info);
  machine.image = info.dli_fname;
  machine.image_base = reinterpret_cast<uintptr_t>(info.dli_fbase);
}

}  // namespace

std::string describe_launch() {
  const Launch& l = *machine.launch;
  char text[160];
  snprintf(text, sizeof text, " grid (%u,%u,%u) block (%u,%u,%u)", l.grid.x, l.grid.y, l.grid.z, l.block.x, l.block.y,
           l.block.z);
  return l.kernel->name + std::string(text);
}

void fail(Kind kind, const void* pc, const char* format, ...) {
  static char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  add_issue(kind, pc, nullptr, text);
  machine.failed = true;
  machine.current->fiber.switch_to(machine.host);
  __builtin_unreachable();
}

bool run(const Launch& launch) {
  SignalHandlers handlers;
  size_t count = size_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  std::vector<size_t> numbers = block_order(count);
  machine.launch = &launch;
  machine.checking = launch.kernel->checked;
  machine.failed = false;
  gridDim = {launch.grid.x, launch.grid.y, launch.grid.z}, blockDim = {launch.block.x, launch.block.y, launch.block.z};
  locate_image(*launch.kernel);
  forget_issues();
  if (machine.checking) check_launch_begins();
  size_t together = launch.cooperative ? count : 1;
  for (size_t first = 0; first < count && !machine.failed; first += together)
    run_blocks(launch, &numbers[first], together);
  machine.current = nullptr;
  if (machine.failed) repair_stacks();
  if (machine.checking) count_launch_ends();
  machine.error = finish_issues();
  return machine.error.empty();
}

}  // namespace simt

void* simt_dynamic_shared() { return simt::machine.current->block->dynamic_shared; }

void simt_trap() { simt::fail(simt::Kind::trap, SIMT_CALLER, "__trap"); }
