// The emulated machine: threads are fibers, 32 of them a warp; the blocks of an ordinary launch run one after another,
// those of a cooperative launch together. Exactly one fiber runs at any time, until it waits or ends.
#pragma once
#include <stdint.h>

#include <memory>
#include <string>
#include <vector>

#define SIMT_RUNTIME  // the built-in variables can be written
#include "abi.h"
#include "fiber.h"
#include "memory.h"

namespace simt {

constexpr unsigned kWarpSize = 32;

struct Block;
struct Warp;

// What went wrong.
enum class Kind {
  bounds,
  alignment,
  shared_race,
  global_race,
  uninitialised,
  async,
  barrier,
  warp,
  arithmetic,
  stack,
  time,
  trap
};

// An access to memory by a thread of a checked kernel, until its warp's are counted.
struct AccessRecord {
  uintptr_t address;
  uint32_t pc;  // offset in the image
  uint16_t bytes;
  uint8_t kind;
  bool shared;
};

struct AsyncCopy {
  char* shared;
  const char* global;
  unsigned bytes, source_bytes;
  const void* pc;
};

struct Thread {
  Fiber fiber;
  uint3 index;
  unsigned rank, lane;  // in block, in warp
  Warp* warp;
  Block* block;
  std::vector<AsyncCopy> copies;  // not yet landed
  std::vector<size_t> groups;     // committed groups: how many of `copies` each ends after
  std::vector<AccessRecord> log;  // in checked mode
  bool fenced;                    // has executed __threadfence
};

// Lanes of a warp that meet in one operation. The last to arrive completes it for all.
struct Meeting {
  uint32_t mask = 0, arrived = 0;  // mask 0: not in use
  int operation = 0, line = 0;
  const void* pc = nullptr;
  void* operands[kWarpSize];
};

struct Warp {
  Block* block;
  unsigned rank;                    // in block
  uint32_t members, ready, exited;  // masks of lanes
  uint32_t epoch;                   // counts what orders the whole warp's memory accesses
  Meeting meetings[4];              // of disjoint masks
  Thread* lane(unsigned l) const;
};

// A barrier of a block, or of the grid.
struct Barrier {
  unsigned arrived = 0;
  int line = 0;
  const void* pc = nullptr;
  const Thread* first = nullptr;
};

struct Block {
  uint3 index;
  unsigned number;       // in the grid
  unsigned size, alive;  // threads
  std::unique_ptr<Thread[]> threads;
  unsigned capacity = 0;
  std::vector<Warp> warps;
  Barrier barrier;
  unsigned sum = 0, last_sum = 0;  // of the predicates of the barrier under way, of the last one
  std::vector<char> dynamic;       // dynamic shared memory
  char* dynamic_shared = nullptr;  // aligned
  std::vector<char> saved;         // static shared memory, while another block runs
  std::vector<Region> regions;     // in checked mode: its shared arrays
  const Kernel* regions_of = nullptr;
  uint32_t interval, first_interval;  // in checked mode: now, and at its start
};

inline Thread* Warp::lane(unsigned l) const { return &block->threads[rank * kWarpSize + l]; }

inline void make_all_ready(Block& block) {
  for (Warp& warp : block.warps) warp.ready = warp.members;
}

struct Launch {
  const Kernel* kernel;
  dim3 grid, block;
  size_t dynamic_bytes;
  bool cooperative;
  void** arguments;
};

enum class Order { forward, reverse, random };

// The one machine of this process.
struct Machine {
  Thread* current = nullptr;
  Fiber host;
  const Launch* launch = nullptr;
  std::vector<std::unique_ptr<Block>> blocks;  // kept from launch to launch
  size_t resident = 0;                         // blocks that run now
  Block* running = nullptr;                    // the one whose static shared memory is in place
  unsigned alive = 0;                          // threads of the resident blocks
  Barrier grid_barrier;
  Order order = Order::forward;
  uint64_t seed = 0, random = 0;
  bool eager_copies = false;  // cp.async lands at once (of all legal moments the first) or at the wait (the last)
  bool checking = false;      // whether the kernel that runs is of a checked build
  std::string image;          // the file that holds it, and where that is loaded
  uintptr_t image_base = 0;
  unsigned time_limit = 300;  // seconds of processor time that a launch may take
  bool failed = false;        // the launch under way
  std::string error;          // of the last launch, "" if none
};
extern Machine machine;

// launch.cpp
bool run(const Launch& launch);  // false: machine.error says what went wrong
std::string describe_launch();   // kernel, grid, block
// Ends the launch. The source line of `pc`, unless it is null, and the message become its error.
[[noreturn]] void fail(Kind kind, const void* pc, const char* format, ...) __attribute__((format(printf, 3, 4)));

// schedule.cpp
void wait();                // other threads run; returns when somebody made this one ready and its turn has come
void start(Block& block);   // the first thread of `block` runs; returns when all threads have ended, or one failed
[[noreturn]] void leave();  // a thread that has ended gives its turn away

// barrier.cpp
void barrier_when_thread_exits(Thread& thread);

// warp.cpp
void meet(uint32_t mask, int operation, int line, const void* pc, void* operands);
void warp_when_thread_exits(Thread& thread);
const char* operation_name(int operation);

// async.cpp
void async_when_thread_exits(Thread& thread);

// place.cpp
std::string place(const void* pc);               // stands for a source line in a message, until resolve_places
std::string resolve_places(const std::string&);  // puts "file.cu:12" in their stead; not to be called by fibers
std::string source_line(const std::string& image, uintptr_t offset);
void look_up_lines(const std::string& image, const std::vector<uintptr_t>& offsets);  // of many at once

#define SIMT_CALLER __builtin_return_address(0)

}  // namespace simt
