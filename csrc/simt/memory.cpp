#include "memory.h"

#include <cxxabi.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>

#include "machine.h"

namespace simt {

namespace {

std::map<uintptr_t, Region> globals;  // by start; they do not overlap
Region* last_global = nullptr;

bool contains(const Region& region, uintptr_t address) { return address >= region.start && address < region.end; }

std::string demangled(const char* symbol) {  // "kernel(int*)::array" -> "kernel::array"
  int status = 0;
  char* full = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  std::string name = full ? full : symbol;
  free(full);
  size_t array = name.rfind("::"), open = name.find('(');
  if (array == std::string::npos || open == std::string::npos || open > array) return name;
  return name.substr(0, open) + name.substr(array);
}

size_t distance(const Region& region, uintptr_t address) {
  return address < region.start ? region.start - address : address - region.end;
}

std::string describe_distance(const Region& region, uintptr_t address) {
  bool before = address < region.start;
  return std::to_string(distance(region, address)) + (before ? " bytes before " : " bytes past the end of ") +
         region.name + (region.shared ? " (shared, " : " (global, ") + std::to_string(region.end - region.start) +
         " bytes)";
}

int find_read_only_segment(dl_phdr_info* info, size_t, void* data) {
  auto& address = *static_cast<uintptr_t*>(data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && !(segment.p_flags & PF_W) && address >= start && address < start + segment.p_memsz)
      return 1;
  }
  return 0;
}

}  // namespace

Region::Region(uintptr_t start_, size_t bytes, std::string name_, bool shared_, bool initialised_, bool read_only_)
    : start(start_),
      end(start_ + bytes),
      name(std::move(name_)),
      shared(shared_),
      initialised(initialised_),
      read_only(read_only_) {}

void Region::prepare(uintptr_t address, unsigned bytes) {
  unsigned fitting = shift;
  while (fitting && ((address - start) | bytes) & ((1u << fitting) - 1)) --fitting;
  if (cells.empty()) {
    shift = fitting;
    cells.resize(((end - start - 1) >> shift) + 1);
    if (initialised)
      for (Cell& cell : cells) cell.flags = kInitialised;
  } else if (fitting < shift) {
    std::vector<Cell> finer(((end - start - 1) >> fitting) + 1);
    for (size_t i = 0; i < finer.size(); ++i) finer[i] = cells[i >> (shift - fitting)];
    cells.swap(finer);
    shift = fitting;
  }
}

std::string Region::describe(uintptr_t address) const { return name + "+" + std::to_string(address - start); }

void add_global(uintptr_t start, size_t bytes, const std::string& name, bool initialised, bool read_only) {
  if (bytes == 0) return;
  last_global = nullptr;
  Region added(start, bytes, name, false, initialised, read_only);
  auto next = globals.upper_bound(start);
  if (next != globals.begin() && std::prev(next)->second.end > start) --next;
  while (next != globals.end() && next->second.start < added.end) {
    Region& old = next->second;
    if (old.start == added.start && old.end == added.end) added.cells = std::move(old.cells), added.shift = old.shift;
    added.start = std::min(added.start, old.start), added.end = std::max(added.end, old.end);
    added.initialised = added.initialised || old.initialised, added.read_only = added.read_only && old.read_only;
    added.references += old.references;
    if (added.name != old.name) added.name = old.name + "=" + added.name;
    next = globals.erase(next);
  }
  globals.emplace(added.start, std::move(added));
}

void remove_global(uintptr_t address) {
  Region* region = find_region(address);
  if (region && !region->shared && --region->references == 0) globals.erase(region->start);
  last_global = nullptr;
}

void mark_initialised(uintptr_t start, size_t bytes) {
  Region* region = find_region(start);
  if (!region || bytes == 0) return;
  if (start == region->start && start + bytes == region->end) region->initialised = true;
  if (region->cells.empty() && region->initialised) return;
  region->prepare(start, static_cast<unsigned>(bytes));
  for (size_t i = region->cell(start); i <= region->cell(start + bytes - 1); ++i)
    region->cells[i].flags |= kInitialised;
}

void prepare_shared_regions(Block& block) {
  auto dynamic = reinterpret_cast<uintptr_t>(block.dynamic_shared);
  const Launch& launch = *machine.launch;
  if (block.regions_of == launch.kernel && !block.regions.empty() && block.regions.back().start == dynamic &&
      block.regions.back().end == dynamic + launch.dynamic_bytes)
    return;
  block.regions.clear();
  for (const SharedArray* array = launch.kernel->shared; array->address; ++array)
    block.regions.emplace_back(reinterpret_cast<uintptr_t>(array->address), array->bytes, demangled(array->symbol),
                               true, false, false);
  block.regions.emplace_back(dynamic, launch.dynamic_bytes, "dynamic shared memory", true, false, false);
  block.regions_of = launch.kernel;
}

Region* find_region(uintptr_t address) {
  if (machine.current)
    for (Region& region : machine.current->block->regions)
      if (contains(region, address)) return &region;
  if (last_global && contains(*last_global, address)) return last_global;
  auto next = globals.upper_bound(address);
  if (next == globals.begin()) return nullptr;
  Region& candidate = std::prev(next)->second;
  return contains(candidate, address) ? last_global = &candidate : nullptr;
}

bool is_constant(uintptr_t address) { return dl_iterate_phdr(find_read_only_segment, &address) != 0; }

std::string describe_stray(uintptr_t address) {
  const Region* nearest = nullptr;
  auto consider = [&](const Region& region) {
    if (region.end > region.start && (!nearest || distance(region, address) < distance(*nearest, address)))
      nearest = &region;
  };
  for (const Region& region : machine.current->block->regions) consider(region);
  for (const auto& entry : globals) consider(entry.second);
  if (!nearest || distance(*nearest, address) > 1 << 30) return "far from any array";
  return describe_distance(*nearest, address);
}

}  // namespace simt
