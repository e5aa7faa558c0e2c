// Races, reads of what nobody wrote, accesses outside of every array: found by what the cells of memory remember.
//
// Two accesses to a cell by different threads, one of them a write, are a race unless one is ordered before the other:
// by __syncthreads in a block, __syncwarp in a warp, grid_sync, the end of a launch, or between blocks by __threadfence
// and an atomic of the earlier one followed by an atomic on the same address of the later one. Shuffles do not order
// memory.
#include <map>
#include <unordered_map>

#include "check.h"
#include "memory.h"

namespace simt {

namespace {

struct Interval {
  uint32_t block, grid_epoch;
};

// An atomic after a fence: what its block did before is ordered before the later atomics on the same address.
struct Release {
  uint32_t interval;
  uint16_t thread;
};
using Releases = std::unordered_map<uint32_t, std::vector<Release>>;  // by block

struct Shadow {
  uint32_t next_interval = 1, first_interval = 1;  // of all launches; of this one
  std::vector<Interval> intervals;                 // of this launch
  uint32_t grid_epoch = 0;
  std::map<uintptr_t, Releases> releases;  // by address of the atomic
  std::unordered_map<uint32_t, std::vector<std::pair<Release, uint32_t>>>
      acquired;  // by block: releases, of which block
} shadow;

uint32_t offset_of(const void* pc) {
  return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pc) - machine.image_base);
}
const void* pc_of(uint32_t offset) { return reinterpret_cast<void*>(machine.image_base + offset); }

void begin_interval(Block& block) {
  block.interval = shadow.next_interval++;
  shadow.intervals.push_back({block.number, shadow.grid_epoch});
  for (Warp& warp : block.warps) warp.epoch = 0;
}

bool ordered_by_release(uint32_t interval, uint16_t thread, const Block& later) {
  auto found = shadow.acquired.find(later.number);
  if (found == shadow.acquired.end()) return false;
  uint32_t block = shadow.intervals[interval - shadow.first_interval].block;
  for (const auto& [release, of] : found->second)
    if (of == block && (interval < release.interval || (interval == release.interval && thread == release.thread)))
      return true;
  return false;
}

struct Access {
  Region& region;
  uintptr_t address;  // of the cell
  unsigned kind;
  const void* pc;
  const Thread& thread;

  const char* verb() const { return kind & kAtomicAccess ? "updates " : kind & kWrite ? "writes " : "reads "; }
  std::string target() const { return verb() + region.describe(address); }
};

// Whether `interval` is of an earlier launch, ended before the last grid_sync, or is of an earlier block's shared
// memory.
bool long_ago(const Access& now, uint32_t interval) {
  return interval < (now.region.shared ? now.thread.block->first_interval : shadow.first_interval) ||
         shadow.intervals[interval - shadow.first_interval].grid_epoch < shadow.grid_epoch;
}

// Whether what `thread` did in `interval`, at its warp's `epoch`, is ordered before what the running thread does now.
bool ordered(const Access& now, uint32_t interval, uint16_t thread, uint16_t epoch) {
  const Thread& self = now.thread;
  if (interval == self.block->interval)
    return thread == self.rank || (thread / kWarpSize == self.warp->rank && epoch < self.warp->epoch);
  return long_ago(now, interval) || shadow.intervals[interval - shadow.first_interval].block == self.block->number ||
         ordered_by_release(interval, thread, *self.block);
}

void report_race(const Access& a, const char* earlier, uint16_t thread, uint32_t interval, const void* pc) {
  bool other_block = interval != a.thread.block->interval;
  std::string who = other_block ? "another block" : "thread " + std::to_string(thread);
  add_issue(a.region.shared ? Kind::shared_race : Kind::global_race, a.pc, pc,
            a.target() + ", which " + who + " " + earlier + " at " + place(pc) + " without a barrier in between");
}

