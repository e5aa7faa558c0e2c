// Operations in which the lanes of a warp meet: shuffles, votes, __syncwarp, ldmatrix, mma.
#include "warp.h"

#include <string.h>

#include "check.h"

namespace simt {

namespace {

void complete_syncwarp(Warp& warp, Meeting& meeting) {
  if (machine.checking) check_syncwarp(warp, meeting.mask);
}

unsigned source_lane(const Shuffle& shuffle, unsigned lane) {  // CUDA C++ Programming Guide, "Warp Shuffle Functions"
  int self = static_cast<int>(lane), first = self & ~(shuffle.width - 1), end = first + shuffle.width, source = self;
  switch (shuffle.mode) {
    case kShuffle:
      source = first | (shuffle.argument & (shuffle.width - 1));
      break;
    case kShuffleUp:
      source = self - shuffle.argument;
      break;
    case kShuffleDown:
      source = self + shuffle.argument;
      break;
    default:
      source = self ^ shuffle.argument;
  }
  bool outside = source >= end || (shuffle.mode == kShuffleUp && source < first) || source < 0;
  return outside ? lane : static_cast<unsigned>(source);
}

void complete_shuffle(Warp&, Meeting& meeting) {
  for (uint32_t lanes = meeting.arrived; lanes; lanes &= lanes - 1) {
    auto lane = static_cast<unsigned>(__builtin_ctz(lanes));
    auto& shuffle = *static_cast<Shuffle*>(meeting.operands[lane]);
    unsigned source = source_lane(shuffle, lane);
    if (!(meeting.arrived >> source & 1))
      fail(Kind::warp, meeting.pc, "shuffle: lane %u reads lane %u, which takes no part (mask %08x)", lane, source,
           meeting.mask);
    shuffle.result = static_cast<Shuffle*>(meeting.operands[source])->value;
  }
}

void complete_ballot(Warp&, Meeting& meeting) {
  unsigned votes = 0;
  for (uint32_t lanes = meeting.arrived; lanes; lanes &= lanes - 1) {
    int lane = __builtin_ctz(lanes);
    if (static_cast<Vote*>(meeting.operands[lane])->predicate) votes |= 1u << lane;
  }
  for (uint32_t lanes = meeting.arrived; lanes; lanes &= lanes - 1)
    static_cast<Vote*>(meeting.operands[__builtin_ctz(lanes)])->votes = votes;
}

struct Operation {
  const char* name;
  void (*complete)(Warp& warp, Meeting& meeting);
  bool aligned;  // all 32 lanes have to execute the same instruction
};
const Operation kOperations[] = {
    {"__syncwarp", complete_syncwarp, false}, {"a shuffle", complete_shuffle, false},
    {"a vote", complete_ballot, false},       {"ldmatrix", complete_ldmatrix, true},
    {"mma tf32", complete_mma_tf32, true},    {"mma bf16", complete_mma_bf16, true},
    {"mma f16", complete_mma_f16, true},
};

Meeting& find_meeting(Warp& warp, uint32_t mask, int operation, int line, const void* pc) {
  if (warp.meetings[0].mask == mask) return warp.meetings[0];  // the common case
  Meeting* unused = nullptr;
  for (Meeting& m : warp.meetings) {
    if (m.mask == mask) return m;
    if (m.mask & mask)
      fail(Kind::warp, pc, "%s with mask %08x, while lanes %08x wait in %s with mask %08x at %s",
           operation_name(operation), mask, m.arrived, operation_name(m.operation), m.mask, place(m.pc).c_str());
    if (!m.mask) unused = &m;
  }
  if (!unused) fail(Kind::warp, pc, "more than 4 warp operations under way in one warp");
  unused->mask = mask, unused->arrived = 0;
  unused->operation = operation, unused->line = line, unused->pc = pc;
  return *unused;
}

void check_arrival(const Warp& warp, const Meeting& m, int operation, int line, const void* pc) {
  const char* name = operation_name(operation);
  if (m.operation != operation)
    fail(Kind::warp, pc, "divergent warp: %s, while lanes %08x wait in %s at %s", name, m.arrived,
         operation_name(m.operation), place(m.pc).c_str());
  if (kOperations[operation].aligned && m.line != line)
    fail(Kind::warp, pc, "divergent warp: %s, while lanes %08x wait at %s", name, m.arrived, place(m.pc).c_str());
  if (m.mask & warp.exited)
    fail(Kind::warp, pc, "%s with mask %08x, but lanes %08x have exited", name, m.mask, m.mask & warp.exited);
}

void complete(Warp& warp, Meeting& meeting) {
  kOperations[meeting.operation].complete(warp, meeting);
  meeting.mask = 0;
  warp.ready |= meeting.arrived;
}

}  // namespace

const char* operation_name(int operation) { return kOperations[operation].name; }

void meet(uint32_t mask, int operation, int line, const void* pc, void* operands) {
  Thread& self = *machine.current;
  Warp& warp = *self.warp;
  if (kOperations[operation].aligned && (mask & warp.members) != ~0u)
    fail(Kind::warp, pc, "%s needs a warp of 32 threads", operation_name(operation));
  if (!(mask >> self.lane & 1))
    fail(Kind::warp, pc, "lane %u is not in the mask %08x of its %s", self.lane, mask, operation_name(operation));
  Meeting& meeting = find_meeting(warp, mask & warp.members, operation, line, pc);
  check_arrival(warp, meeting, operation, line, pc);
  meeting.arrived |= 1u << self.lane;
  meeting.operands[self.lane] = operands;
  if (meeting.arrived == meeting.mask) complete(warp, meeting);
  else wait();
}

void warp_when_thread_exits(Thread& thread) {
  for (const Meeting& m : thread.warp->meetings)
    if (m.mask >> thread.lane & 1)
      fail(Kind::warp, m.pc, "lane %u exited while lanes %08x wait for it in %s", thread.lane, m.arrived,
           operation_name(m.operation));
}

}  // namespace simt

using namespace simt;

void simt_syncwarp(unsigned mask, int line) { meet(mask, kSyncwarp, line, SIMT_CALLER, nullptr); }

unsigned long long simt_shuffle(unsigned mask, unsigned long long bits, int mode, int argument, int width, int line) {
  Shuffle shuffle{bits, 0, mode, argument, width};
  meet(mask, kShuffleOperation, line, SIMT_CALLER, &shuffle);
  return shuffle.result;
}

unsigned simt_ballot(unsigned mask, int predicate, int line) {
  Vote vote{predicate, 0};
  meet(mask, kBallot, line, SIMT_CALLER, &vote);
  return vote.votes;
}
