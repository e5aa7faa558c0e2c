// The thread team. A job is f(tid, nt), run once on each of nt threads, the caller being thread 0.
//
// * A call from inside a job, or while another Python thread has the team, runs serially: f(0, 1).
// * Jobs must not throw. Results must not depend on nt: divide what is written, never a sum.
// * After fork() the child starts its own workers at its first job.
#pragma once
#include <cstddef>

namespace dlcore {

using Index = std::ptrdiff_t;

int usable_cores();  // that this process may run on
int num_threads();
void set_num_threads(int n);

class Team {
 public:
  // Runs f(tid, nt) on min(num_threads(), limit) threads and waits for all.
  template <class F>
  void run(const F& f, int limit = 1 << 20) {
    dispatch([](const void* p, int tid, int nt) { (*static_cast<const F*>(p))(tid, nt); }, &f, limit);
  }
  // Inside a job: waits until every thread of it has come here.
  void barrier();

 private:
  using Job = void (*)(const void* context, int tid, int nt);
  void dispatch(Job job, const void* context, int limit);
};

Team& team();

struct Range {
  Index begin, end;
};

// The units of a job, [0, n). Each thread takes those of its own part, some at a time and fewer towards the end, and
// then those of other parts that nobody has begun: cores are seldom equally fast.
class Shares {
 public:
  explicit Shares(Index threads);  // at most so many
  ~Shares();
  Shares(const Shares&) = delete;
  Shares& operator=(const Shares&) = delete;

  // The next units of thread tid of nt, from `least` to `most` where there are so many; false: all are taken.
  bool take(int tid, int nt, Index n, Index least, Index most, Range* units);
  // f(i) for every unit that this thread takes, one at a time.
  template <class F>
  void each(int tid, int nt, Index n, const F& f) {
    for (Range one; take(tid, nt, n, 1, 1, &one);) f(one.begin);
  }
  // The part of thread tid from its start, to be used after the next barrier. No thread may be taking until then.
  void restart(int tid);

 private:
  struct Part;
  static constexpr Index kFew = 8;
  alignas(64) unsigned char own_[kFew * 64];  // of few threads: an allocation takes as long as a small product
  Part* const parts_;
};

// f(begin, end) over parts of [begin, end), on as many threads as get `grain` each; once over all where that is one.
void parallel_parts(Index begin, Index end, Index grain, void (*f)(const void* context, Index begin, Index end),
                    const void* context);
template <class F>
void parallel_for(Index begin, Index end, Index grain, const F& f) {
  parallel_parts(
      begin, end, grain, [](const void* p, Index from, Index to) { (*static_cast<const F*>(p))(from, to); }, &f);
}

}  // namespace dlcore