void check_against_write(const Access& a, const Cell& cell) {
  const void* pc = pc_of(cell.write_pc);
  if (cell.flags & kAsyncPending)
    add_issue(
        Kind::async, a.pc, pc,
        a.target() + ", where the cp.async at " + place(pc) + " may still be writing: its wait has not been reached");
  else if (!(a.kind & kAtomicAccess && cell.flags & kWrittenByAtomic) &&
           !ordered(a, cell.write_interval, cell.write_thread, cell.write_epoch))
    report_race(a, "wrote", cell.write_thread, cell.write_interval, pc);
}

void check_initialised(const Access& a, const Cell& cell) {
  bool known =
      a.region.shared ? cell.write_interval >= a.thread.block->first_interval : (cell.flags & kInitialised) != 0;
  if (!known && !(cell.flags & kAsyncPending))
    add_issue(Kind::uninitialised, a.pc, nullptr, a.target() + ", which nobody has written");
}

bool read_conflicts(const Cell& cell, const Access& a) {
  const Thread& thread = a.thread;
  if (long_ago(a, cell.read_interval)) return false;
  if (cell.flags & kReadByBlocks) return true;
  if (cell.read_interval == thread.block->interval) {
    if (cell.flags & kReadByWarps) return true;
    bool earlier_in_warp = cell.read_thread / kWarpSize == thread.warp->rank && cell.read_epoch < thread.warp->epoch;
    return (cell.flags & kReadByLanes || cell.read_thread != thread.rank) && !earlier_in_warp;
  }
  return !ordered(a, cell.read_interval, cell.read_thread, cell.read_epoch);
}

void note_read(Cell& cell, const Access& a) {
  const Thread& thread = a.thread;
  auto epoch = static_cast<uint16_t>(thread.warp->epoch), rank = static_cast<uint16_t>(thread.rank);
  if (cell.read_interval != thread.block->interval) {
    bool foreign = !ordered(a, cell.read_interval, cell.read_thread, cell.read_epoch);
    cell.flags &= static_cast<uint8_t>(~(kReadByLanes | kReadByWarps));
    if (long_ago(a, cell.read_interval)) cell.flags &= static_cast<uint8_t>(~kReadByBlocks);
    if (foreign) cell.flags |= kReadByBlocks;
  } else if (cell.read_thread / kWarpSize != thread.warp->rank) {
    cell.flags |= kReadByWarps;
  } else if (epoch > cell.read_epoch) {
    cell.flags &= static_cast<uint8_t>(~kReadByLanes);
  } else if (cell.read_thread != rank) {
    cell.flags |= kReadByLanes;
  }
  cell.read_interval = thread.block->interval;
  cell.read_thread = rank, cell.read_epoch = epoch, cell.read_pc = offset_of(a.pc);
}

void note_write(Cell& cell, const Access& a) {
  constexpr uint8_t kForgotten = kWrittenByAtomic | kReadByLanes | kReadByWarps | kReadByBlocks;
  cell.flags = static_cast<uint8_t>((cell.flags & ~kForgotten) | kInitialised);
  if (a.kind & kAtomicAccess) cell.flags |= kWrittenByAtomic;
  if (a.kind & kAsyncAccess) cell.flags |= kAsyncPending;
  cell.write_interval = a.thread.block->interval;
  cell.write_thread = static_cast<uint16_t>(a.thread.rank),
  cell.write_epoch = static_cast<uint16_t>(a.thread.warp->epoch);
  cell.write_pc = offset_of(a.pc);
  cell.read_interval = 0;
}

void check_cell(Cell& cell, const Access& a) {
  check_against_write(a, cell);
  bool writes = a.kind & (kWrite | kAtomicAccess), reads = !(a.kind & kWrite);
  if (reads) check_initialised(a, cell);
  if (writes && read_conflicts(cell, a))
    report_race(a, "read", cell.read_thread, cell.read_interval, pc_of(cell.read_pc));
  if (writes) note_write(cell, a);
  else note_read(cell, a);
}

