// Large blocks from one range of addresses: a freed block joins its free neighbours, and the smallest free piece that
// is large enough is taken. So a process needs little more memory than its arrays at their most, whatever their sizes.
// Not thread-safe.
#pragma once
#include <cstddef>
#include <map>
#include <set>
#include <utility>

namespace dlcore {

class Heap {
 public:
  explicit Heap(std::size_t most);  // bytes of addresses; memory comes when it is first written to

  void* take(std::size_t bytes);  // a multiple of 64; null where there is no room
  bool owns(const void* block) const { return block >= base_ && block < top_; }
  void give(void* block, std::size_t bytes);
  std::size_t cached() const { return cached_; }  // bytes of free pieces, but for those given back to the system
  void trim();                                    // give all free pieces back

 private:
  struct Piece {
    std::size_t bytes;
    bool given_back;
  };
  using Pieces = std::map<char*, Piece>;

  bool grow(std::size_t bytes);
  void insert(char* at, Piece piece);
  Piece erase(Pieces::iterator piece);

  char *base_ = nullptr, *top_ = nullptr, *usable_ = nullptr, *end_ = nullptr;
  std::size_t cached_ = 0;
  Pieces free_;  // by address; no two touch
  std::set<std::pair<std::size_t, char*>> by_size_;
};

}  // namespace dlcore
