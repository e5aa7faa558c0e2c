#include "signals.h"

#include <dlfcn.h>
#include <pthread.h>
#include <ucontext.h>

#include "machine.h"

namespace simt {

namespace {

constexpr int kSignals[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGVTALRM};
pthread_t launching_thread;

uintptr_t interrupted_pc(void* context) {
#if defined(__x86_64__)
  return static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.pc);
#else
  (void)context;
  return 0;
#endif
}

bool in_kernel(uintptr_t pc) {
  Dl_info info;
  return dladdr(reinterpret_cast<void*>(pc), &info) &&
         reinterpret_cast<uintptr_t>(info.dli_fbase) == machine.image_base;
}

itimerval timer(time_t seconds, suseconds_t microseconds) { return {{0, 0}, {seconds, microseconds}}; }

// A launch is ended in the kernel's own code only: the runtime may be in the midst of a change.
void on_overtime(uintptr_t pc) {
  if (in_kernel(pc))
    fail(Kind::time, reinterpret_cast<void*>(pc + 1), "the launch takes more than %u seconds of processor time",
         machine.time_limit);
  itimerval soon = timer(0, 500);
  setitimer(ITIMER_VIRTUAL, &soon, nullptr);
}

void on_signal(int number, siginfo_t* info, void* context) {
  bool own = pthread_equal(pthread_self(), launching_thread) && machine.current;
  uintptr_t pc = interrupted_pc(context);
  const void* after = reinterpret_cast<void*>(pc + 1);
  if (number == SIGVTALRM) {
    if (!pthread_equal(pthread_self(), launching_thread)) pthread_kill(launching_thread, SIGVTALRM);
    else if (machine.current) on_overtime(pc);
    return;
  }
  if (!own) {
    signal(number, SIG_DFL);
    return;
  }
  if (number == SIGFPE) fail(Kind::arithmetic, after, "integer division by zero");
  const Fiber& fiber = machine.current->fiber;
  if (fiber.overflowed() || fiber.is_just_below(info->si_addr)) fail(Kind::stack, after, "stack overflow");
  fail(Kind::bounds, after, "out-of-bounds access: address %p is not mapped", info->si_addr);
}

}  // namespace

SignalHandlers::SignalHandlers() {
  static char stack[64 * 1024];
  stack_t own{};
  own.ss_sp = stack, own.ss_size = sizeof stack;
  sigaltstack(&own, &old_stack_);
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
  for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &action, &old_[i]);
  launching_thread = pthread_self();
  itimerval limit = timer(machine.time_limit, 0);
  setitimer(ITIMER_VIRTUAL, &limit, &old_timer_);
}

SignalHandlers::~SignalHandlers() {
  setitimer(ITIMER_VIRTUAL, &old_timer_, nullptr);
  for (int i = 0; i < 4; ++i) sigaction(kSignals[i], &old_[i], nullptr);
  sigaltstack(&old_stack_, nullptr);
}

}  // namespace simt
