// The threads behind parallel_for: each thread that calls has a team of its own. A thread begins with its own part of the chunks, so that it meets in its
// caches what it wrote in the kernel before, and goes on with the others' parts. Chunks are taken one by one, and the caller waits for those that are being
// worked on, never for a worker that has not come yet. OpenMP's regions end when every thread has come: on a processor that others use, too, the caller and
// the worker it waits for may be on the same core, where waiting keeps the worker from coming.
#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

namespace dg {
namespace {

constexpr int kOpen = 1 << 30;        // of a team's state: there may be chunks left; below it the number of workers that look for them
// Looks for work before a worker sleeps, and at the last chunks before the caller does: first without a pause, some 0.4 and 0.02 ms, then giving the core to
// whoever waits for it, some 10 ms. Waking a thread takes longer than most kernels, on a virtual machine above all.
constexpr int kWorkerTurns = 20000, kCallerTurns = 1000, kYields = 20000;

thread_local int number = 0;
thread_local bool busy = false;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Team {
 public:
  ~Team() {
    stop_ = true;
    announce();
    for (std::thread& worker : workers_) worker.join();
  }

  void run(int threads, int64_t chunks, ChunkFunction f, const void* body) {
    grow(threads - 1);
    f_ = f, body_ = body, threads_ = threads;
    const auto bound = [&](int64_t part) { return chunks / threads * part + chunks % threads * part / threads; };
    for (int i = 0; i < threads; i++) {
      parts_[i].next.store(bound(i), std::memory_order_relaxed);
      parts_[i].end = bound(i + 1);
    }
    state_.fetch_or(kOpen, std::memory_order_release);
    announce();
    work();
    int left = state_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    for (int turn = 0; left != 0; turn++) {
      if (turn < kCallerTurns) relax();
      else if (turn < kCallerTurns + kYields) sched_yield();
      else state_.wait(left, std::memory_order_acquire);
      left = state_.load(std::memory_order_acquire);
    }
  }

 private:
  void announce() {
    jobs_.fetch_add(1, std::memory_order_release);
    jobs_.notify_all();
  }

  // Fewer workers than asked for, if the system gives no more, only take longer.
  void grow(int count) {
    if (int(parts_.size()) <= count) parts_ = std::vector<Part>(count + 1);
    try {
      while (int(workers_.size()) < count) workers_.emplace_back([this, mine = int(workers_.size()) + 1] { serve(mine); });
    } catch (const std::system_error&) {
    }
  }

  void work() {
    busy = true;
    for (int i = 0; i < threads_; i++) {
      Part& part = parts_[(number + i) % threads_];
      for (int64_t c; (c = part.next.fetch_add(1, std::memory_order_relaxed)) < part.end;) f_(body_, c);
    }
    busy = false;
  }

  void serve(int mine) {
    number = mine;
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "dinograd");
#endif
    for (int seen = 0;;) {
      int now = seen;
      for (int turn = 0; turn < kWorkerTurns + kYields && now == seen; turn++) {
        if (turn < kWorkerTurns) relax();
        else sched_yield();
        now = jobs_.load(std::memory_order_acquire);
      }
      if (now == seen) {
        jobs_.wait(seen, std::memory_order_acquire);
        now = jobs_.load(std::memory_order_acquire);
      }
      seen = now;
      if (stop_) return;
      // What is read of a job is not written while a worker is counted that found it open.
      if ((state_.fetch_add(1, std::memory_order_acq_rel) & kOpen) && mine < threads_) work();
      if (state_.fetch_sub(1, std::memory_order_acq_rel) == 1) state_.notify_one();
    }
  }

  alignas(64) std::atomic<int> jobs_{0};
  alignas(64) std::atomic<int> state_{0};
  alignas(64) ChunkFunction f_ = nullptr;
  const void* body_ = nullptr;
  int threads_ = 0;
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  std::vector<Part> parts_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

thread_local std::unique_ptr<Team> team;

}  // namespace

bool in_parallel() { return busy; }
int thread_number() { return number; }

void share_chunks(int threads, int64_t chunks, ChunkFunction f, const void* body) {
  if (!team) team = std::make_unique<Team>();
  team->run(threads, chunks, f, body);
}

}  // namespace dg
