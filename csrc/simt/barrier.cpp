// Barriers of a block and of the grid.
#include "check.h"

namespace simt {

namespace {

void release_block(Block& block) {
  if (block.alive != block.size)
    fail(Kind::barrier, block.barrier.pc, "__syncthreads reached by %u of %u threads; the others have exited",
         block.alive, block.size);
  block.last_sum = block.sum;
  block.sum = 0;
  block.barrier = Barrier();
  if (machine.checking) check_barrier(block);
  make_all_ready(block);
}

void release_grid() {
  machine.grid_barrier = Barrier();
  if (machine.checking) check_grid_barrier();
  for (size_t b = 0; b < machine.resident; ++b) make_all_ready(*machine.blocks[b]);
}

// Notes the arrival of the running thread. True if it is the last of `expected`.
bool arrive(Barrier& barrier, unsigned expected, int line, const void* pc, const char* name) {
  if (barrier.arrived == 0) barrier.line = line, barrier.pc = pc, barrier.first = machine.current;
  if (barrier.line != line) {
    const uint3& other = barrier.first->index;
    fail(Kind::barrier, pc, "divergent %s: thread (%u,%u,%u) waits at %s", name, other.x, other.y, other.z,
         place(barrier.pc).c_str());
  }
  return ++barrier.arrived == expected;
}

void sync_block(int line, const void* pc) {
  Block& block = *machine.current->block;
  if (arrive(block.barrier, block.alive, line, pc, "__syncthreads")) release_block(block);
  else wait();
}

}  // namespace

void barrier_when_thread_exits(Thread& thread) {
  Block& block = *thread.block;
  if (block.alive && block.barrier.arrived == block.alive) release_block(block);
  if (machine.grid_barrier.arrived)
    fail(Kind::barrier, machine.grid_barrier.pc, "grid_sync reached by %u threads while another has exited",
         machine.grid_barrier.arrived);
}

}  // namespace simt

using namespace simt;

void simt_syncthreads(int line) { sync_block(line, SIMT_CALLER); }

int simt_syncthreads_reduce(int predicate, int reduction, int line) {
  Block& block = *machine.current->block;
  block.sum += predicate != 0;
  sync_block(line, SIMT_CALLER);
  if (reduction == kCount) return static_cast<int>(block.last_sum);
  return reduction == kAnd ? block.last_sum == block.size : block.last_sum != 0;
}

void simt_grid_sync(int line) {
  const void* pc = SIMT_CALLER;
  if (!machine.launch->cooperative) fail(Kind::barrier, pc, "grid_sync in a launch that is not cooperative");
  if (arrive(machine.grid_barrier, machine.alive, line, pc, "grid_sync")) release_grid();
  else wait();
}

void simt_threadfence() {
  if (machine.checking) check_fence(*machine.current);
}
