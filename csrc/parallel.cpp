#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace dlcore {
namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits for ready(): spins, and after a while lets others have the core.
template <class F>
void spin_until(F ready) {
  for (int i = 0; !ready(); ++i) i < 2000 ? pause() : std::this_thread::yield();
}

constexpr auto kSpin = std::chrono::microseconds(100);  // before a worker goes to sleep

template <class F>
bool spin_for_a_while(F ready) {
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < kSpin);
  return ready();
}

// ---- cores. The system often puts a woken thread, or a new one, where its caller runs, and leaves it there: each then
// waits for the other to be preempted. So workers keep off their caller's core.

#ifdef __linux__
int core_here() { return sched_getcpu(); }  // -1: nobody can tell

// Lets a thread run wherever the process may, but for one core. False: it may run as before.
bool forbid(pthread_t thread, int core) {
  cpu_set_t cores;
  if (core < 0 || sched_getaffinity(getpid(), sizeof(cores), &cores) != 0 || CPU_COUNT(&cores) < 2) return false;
  CPU_CLR(core, &cores);
  return pthread_setaffinity_np(thread, sizeof(cores), &cores) == 0;
}
#else
int core_here() { return -1; }
bool forbid(pthread_t, int) { return false; }
#endif

// ---- workers

struct Task {
  void (*job)(const void*, int, int);
  const void* context;
  int width;
  int core;  // the caller's
  std::atomic<int> remaining;
};

thread_local int width_here = 0;  // threads of the job this thread is in; 0 outside

// Runs one thread's part of a job.
void run_part(void (*job)(const void*, int, int), const void* context, int tid, int width) {
  const int outer = width_here;
  width_here = width;
  job(context, tid, width);
  width_here = outer;
}

class Worker {
 public:
  explicit Worker(int tid) : tid_(tid), thread_([this] { loop(); }) {}
  ~Worker() {
    Task stop{nullptr, nullptr, 0, -1, {0}};
    post(&stop);
    thread_.join();
  }
  void post(Task* task) {
    mailbox_.store(task);
    if (asleep_.load()) {
      if (task->core != avoided_) keep_off(thread_.native_handle(), task->core);
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_one();
    }
  }

 private:
  void keep_off(pthread_t thread, int core) {
    if (forbid(thread, core)) avoided_ = core;
  }
  Task* next() {
    const auto posted = [this] { return mailbox_.load() != nullptr; };
    if (!spin_for_a_while(posted)) {
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.store(true);
      wake_.wait(lock, posted);
      asleep_.store(false);
    }
    return mailbox_.exchange(nullptr);
  }
  void loop() {
    while (true) {
      Task* task = next();
      if (task->job == nullptr) return;
      if (task->core == core_here()) keep_off(pthread_self(), task->core);
      run_part(task->job, task->context, tid_, task->width);
      task->remaining.fetch_sub(1, std::memory_order_release);
    }
  }

  const int tid_;
  std::atomic<int> avoided_{-1};  // the core that this thread keeps off
  alignas(64) std::atomic<Task*> mailbox_{nullptr};
  alignas(64) std::atomic<bool> asleep_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;  // last: starts when the rest is there
};

struct Pool {
  std::mutex busy;  // held during a job
  std::vector<std::unique_ptr<Worker>> workers;
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<int> generation{0};

  void resize(int n) {
    if (int(workers.size()) > n) workers.resize(n);
    if (int(workers.size()) == n) return;
    sigset_t all, before;  // workers take no signals: Python's handlers belong to the main thread
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (int(workers.size()) < n) workers.push_back(std::make_unique<Worker>(int(workers.size()) + 1));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
};

std::atomic<Pool*> current{nullptr};
std::atomic<int> wanted{0};

// The child of a fork has no workers, and perhaps a mutex nobody will release: forget both.
void forget_pool() { current.store(nullptr); }

Pool& pool() {
  Pool* p = current.load(std::memory_order_acquire);
  if (p != nullptr) return *p;
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
  auto fresh = std::make_unique<Pool>();
  if (current.compare_exchange_strong(p, fresh.get())) return *fresh.release();
  return *p;
}

struct AtExit {
  ~AtExit() {
    Pool* p = current.load();
    if (p != nullptr && p->busy.try_lock()) {
      p->workers.clear();
      p->busy.unlock();
    }
  }
} at_exit;

}  // namespace

