// What the memory accesses of warps cost: a request is one instruction of a warp.
//
// Global memory: sectors of 32 bytes, and how many the distinct addresses would fill. Shared memory: wavefronts; the
// lanes go in 1, 2 or 4 turns for 4, 8 or 16 bytes each, half as many where lanes n and n^1 (or n and n^2) want the
// same address, and a turn takes as many wavefronts as its busiest bank of 32 has distinct words.
#include <string.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_map>

#include "check.h"
#include "memory.h"

namespace simt {

namespace {

constexpr unsigned kSector = 32, kBanks = 32;

struct Request {
  uint32_t pc;
  uint16_t bytes;
  uint8_t kind;
  bool shared;
  uint32_t active = 0;
  uintptr_t address[kWarpSize];
};

struct Counter {
  uint64_t requests = 0, lanes = 0, units = 0, ideal = 0;
  void operator+=(const Counter& other) {
    requests += other.requests, lanes += other.lanes;
    units += other.units, ideal += other.ideal;
  }
};
struct Traffic {
  uint64_t launches = 0, read = 0, written = 0;
};

using Instruction = std::tuple<uint32_t, unsigned, unsigned, bool>;  // pc, bytes, kind, shared
std::map<Instruction, Counter> of_launch;
std::map<std::pair<std::string, std::string>, std::map<Instruction, Counter>> counters;  // by kernel and image
std::map<std::string, Traffic> traffic;
uint32_t launch_number = 0;

// ---- one request

template <class Visit>
void for_each_lane(const Request& r, Visit visit) {
  for (uint32_t lanes = r.active; lanes; lanes &= lanes - 1) visit(static_cast<unsigned>(__builtin_ctz(lanes)));
}

// The distinct ones of at most 32 x 5 numbers.
class Distinct {
 public:
  void add(uintptr_t value) {
    if (size_ && values_[size_ - 1] == value) return;
    values_[size_++] = value;
  }
  unsigned finish() {
    if (!std::is_sorted(values_, values_ + size_)) std::sort(values_, values_ + size_);
    return size_ = static_cast<unsigned>(std::unique(values_, values_ + size_) - values_);
  }
  uintptr_t operator[](unsigned i) const { return values_[i]; }

