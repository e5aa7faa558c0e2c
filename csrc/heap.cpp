#include "heap.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <iterator>

namespace dlcore {
namespace {

constexpr std::size_t kStep = std::size_t{32} << 20;  // by which the usable part grows
constexpr std::size_t kHuge = std::size_t{2} << 20;   // a huge page
constexpr std::size_t kLeast = std::size_t{256} << 20;

char* rounded_up(char* p, std::size_t unit) {
  return reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(p) + unit - 1) / unit * unit);
}

}  // namespace

Heap::Heap(std::size_t most) {
  for (; most >= kLeast; most /= 2) {  // a process may have a limit on addresses
    void* const found = mmap(nullptr, most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) continue;
    base_ = top_ = usable_ = rounded_up(static_cast<char*>(found), kHuge);
    end_ = static_cast<char*>(found) + most;
#ifdef MADV_HUGEPAGE
    madvise(base_, std::size_t(end_ - base_), MADV_HUGEPAGE);  // a hint: its failure changes nothing
#endif
    return;
  }
}

void* Heap::take(std::size_t bytes) {
  const auto fit = by_size_.lower_bound({bytes, nullptr});
  if (fit == by_size_.end()) {
    const auto last = free_.empty() ? free_.end() : std::prev(free_.end());
    const bool at_top = last != free_.end() && last->first + last->second.bytes == top_;
    if (!grow(bytes - (at_top ? last->second.bytes : 0))) return nullptr;
    char* const found = top_ - bytes;
    if (at_top) erase(last);
    return found;
  }
  char* const at = fit->second;
  const Piece piece = erase(free_.find(at));
  if (piece.bytes > bytes) insert(at + bytes, {piece.bytes - bytes, piece.given_back});
  return at;
}

// Moves the top up, over memory that is usable.
bool Heap::grow(std::size_t bytes) {
  if (bytes > std::size_t(end_ - top_)) return false;
  if (char* const top = top_ + bytes; top > usable_) {
    char* const usable = std::min(end_, rounded_up(top, kStep));
    if (mprotect(usable_, std::size_t(usable - usable_), PROT_READ | PROT_WRITE) != 0) return false;
    usable_ = usable;
  }
  top_ += bytes;
  return true;
}

void Heap::give(void* block, std::size_t bytes) {
  char* at = static_cast<char*>(block);
  Piece piece{bytes, false};
  auto after = free_.lower_bound(at);
  if (after != free_.begin())
    if (const auto before = std::prev(after); before->first + before->second.bytes == at) {
      at = before->first;
      piece.bytes += erase(before).bytes;
    }
  if (after != free_.end() && after->first == static_cast<char*>(block) + bytes) piece.bytes += erase(after).bytes;
  insert(at, piece);
}

void Heap::insert(char* at, Piece piece) {
  free_.emplace(at, piece);
  by_size_.emplace(piece.bytes, at);
  if (!piece.given_back) cached_ += piece.bytes;
}

Heap::Piece Heap::erase(Pieces::iterator place) {
  const Piece piece = place->second;
  by_size_.erase({piece.bytes, place->first});
  free_.erase(place);
  if (!piece.given_back) cached_ -= piece.bytes;
  return piece;
}

void Heap::trim() {
  const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
  for (auto& [at, piece] : free_) {
    char* const first = rounded_up(at, page);
    char* const last = rounded_up(at + piece.bytes - page + 1, page);  // where the last whole page ends
    if (!piece.given_back && last > first) madvise(first, std::size_t(last - first), MADV_DONTNEED);
    piece.given_back = true;
  }
  cached_ = 0;
}

}  // namespace dlcore