int usable_cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  const int n = int(std::thread::hardware_concurrency());
  return n > 0 ? n : 1;
}

int num_threads() {
  const int n = wanted.load(std::memory_order_relaxed);
  if (n > 0) return n;
  int none = 0;
  wanted.compare_exchange_strong(none, usable_cores());
  return wanted.load();
}

void set_num_threads(int n) {
  Pool& p = pool();
  std::lock_guard<std::mutex> lock(p.busy);
  wanted.store(n);
  if (int(p.workers.size()) > n - 1) p.resize(n - 1);
}

Team& team() {
  static Team the_team;
  return the_team;
}

void Team::dispatch(Job job, const void* context, int limit) {
  int width = num_threads();
  if (limit < width) width = limit;
  if (width <= 1 || width_here != 0) return run_part(job, context, 0, 1);
  Pool& p = pool();
  std::unique_lock<std::mutex> lock(p.busy, std::try_to_lock);
  if (!lock.owns_lock()) return run_part(job, context, 0, 1);
  p.resize(num_threads() - 1);
  if (int(p.workers.size()) < width - 1) width = int(p.workers.size()) + 1;
  Task task{job, context, width, core_here(), {width - 1}};
  for (int t = 1; t < width; ++t) p.workers[t - 1]->post(&task);
  run_part(job, context, 0, width);
  spin_until([&] { return task.remaining.load(std::memory_order_acquire) == 0; });
}

void Team::barrier() {
  if (width_here <= 1) return;
  Pool& p = *current.load(std::memory_order_relaxed);
  const int generation = p.generation.load(std::memory_order_acquire);
  if (p.arrived.fetch_add(1, std::memory_order_acq_rel) == width_here - 1) {
    p.arrived.store(0, std::memory_order_relaxed);
    p.generation.store(generation + 1, std::memory_order_release);
  } else {
    spin_until([&] { return p.generation.load(std::memory_order_acquire) != generation; });
  }
}

struct alignas(64) Shares::Part {
  std::atomic<Index> taken{0};
};

Shares::Shares(Index threads)
    : parts_(threads <= kFew ? reinterpret_cast<Part*>(own_) : new Part[std::size_t(threads)]) {
  static_assert(sizeof(own_) == kFew * sizeof(Part));
  for (Index i = 0; i < std::max<Index>(1, threads) && threads <= kFew; ++i) new (parts_ + i) Part;
}
Shares::~Shares() {
  if (reinterpret_cast<unsigned char*>(parts_) != own_) delete[] parts_;
}

bool Shares::take(int tid, int nt, Index n, Index least, Index most, Range* units) {
  for (int i = 0; i < nt; ++i) {
    const int owner = (tid + i) % nt;
    const Index first = n * owner / nt, all = n * (owner + 1) / nt - first;
    std::atomic<Index>& taken = parts_[owner].taken;
    for (Index t = taken.load(std::memory_order_relaxed); t < all;) {
      const Index left = all - t, wish = nt == 1 ? left : (left + 1) / 2;
      const Index some = std::min(left, std::clamp(wish, std::min(least, most), most));
      if (!taken.compare_exchange_weak(t, t + some, std::memory_order_relaxed)) continue;
      *units = {first + t, first + t + some};
      return true;
    }
  }
  return false;
}

void Shares::restart(int tid) { parts_[tid].taken.store(0, std::memory_order_relaxed); }

void parallel_parts(Index begin, Index end, Index grain, void (*f)(const void*, Index, Index), const void* context) {
  constexpr Index kBlocks = 16, kLine = 64;  // blocks of a grain; of as many elements as keep lines whole
  const Index n = end - begin, limit = std::min<Index>(n / std::max<Index>(1, grain), num_threads());
  if (n <= 0) return;
  if (limit <= 1) return f(context, begin, end);
  const Index block = grain < kBlocks * kLine ? std::max<Index>(1, grain / kBlocks) : grain / kBlocks / kLine * kLine;
  Shares shares(limit);
  team().run(
      [&](int tid, int nt) {
        for (Range r; shares.take(tid, nt, (n + block - 1) / block, 1, n, &r);)
          f(context, begin + r.begin * block, std::min(end, begin + r.end * block));
      },
      int(limit));
}

}  // namespace dlcore
