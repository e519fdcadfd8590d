// What the parts of the emulator share: settings, device memory and its state, reports, and who is running.
#pragma once
#define DG_EMULATION_IMPLEMENTATION
#include "emulation.h"

#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>

#pragma GCC visibility push(hidden)  // so that the checks reach all of this without a table of addresses
namespace emulation {

// ---- settings

inline constexpr int kMaxDevices = 8;
inline constexpr size_t kStack = 128 << 10, kShared = 228 << 10, kArguments = 4096, kGuard = 1024;
inline constexpr unsigned kMaxThreads = 1024;

struct Settings {
  int devices = 1;
  int64_t memory = int64_t(4) << 30;
  int order = 0;  // 0 forward, 1 reverse, 2 shuffle
  bool random_streams = false, races = false;
  uint64_t seed = 1;
  std::string fails;  // the call of this name with this number
  int failing_call = 1;
};
const Settings& settings();
std::mt19937_64& random_source();
// Whether a call of this name, counted here, is the one that is to fail.
bool fails(const char* name);

// One call of the run time at a time: workers of the caller share the emulated devices.
extern std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

// ---- memory: one range of addresses, a part of it a device; stacks of fibres; shared memory of the running block

enum State : uint8_t { kNone, kFresh, kWritten, kFreed };

// Whom an access of a byte was by: epoch (32 bits) | epoch of the warp (20) | thread + 1 (12).
struct Trace {
  uint64_t writer, first_reader, last_reader;
};

struct Device {
  std::map<uintptr_t, int64_t> segments;  // what cudaMalloc gave
  int64_t used = 0;
};

extern uintptr_t arena, arena_end, device_span, image, image_end, stacks, stacks_end;
extern uint8_t* states;       // of the arena's bytes
extern Trace* arena_traces;   // the same, if races of device memory are looked for
extern Device devices[kMaxDevices];
extern std::map<uintptr_t, int64_t> live;  // blocks in use, for reports
extern unsigned char shared_data[kShared];
extern uint8_t shared_states[kShared];
extern Trace shared_traces[kShared];

// Reserves it all at the first call; false if that is not possible.
bool start();
inline bool in_arena(uintptr_t address) { return address - arena < arena_end - arena; }
inline uint8_t* state_at(uintptr_t address) { return states + (address - arena); }
inline int device_of(uintptr_t address) { return int((address - arena) / device_span); }
inline void mark(uintptr_t address, int64_t bytes, State state) { std::memset(state_at(address), state, size_t(bytes)); }
inline bool all_allocated(const uint8_t* state, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (state[i] != kFresh && state[i] != kWritten) return false;
  return true;
}

// ---- errors

extern thread_local int current;  // the device of a host thread
extern cudaError_t pending;  // what cudaGetLastError will say
extern std::string report_text;

cudaError_t error(cudaError_t code);
__attribute__((format(printf, 1, 2))) std::string text(const char* format, ...);
// The first report stands until it has been asked for.
void report(const std::string& what);
// Where an address lies, from the nearest block.
std::string where(uintptr_t address);

// ---- the running kernel

// Of this host thread: others may be in code of the library that is checked, too.
extern constinit thread_local bool in_kernel __attribute__((tls_model("initial-exec")));
extern int kernel_device;
extern uintptr_t kernel_memory;  // of that device: the first of device_span addresses
// Steps between which there is no order: since the last barrier, since the block began, since the launch began.
extern uint32_t epoch, block_epoch, launch_epoch;
extern bool acquired;  // the block has seen what others did, through an atomic operation

struct Fibre {
  void* stack_pointer = nullptr;
  uintptr_t stack = 0;
  uint3 thread{};
  unsigned number = 0;
};
extern Fibre* running;
extern std::vector<uint32_t> warp_epochs;

// Does a kernel, to its end or its first report.
void run_grid(const Call& call, int device);
// Before a thread waits or ends: whether its last store, where another had stored before, changed what was there. Then it is a race.
void settle_store();
// What atomic operations have changed since the last call of forget_changes() gets its value of then: counters that the launch will not bring back to 0.
void undo_changes();
void forget_changes();
// Reports and ends the running thread and its launch.
[[noreturn]] __attribute__((format(printf, 1, 2))) void abandon(const char* format, ...);

}  // namespace emulation
#pragma GCC visibility pop
