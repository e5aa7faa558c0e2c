// Signals while a launch runs: what the processor refuses, and the end of the time that the launch may take.
#pragma once
#include <signal.h>
#include <sys/time.h>

namespace simt {

// While it lives, faults and overtime of a kernel end the launch with an error.
class SignalHandlers {
 public:
  SignalHandlers();
  ~SignalHandlers();

 private:
  struct sigaction old_[4];
  stack_t old_stack_;
  itimerval old_timer_;
};

}  // namespace simt
