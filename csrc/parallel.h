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

// f(begin, end) over equal parts of [begin, end), one per thread, none (but a single one) shorter than grain.
template <class F>
void parallel_for(Index begin, Index end, Index grain, const F& f) {
  const Index n = end - begin;
  if (n <= 0) return;
  const Index parts = n / (grain > 0 ? grain : 1);
  team().run([&](int tid, int nt) { f(begin + n * tid / nt, begin + n * (tid + 1) / nt); },
             parts<1 ? 1 : parts>(1 << 20) ? 1 << 20 : int(parts));
}

}  // namespace dlcore
