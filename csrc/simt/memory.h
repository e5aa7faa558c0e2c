// The memory that kernels may touch, and what is known of each part of it.
#pragma once
#include <stdint.h>

#include <string>
#include <vector>

namespace simt {

struct Block;

// Who touched a cell of memory last. A thread is its rank in its block; its epoch, how often its warp was synchronised
// in the interval. An interval is the time of one block from one barrier to the next; each has its own number.
struct Cell {
  uint32_t write_interval, read_interval;
  uint32_t write_pc, read_pc;  // offsets in the kernel's image
  uint16_t write_thread, read_thread, write_epoch, read_epoch;
  uint8_t flags;
};
enum CellFlags : uint8_t {
  kInitialised = 1,  // of global memory; in shared memory the interval tells
  kWrittenByAtomic = 2,
  kAsyncPending = 4,   // a cp.async to it is under way
  kReadByLanes = 8,    // by several lanes of read_thread's warp, in read_interval
  kReadByWarps = 16,   // by several warps, in read_interval
  kReadByBlocks = 32,  // in this launch, by a block that is not ordered before the last reader
};

struct Region {
  uintptr_t start, end;
  std::string name;
  bool shared, initialised, read_only;
  unsigned references = 1;
  unsigned shift = 2;                                   // a cell is 1 << shift bytes
  std::vector<Cell> cells;                              // empty until a checked kernel touches the region
  std::vector<uint32_t> sectors_read, sectors_written;  // the last launch that touched each 32-byte sector

  Region(uintptr_t start, size_t bytes, std::string name, bool shared, bool initialised, bool read_only);
  void prepare(uintptr_t address, unsigned bytes);  // makes cells, small enough for this access
  size_t cell(uintptr_t address) const { return (address - start) >> shift; }
  std::string describe(uintptr_t address) const;  // "x+12"
};

// Global memory. A range that overlaps others is joined with them.
void add_global(uintptr_t start, size_t bytes, const std::string& name, bool initialised, bool read_only);
void remove_global(uintptr_t address);
void mark_initialised(uintptr_t start, size_t bytes);

// Makes the block's list of shared arrays anew, if it is not that of this launch.
void prepare_shared_regions(Block& block);

Region* find_region(uintptr_t address);
bool is_constant(uintptr_t address);            // in a part of the kernel's image that is never written
std::string describe_stray(uintptr_t address);  // what lies nearest to an address that belongs to no region

}  // namespace simt