 private:
  unsigned size_ = 0;
  uintptr_t values_[5 * kWarpSize];
};

void add_words(Distinct& words, const Request& r, unsigned lane) {
  for (uintptr_t w = r.address[lane] / 4; w <= (r.address[lane] + r.bytes - 1) / 4; ++w) words.add(w);
}

void touch(uintptr_t sector, bool writes) {
  Region* region = find_region(sector * kSector);
  if (!region) region = find_region(sector * kSector + kSector - 1);  // an array that begins within the sector
  if (!region) return;
  auto& launches = writes ? region->sectors_written : region->sectors_read;
  if (launches.empty()) launches.resize((region->end - 1) / kSector - region->start / kSector + 1);
  uint32_t& last = launches[sector - region->start / kSector];
  if (last == launch_number) return;
  last = launch_number;
  Traffic& t = traffic[machine.launch->kernel->name];
  (writes ? t.written : t.read) += kSector;
}

void count_global(const Request& r, Counter& counter) {
  Distinct addresses, sectors;
  for_each_lane(r, [&](unsigned lane) {
    addresses.add(r.address[lane]);
    for (uintptr_t s = r.address[lane] / kSector; s <= (r.address[lane] + r.bytes - 1) / kSector; ++s) sectors.add(s);
  });
  unsigned distinct = sectors.finish();
  counter.units += distinct;
  counter.ideal += (addresses.finish() * r.bytes + kSector - 1) / kSector;
  for (unsigned i = 0; i < distinct; ++i) {
    if (!(r.kind & kWrite)) touch(sectors[i], false);
    if (r.kind & (kWrite | kAtomicAccess)) touch(sectors[i], true);
  }
}

// Wavefronts of the active lanes among `lanes` lanes from `first` on.
unsigned wavefronts(const Request& r, unsigned first, unsigned lanes) {
  Distinct words;
  for (unsigned lane = first; lane < first + lanes; ++lane)
    if (r.active >> lane & 1) add_words(words, r, lane);
  unsigned distinct = words.finish(), busiest = 0, of_bank[kBanks] = {};
  for (unsigned i = 0; i < distinct; ++i) busiest = std::max(busiest, ++of_bank[words[i] % kBanks]);
  return busiest;
}

bool neighbours_share(const Request& r, unsigned distance) {
  bool all = true;
  for_each_lane(r, [&](unsigned lane) {
    unsigned other = lane ^ distance;
    all = all && (!(r.active >> other & 1) || r.address[lane] == r.address[other]);
  });
  return all;
}

void count_shared(const Request& r, Counter& counter) {
  if (r.kind & kMatrixAccess) {
    for (unsigned matrix = 0; matrix < kWarpSize && r.active >> matrix; matrix += 8) {
      counter.units += wavefronts(r, matrix, 8);
      counter.ideal += 1;
    }
    return;
  }
  unsigned turns = r.bytes <= 4 ? 1 : r.bytes <= 8 ? 2 : 4, units = 0;
  if (turns > 1 && (neighbours_share(r, 1) || neighbours_share(r, 2))) turns /= 2;
  for (unsigned turn = 0; turn < turns; ++turn) units += wavefronts(r, turn * kWarpSize / turns, kWarpSize / turns);
  Distinct words;
  for_each_lane(r, [&](unsigned lane) { add_words(words, r, lane); });
  unsigned ideal = std::max((words.finish() + kBanks - 1) / kBanks, r.bytes == 16 ? 2u : 1u);
  counter.units += units;
  counter.ideal += std::min(ideal, units);
}

void count(const Request& r) {
  if (!r.active) return;
  Counter& counter = of_launch[{r.pc, r.bytes, r.kind, r.shared}];
  ++counter.requests;
  counter.lanes += r.kind & kMatrixAccess ? kWarpSize : static_cast<unsigned>(__builtin_popcount(r.active));
  if (r.shared) count_shared(r, counter);
  else count_global(r, counter);
}

// ---- from the lanes' logs to requests

bool same_instruction(const AccessRecord& a, const AccessRecord& b) {
  return a.pc == b.pc && a.bytes == b.bytes && a.kind == b.kind && a.shared == b.shared;
}

void add(Request& request, unsigned lane, const AccessRecord& record) {
  if (!record.address) return;  // a copy of nothing
  request.active |= 1u << lane;
  request.address[lane] = record.address;
}

bool in_step(const std::vector<Thread*>& lanes) {
  for (const Thread* lane : lanes) {
    if (lane->log.size() != lanes[0]->log.size()) return false;
    for (size_t i = 0; i < lane->log.size(); ++i)
      if (!same_instruction(lane->log[i], lanes[0]->log[i])) return false;
  }
  return true;
}

Request request_of(const AccessRecord& record) { return {record.pc, record.bytes, record.kind, record.shared, 0, {}}; }

// The n-th access of each lane by the same instruction belongs to one request.
void count_diverged(const std::vector<Thread*>& lanes) {
  std::map<std::pair<Instruction, unsigned>, Request> requests;
  for (const Thread* lane : lanes) {
    std::map<Instruction, unsigned> times;
    for (const AccessRecord& a : lane->log) {
      Instruction instruction{a.pc, a.bytes, a.kind, a.shared};
      unsigned n = times[instruction]++;
      add(requests.try_emplace({instruction, n}, request_of(a)).first->second, lane->lane, a);
    }
  }
  for (const auto& entry : requests) count(entry.second);
}

void count_in_step(const std::vector<Thread*>& lanes) {
  for (size_t i = 0; i < lanes[0]->log.size(); ++i) {
    Request request = request_of(lanes[0]->log[i]);
    for (const Thread* lane : lanes) add(request, lane->lane, lane->log[i]);
    count(request);
  }
}

std::string operation(unsigned kind, bool shared) {
  const char* space = shared ? ".shared" : ".global";
  const char* what = kind & kMatrixAccess   ? "ldmatrix"
                     : kind & kAsyncAccess  ? "cp.async"
                     : kind & kAtomicAccess ? "atom"
                     : kind & kWrite        ? "st"
                                            : "ld";
  return std::string(what) + space;
}

}  // namespace

void count_launch_begins() {
  ++launch_number;
  ++traffic[machine.launch->kernel->name].launches;
}

void count_launch_ends() {
  auto& whole = counters[{machine.launch->kernel->name, machine.image}];
  for (const auto& [instruction, counter] : of_launch) whole[instruction] += counter;
  of_launch.clear();
}

void count_warp(Warp& warp) {
  std::vector<Thread*> lanes;
  bool any = false;
  for (uint32_t members = warp.members; members; members &= members - 1) {
    lanes.push_back(warp.lane(static_cast<unsigned>(__builtin_ctz(members))));
    any = any || !lanes.back()->log.empty();
  }
  if (!any) return;
  if (in_step(lanes)) count_in_step(lanes);
  else count_diverged(lanes);
  for (Thread* lane : lanes) lane->log.clear();
}

std::string take_counters() {
  using Row = std::tuple<std::string, std::string, std::string, unsigned>;  // kernel, place, operation, bytes
  std::map<Row, Counter> rows;
  for (const auto& [origin, of_instructions] : counters) {
    const auto& [kernel, image] = origin;
    std::vector<uintptr_t> offsets;
    for (const auto& entry : of_instructions) offsets.push_back(std::get<0>(entry.first));
    look_up_lines(image, offsets);
    for (const auto& [instruction, counter] : of_instructions) {
      const auto& [pc, bytes, kind, shared] = instruction;
      rows[{kernel, source_line(image, pc), operation(kind, shared), bytes}] += counter;
    }
  }
  std::string lines;
  for (const auto& [key, c] : rows) {
    const auto& [kernel, where, what, bytes] = key;
    lines += kernel + "\t" + where + "\t" + what;
    for (uint64_t number : {uint64_t(bytes), c.requests, c.lanes, c.units, c.ideal})
      lines += "\t" + std::to_string(number);
    lines += "\n";
  }
  counters.clear();
  return lines;
}

std::string take_traffic() {
  std::string lines;
  for (const auto& [kernel, t] : traffic)
    lines += kernel + "\t" + std::to_string(t.launches) + "\t" + std::to_string(t.read) + "\t" +
             std::to_string(t.written) + "\n";
  traffic.clear();
  return lines;
}

}  // namespace simt
