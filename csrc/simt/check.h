// The checked mode: every access to memory is seen, checked against what other threads did, and counted.
#pragma once
#include <stdint.h>

#include <string>

#include "machine.h"

namespace simt {

// ---- what is wrong (issues.cpp)

// Notes what is wrong at `pc`, done by the running thread. The same at the same places is counted, not noted again.
void add_issue(Kind kind, const void* pc, const void* other_pc, const std::string& text);
void forget_issues();
std::string finish_issues();  // at the end of a launch: the first as a message, or ""
std::string list_issues();    // one a line: kind, kernel, place, block, thread, count, text, separated by tabs

// ---- what happens (shadow.cpp, counters.cpp)

enum AccessKind : unsigned { kRead = 0, kWrite = 1, kAtomicAccess = 2, kAsyncAccess = 4, kMatrixAccess = 8 };

void check_access(uintptr_t address, unsigned bytes, unsigned kind, const void* pc);
void check_no_access(unsigned bytes, unsigned kind, const void* pc);  // where other lanes may have one
void check_launch_begins();
void check_block_begins(Block& block);
void check_barrier(Block& block);  // of the block: a new interval begins
void check_block_ends(Block& block);
void check_grid_barrier();
void check_syncwarp(Warp& warp, uint32_t mask);
void check_fence(Thread& thread);
void check_atomic(uintptr_t address);  // may order this block after others
void check_landed(const AsyncCopy& copy);

void count_warp(Warp& warp);  // the accesses that its lanes have logged since the last time
void count_launch_begins();
void count_launch_ends();
std::string take_counters();  // one a line: kernel, place, operation, bytes, requests, lanes, units, ideal
std::string take_traffic();   // one a line: kernel, launches, compulsory bytes read and written

}  // namespace simt