[[noreturn]] void refuse(uintptr_t address, unsigned bytes, unsigned kind, const void* pc, const char* what,
                         const std::string& where) {
  fail(Kind::bounds, pc, "%s %s of %u bytes at %#lx: %s", what, kind & (kWrite | kAtomicAccess) ? "write" : "read",
       bytes, static_cast<unsigned long>(address), where.c_str());
}

}  // namespace

void check_access(uintptr_t address, unsigned bytes, unsigned kind, const void* pc) {
  Thread* thread = machine.current;
  if (!thread || thread->fiber.owns(address)) return;  // local variables
  Region* region = find_region(address);
  if (!region) {
    if (!(kind & kWrite) && is_constant(address)) return;
    refuse(address, bytes, kind, pc, "out-of-bounds", describe_stray(address));
  }
  if (address + bytes > region->end) refuse(address, bytes, kind, pc, "out-of-bounds", "it ends past " + region->name);
  if (region->read_only && kind & (kWrite | kAtomicAccess))
    refuse(address, bytes, kind, pc, "forbidden", region->name + " is read-only");
  if (bytes <= 16 && address & (bytes - 1) && !(bytes & (bytes - 1)))
    fail(Kind::alignment, pc, "misaligned %s of %u bytes: %s", kind & kWrite ? "write" : "read", bytes,
         region->describe(address).c_str());
  region->prepare(address, bytes);
  for (size_t i = region->cell(address), last = region->cell(address + bytes - 1); i <= last; ++i)
    check_cell(region->cells[i], {*region, region->start + (i << region->shift), kind, pc, *thread});
  thread->log.push_back(
      {address, offset_of(pc), static_cast<uint16_t>(bytes), static_cast<uint8_t>(kind), region->shared});
}

void check_no_access(unsigned bytes, unsigned kind, const void* pc) {
  machine.current->log.push_back({0, offset_of(pc), static_cast<uint16_t>(bytes), static_cast<uint8_t>(kind), false});
}

void check_launch_begins() {
  shadow.first_interval = shadow.next_interval;
  shadow.intervals.clear();
  shadow.grid_epoch = 0;
  shadow.releases.clear();
  shadow.acquired.clear();
  count_launch_begins();
}

void check_block_begins(Block& block) {
  prepare_shared_regions(block);
  begin_interval(block);
  block.first_interval = block.interval;
}

void check_barrier(Block& block) {
  check_block_ends(block);
  begin_interval(block);
}

void check_block_ends(Block& block) {
  for (Warp& warp : block.warps) count_warp(warp);
}

void check_grid_barrier() {
  ++shadow.grid_epoch;
  for (size_t b = 0; b < machine.resident; ++b) check_barrier(*machine.blocks[b]);
}

void check_syncwarp(Warp& warp, uint32_t mask) {
  count_warp(warp);
  if (mask == warp.members) ++warp.epoch;
}

void check_fence(Thread& thread) { thread.fenced = true; }

void check_atomic(uintptr_t address) {
  Thread& self = *machine.current;
  Releases& releases = shadow.releases[address];
  auto& acquired = shadow.acquired[self.block->number];
  for (const auto& [block, list] : releases)
    if (block != self.block->number)
      for (const Release& release : list) acquired.emplace_back(release, block);
  if (self.fenced) releases[self.block->number].push_back({self.block->interval, static_cast<uint16_t>(self.rank)});
}

void check_landed(const AsyncCopy& copy) {
  auto address = reinterpret_cast<uintptr_t>(copy.shared);
  const Thread& self = *machine.current;
  Region* region = find_region(address);
  for (size_t i = region->cell(address); i <= region->cell(address + copy.bytes - 1); ++i) {
    Cell& cell = region->cells[i];
    cell.flags &= static_cast<uint8_t>(~kAsyncPending);
    cell.write_interval = self.block->interval;
    cell.write_thread = static_cast<uint16_t>(self.rank), cell.write_epoch = static_cast<uint16_t>(self.warp->epoch);
  }
}

}  // namespace simt
