// Which thread runs next. A thread runs until it waits or ends; then a ready lane of its warp is preferred, then the
// other warps of its block in turn, then the other blocks of a cooperative launch.
#include <stdio.h>
#include <string.h>

#include "machine.h"

namespace simt {

namespace {

uint64_t next_random() {  // xorshift64*
  uint64_t& x = machine.random;
  x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
  return x * 0x2545f4914f6cdd1dull;
}

unsigned lowest(uint32_t mask) { return static_cast<unsigned>(__builtin_ctz(mask)); }
unsigned highest(uint32_t mask) { return 31u - static_cast<unsigned>(__builtin_clz(mask)); }

unsigned choose_lane(uint32_t ready, unsigned after) {
  if (machine.order == Order::forward) {
    uint32_t later = after == 31 ? 0 : ready >> (after + 1) << (after + 1);
    return lowest(later ? later : ready);
  }
  if (machine.order == Order::reverse) return highest(ready);
  auto turn = static_cast<unsigned>(next_random() % 32);
  uint32_t rotated = ready >> turn | (turn ? ready << (32 - turn) : 0);
  return (lowest(rotated) + turn) % 32;
}

// A ready thread of the block; the search begins with warp `from`, after its lane `after`.
Thread* choose_in(Block& block, unsigned from, unsigned after) {
  auto warps = static_cast<unsigned>(block.warps.size());
  if (machine.order == Order::random) from = static_cast<unsigned>(next_random() % warps);
  unsigned step = machine.order == Order::reverse ? warps - 1 : 1;
  for (unsigned i = 0, w = from; i < warps; ++i, w = w + step >= warps ? w + step - warps : w + step)
    if (block.warps[w].ready) return block.warps[w].lane(choose_lane(block.warps[w].ready, i ? 31 : after));
  return nullptr;
}

Thread* choose_in_new_block(Block& block) {
  return choose_in(block, machine.order == Order::reverse ? static_cast<unsigned>(block.warps.size()) - 1 : 0, 31);
}

void swap_static_shared(Block& out, Block& in) {
  char *saved = out.saved.data(), *restored = in.saved.data();
  for (const SharedArray* array = machine.launch->kernel->shared; array->address; ++array) {
    memcpy(saved, array->address, array->bytes), saved += array->bytes;
    memcpy(array->address, restored, array->bytes), restored += array->bytes;
  }
}

void enter(Block& block) {
  if (&block == machine.running) return;
  swap_static_shared(*machine.running, block);
  machine.running = &block;
  blockIdx = block.index;
}

Thread* choose(const Thread& last) {
  if (machine.order == Order::forward && last.warp->ready)  // the common case
    return last.warp->lane(choose_lane(last.warp->ready, last.lane));
  if (Thread* thread = choose_in(*last.block, last.warp->rank, last.lane)) return thread;
  size_t own = 0;
  while (machine.blocks[own].get() != last.block) ++own;
  for (size_t i = 1; i < machine.resident; ++i)
    if (Thread* thread = choose_in_new_block(*machine.blocks[(own + i) % machine.resident])) return thread;
  return nullptr;
}

std::string describe(const Barrier& barrier, const char* what) {
  return barrier.arrived
             ? "; " + std::to_string(barrier.arrived) + " threads wait at " + what + " at " + place(barrier.pc)
             : "";
}

[[noreturn]] void report_deadlock(const Block& block) {
  std::string waits = describe(block.barrier, "__syncthreads") + describe(machine.grid_barrier, "grid_sync");
  const void* pc = block.barrier.pc;
  for (const Warp& warp : block.warps)
    for (const Meeting& m : warp.meetings)
      if (m.mask && waits.size() < 1500) {
        char masks[96];
        snprintf(masks, sizeof masks, "; warp %u: lanes %08x of %08x have reached ", warp.rank, m.arrived, m.mask);
        waits += masks + std::string(operation_name(m.operation)) + " at " + place(m.pc);
        pc = m.pc;
      }
  fail(Kind::barrier, pc, "deadlock: no thread can go on%s", waits.c_str());
}

void run_thread(Thread& next, Fiber& from) {
  enter(*next.block);
  machine.current = &next;
  threadIdx = next.index;
  from.switch_to(next.fiber);
}

void give_turn_away(Thread& self) {
  Thread* next = choose(self);
  if (!next) report_deadlock(*self.block);
  if (next != &self) run_thread(*next, self.fiber);
}

}  // namespace

void wait() {
  Thread& self = *machine.current;
  self.warp->ready &= ~(1u << self.lane);
  give_turn_away(self);
}

void start(Block& block) {
  if (machine.order == Order::random) machine.random = (machine.seed + 1) * 0x9e3779b97f4a7c15ull + block.index.x;
  run_thread(*choose_in_new_block(block), machine.host);
  machine.current = nullptr;
}

void leave() {
  Thread& self = *machine.current;
  if (machine.alive == 0) self.fiber.switch_to(machine.host);
  give_turn_away(self);
  __builtin_unreachable();
}

}  // namespace simt
