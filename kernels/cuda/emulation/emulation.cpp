// Executes CUDA kernels on the host and checks what they do.
//
// Threads of a block run one after the other; one that waits (barrier, warp operation) does so in a fibre of its own. The translation units with
// kernels are compiled with the instrumentation of the compiler's thread sanitizer, which calls __tsan_read4(address) and its like before every
// access: those functions are defined here, and its run time is not linked. Device memory is one reserved range of addresses with a state for every byte, so an access
// outside live memory, of the wrong device, misaligned, or a read of what was never written is reported with kernel, block and thread; for
// shared memory (and for device memory with DINOGRAD_EMULATED_RACES=1) the last writer and readers of every address are kept, so that two threads that
// meet there without a barrier between them are reported, in whatever order they happened to run.
//
// Settings, from the environment when the first call is made: DINOGRAD_EMULATED_DEVICES (1), DINOGRAD_EMULATED_MEMORY (bytes a device, 4 GiB),
// DINOGRAD_EMULATED_ORDER (forward, reverse, shuffle: of the threads and blocks), DINOGRAD_EMULATED_STREAMS (eager, or random: work waits in its
// stream and is done at random moments in a legal order), DINOGRAD_EMULATED_SEED (1), DINOGRAD_EMULATED_RACES (0).
#define DG_EMULATION_IMPLEMENTATION
#include "emulation.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <utility>

namespace emulation {

Place place;

namespace {

constexpr int kMaxDevices = 8;
constexpr size_t kStack = 128 << 10, kShared = 228 << 10, kArguments = 4096, kGuard = 1024;
constexpr unsigned kMaxThreads = 1024;
enum State : uint8_t { kNone, kFresh, kWritten, kFreed };

struct Settings {
  int devices = 1;
  int64_t memory = int64_t(4) << 30;
  int order = 0;  // 0 forward, 1 reverse, 2 shuffle
  bool random_streams = false, races = false;
  uint64_t seed = 1;
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

Settings read_settings() {
  Settings s;
  if (const auto v = environment("DINOGRAD_EMULATED_DEVICES"); !v.empty()) s.devices = std::clamp(std::atoi(v.c_str()), 0, kMaxDevices);
  if (const auto v = environment("DINOGRAD_EMULATED_MEMORY"); !v.empty())
    s.memory = std::clamp<int64_t>(std::atoll(v.c_str()), 0, int64_t(16) << 30);
  const auto order = environment("DINOGRAD_EMULATED_ORDER");
  s.order = order == "reverse" ? 1 : order == "shuffle" ? 2 : 0;
  s.random_streams = environment("DINOGRAD_EMULATED_STREAMS") == "random";
  s.races = environment("DINOGRAD_EMULATED_RACES") == "1";
  if (const auto v = environment("DINOGRAD_EMULATED_SEED"); !v.empty()) s.seed = std::strtoull(v.c_str(), nullptr, 10);
  return s;
}

const Settings& settings() {
  static const Settings instance = read_settings();
  return instance;
}

// Addresses of a device; fewer where each has a trace.
uintptr_t span() { return uintptr_t(settings().races ? 4 : 32) << 30; }

std::mt19937_64& random_source() {
  static std::mt19937_64 instance(settings().seed);
  return instance;
}

// One call of the run time at a time: workers of the caller share the emulated devices.
std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

// ---- memory

uintptr_t arena = 0, arena_end = 0, device_span = 1, image = 0, image_end = 0, stacks = 0, stacks_end = 0;
uint8_t* states = nullptr;
struct Device {
  std::map<uintptr_t, int64_t> segments;  // what cudaMalloc gave
  int64_t used = 0;
};
Device devices[kMaxDevices];
std::map<uintptr_t, int64_t> live;  // blocks in use, for reports
std::map<uintptr_t, size_t> pinned;

// Whom an access of a byte was by: epoch (32 bits) | epoch of the warp (20) | thread + 1 (12).
struct Trace {
  uint64_t writer, first_reader, last_reader;
};
Trace* arena_traces = nullptr;
alignas(128) unsigned char shared_data[kShared];
uint8_t shared_states[kShared];
Trace shared_traces[kShared];
alignas(64) unsigned char argument_data[kArguments];

void* reserve(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

int find_image(dl_phdr_info* info, size_t, void*) {
  const uintptr_t self = reinterpret_cast<uintptr_t>(&shared_data);
  uintptr_t low = UINTPTR_MAX, high = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    low = std::min<uintptr_t>(low, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    high = std::max<uintptr_t>(high, info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz);
  }
  if (self < low || self >= high) return 0;
  image = low;
  image_end = high;
  return 1;
}

bool start() {
  static const bool done = [] {
    const size_t bytes = (device_span = span()) * kMaxDevices;
    void* memory = reserve(bytes);
    states = static_cast<uint8_t*>(reserve(bytes));
    void* stack_memory = reserve(kStack * kMaxThreads);
    if (!memory || !states || !stack_memory) return false;
    if (settings().races && !(arena_traces = static_cast<Trace*>(reserve(bytes * sizeof(Trace))))) return false;
    stacks = reinterpret_cast<uintptr_t>(stack_memory);
    stacks_end = stacks + kStack * kMaxThreads;
    dl_iterate_phdr(find_image, nullptr);
    arena_end = (arena = reinterpret_cast<uintptr_t>(memory)) + bytes;
    return true;
  }();
  return done;
}

int device_of(uintptr_t address) { return int((address - arena) / device_span); }
void mark(uintptr_t address, int64_t bytes, State state) { std::memset(states + (address - arena), state, size_t(bytes)); }

// ---- errors

int current = 0;
cudaError_t pending = cudaSuccess;
std::string report_text;

cudaError_t error(cudaError_t code) {
  if (code != cudaSuccess) pending = code;
  return code;
}

__attribute__((format(printf, 1, 2))) std::string text(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

// The first report stands until it has been asked for.
void report(const std::string& what) {
  if (pending == cudaErrorIllegalAddress) return;
  report_text = what;
  pending = cudaErrorIllegalAddress;
}

std::string where(uintptr_t address) {
  auto next = live.upper_bound(address);
  if (next != live.begin()) {
    const auto [start, bytes] = *std::prev(next);
    const int64_t offset = int64_t(address - start);
    if (offset < bytes) return text("at byte %lld of a block of %lld bytes", static_cast<long long>(offset), static_cast<long long>(bytes));
    if (offset < bytes + int64_t(kGuard) || next == live.end())
      return text("%lld bytes behind a block of %lld bytes", static_cast<long long>(offset - bytes), static_cast<long long>(bytes));
  }
  if (next != live.end())
    return text("%lld bytes before a block of %lld bytes", static_cast<long long>(next->first - address), static_cast<long long>(next->second));
  return "far from every block";
}

// ---- fibres

struct Context {
  void* stack_pointer = nullptr;
};
__attribute__((naked, noinline)) void switch_stack(void**, void*) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}

struct Fibre {
  Context context;
  uintptr_t stack = 0;
  uint3 thread{};
  unsigned number = 0;
};

// A meeting of the lanes named in `mask`; values are double-buffered by generation.
struct Meeting {
  uint32_t mask = 0, arrived = 0, generation = 0, took[2];
  uint64_t values[2][32];
  const char* op[2];
  std::vector<Fibre*> waiting;
};

struct Block {
  const Call* call = nullptr;
  unsigned threads = 0, next = 0, alive = 0, waiting = 0, generation = 0, sums[2] = {};
  int line = 0;
  Context scheduler;
  Fibre* running = nullptr;
  std::vector<Fibre*> idle, ready, at_barrier;
  std::vector<std::vector<Meeting>> meetings;
  std::vector<uint32_t> exited, warp_epochs;
  std::vector<unsigned> order;
  struct Piece {
    const void* site;
    size_t offset;
  };
  std::vector<Piece> pieces;
  size_t shared_used = 0;
  bool failed = false, acquired = false;
} block;

std::unique_ptr<Fibre[]> fibres;
uint32_t epoch = 0, block_epoch = 0, launch_epoch = 0;
// Of this host thread: others may be in code of the library that is checked, too.
thread_local __attribute__((tls_model("initial-exec"))) bool in_kernel = false;

void leave() { switch_stack(&block.running->context.stack_pointer, block.scheduler.stack_pointer); }

void release_barrier() {
  block.ready.insert(block.ready.end(), block.at_barrier.begin(), block.at_barrier.end());
  block.at_barrier.clear();
  block.waiting = 0;
  block.generation++;
  epoch++;
}

void complete(Meeting& meeting, unsigned warp) {
  meeting.took[meeting.generation & 1] = meeting.arrived;
  meeting.arrived = 0;
  meeting.generation++;
  block.warp_epochs[warp]++;
  block.ready.insert(block.ready.end(), meeting.waiting.begin(), meeting.waiting.end());
  meeting.waiting.clear();
}

uint3 position(unsigned number) {
  const dim3& size = place.block_size;
  return {number % size.x, number / size.x % size.y, number / (size.x * size.y)};
}

void fibre_main() {
  for (;;) {
    while (block.next < block.threads) {
      Fibre* self = block.running;
      self->number = block.order[block.next++];
      self->thread = place.thread = position(self->number);
      block.call->run(argument_data);
      self = block.running;
      const unsigned warp = self->number / 32;
      block.exited[warp] |= 1u << (self->number % 32);
      for (Meeting& meeting : block.meetings[warp])
        if (meeting.arrived && meeting.arrived == (meeting.mask & ~block.exited[warp])) complete(meeting, warp);
      if (--block.alive && block.waiting == block.alive) release_barrier();
    }
    block.idle.push_back(block.running);
    leave();
  }
}

void prepare(Fibre* fibre) {
  void** top = reinterpret_cast<void**>((fibre->stack + kStack) & ~uintptr_t(15));
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(fibre_main);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fibre->context.stack_pointer = top;
}

void reset_fibres() {
  if (!fibres) {
    fibres = std::make_unique<Fibre[]>(kMaxThreads);
    for (unsigned i = 0; i < kMaxThreads; i++) fibres[i].stack = stacks + i * kStack;
  }
  block.idle.clear();
  for (unsigned i = kMaxThreads; i-- > 0;) {
    prepare(&fibres[i]);
    block.idle.push_back(&fibres[i]);
  }
}

std::string running_place() {
  const uint3 b = place.block, t = block.running ? block.running->thread : uint3{};
  return text("kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", block.call->name, b.x, b.y, b.z, t.x, t.y, t.z);
}

// Reports and ends the running thread and its launch.
[[noreturn]] __attribute__((format(printf, 1, 2))) void abandon(const char* format, ...) {
  in_kernel = false;  // what follows is the emulator's own work, some of it through functions that the linker took from a checked file
  char what[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  report(running_place() + ": " + what);
  block.failed = true;
  leave();
  __builtin_unreachable();
}

void run_block() {
  const unsigned warps = (block.threads + 31) / 32;
  block.next = 0;
  block.alive = block.threads;
  block.waiting = 0;
  block.acquired = false;
  block.exited.assign(warps, 0);
  block.warp_epochs.assign(warps, 0);
  if (block.meetings.size() < warps) block.meetings.resize(warps);
  for (unsigned i = 0; i < warps; i++) block.meetings[i].clear();
  block.ready.clear();
  block.at_barrier.clear();
  block.pieces.clear();
  std::memset(shared_states, 0, block.shared_used);
  block.shared_used = (block.call->shared + 15) / 16 * 16;
  std::memset(shared_states, kFresh, block.call->shared);
  block_epoch = ++epoch;
  while (block.alive && !block.failed) {
    Fibre* fibre;
    if (block.next < block.threads) {
      fibre = block.idle.back();
      block.idle.pop_back();
    } else if (!block.ready.empty()) {
      fibre = block.ready.back();
      block.ready.pop_back();
    } else {
      report(text("kernel %s, block (%u, %u, %u): deadlock, %u threads wait at __syncthreads and %u at a warp operation", block.call->name,
                  place.block.x, place.block.y, place.block.z, block.waiting, block.alive - block.waiting));
      block.failed = true;
      break;
    }
    block.running = fibre;
    place.thread = fibre->thread;
    switch_stack(&block.scheduler.stack_pointer, fibre->context.stack_pointer);
  }
}

void run_grid(const Call& call, int device) {
  if (call.arguments.size() > kArguments) return report(text("kernel %s: arguments of %zu bytes, at most %zu", call.name, call.arguments.size(), kArguments));
  const int before = current;
  current = device;
  std::memcpy(argument_data, call.arguments.data(), call.arguments.size());
  place.block_size = call.block;
  place.grid_size = call.grid;
  block.call = &call;
  block.threads = call.block.x * call.block.y * call.block.z;
  block.failed = false;
  if (!fibres) reset_fibres();
  block.order.resize(block.threads);
  std::iota(block.order.begin(), block.order.end(), 0u);
  const int order = settings().order;
  if (order == 1) std::reverse(block.order.begin(), block.order.end());
  const uint64_t blocks = uint64_t(call.grid.x) * call.grid.y * call.grid.z;
  launch_epoch = ++epoch;
  in_kernel = true;
  for (uint64_t i = 0; i < blocks && !block.failed; i++) {
    const uint64_t at = order == 1 ? blocks - 1 - i : i;
    if (order == 2) std::shuffle(block.order.begin(), block.order.end(), random_source());
    place.block = {unsigned(at % call.grid.x), unsigned(at / call.grid.x % call.grid.y), unsigned(at / (uint64_t(call.grid.x) * call.grid.y))};
    run_block();
  }
  in_kernel = false;
  if (block.failed) reset_fibres();
  current = before;
}

// ---- checks of accesses

constexpr unsigned kAtomic = 0xfff;  // in place of a thread's number: atomic operations do not race with each other

uint64_t stamp() {
  const unsigned number = block.running->number;
  return uint64_t(epoch) << 32 | uint64_t(block.warp_epochs[number / 32] & 0xfffff) << 12 | (number + 1);
}

bool meets(uint64_t before, uint64_t now, bool shared) {
  if ((before & 0xfff) == (now & 0xfff)) {
    if (uint32_t(before >> 32) >= block_epoch) return false;  // the thread itself
  }
  const uint32_t then = uint32_t(before >> 32);
  if (then < launch_epoch) return false;
  if (then < block_epoch) return !shared && !block.acquired;  // another block of this launch
  if (then != epoch) return false;
  const bool one_warp = ((before & 0xfff) - 1) / 32 == ((now & 0xfff) - 1) / 32;
  return !one_warp || (before >> 12 & 0xfffff) == (now >> 12 & 0xfffff);
}

void trace(Trace* traces, size_t bytes, bool write, bool shared, uint64_t now) {
  const char* const memory = shared ? "shared" : "device";
  for (size_t i = 0; i < bytes; i += 2) {
    Trace& it = traces[i];
    const bool wrote = meets(it.writer, now, shared), read = write && (meets(it.first_reader, now, shared) || meets(it.last_reader, now, shared));
    if (wrote || read) {
      const uint64_t other = wrote ? it.writer : meets(it.first_reader, now, shared) ? it.first_reader : it.last_reader;
      const std::string who = (other & 0xfff) == kAtomic ? "an atomic operation" : text("thread %u", unsigned(other & 0xfff) - 1);
      abandon("race in %s memory: %s what %s %s, with no barrier between them", memory, write ? "writes" : "reads", who.c_str(),
                   wrote ? "writes" : "reads");
    }
    if (write) {
      it.writer = now;
    } else {
      if (uint32_t(it.first_reader >> 32) != epoch) it.first_reader = now;
      it.last_reader = now;
    }
  }
}

// Of an access that the compiler may have put together from the members of a struct.
size_t alignment_of(size_t bytes) { return std::min<size_t>(bytes & -bytes, 16); }

[[noreturn]] __attribute__((noinline)) void bad_access(uintptr_t address, size_t bytes, bool write) {
  in_kernel = false;
  const char* verb = write ? "writes" : "reads";
  if (address < arena || address >= arena_end) abandon("%s %zu bytes of host memory at %#zx", verb, bytes, size_t(address));
  if (device_of(address) != current)
    abandon("%s %zu bytes of device %d while it runs on device %d", verb, bytes, device_of(address), current);
  if (address % alignment_of(bytes) != 0) abandon("%s %zu bytes at a misaligned address, %s", verb, bytes, where(address).c_str());
  for (size_t i = 0; i < bytes; i++) {
    const uint8_t state = states[address + i - arena];
    if (state == kNone) abandon("%s %zu bytes outside its buffers, %s", verb, bytes, where(address + i).c_str());
    if (state == kFreed) abandon("%s %zu bytes of freed memory, %s", verb, bytes, where(address + i).c_str());
    if (state == kFresh && !write) abandon("reads %zu bytes that were never written, %s", bytes, where(address + i).c_str());
  }
  abandon("an access that the checks disagree about");
}

template <size_t n>
inline bool all_written(const uint8_t* state) {
  if constexpr (n == 1) return *state == kWritten;
  else {
    using U = std::conditional_t<n == 2, uint16_t, std::conditional_t<n == 4, uint32_t, uint64_t>>;
    U v;
    std::memcpy(&v, state, sizeof v);
    constexpr U wanted = U(~U(0)) / 255 * kWritten;
    if constexpr (n == 16) {
      U w;
      std::memcpy(&w, state + 8, sizeof w);
      return v == wanted && w == wanted;
    }
    return v == wanted;
  }
}

inline bool all_allocated(const uint8_t* state, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (state[i] != kFresh && state[i] != kWritten) return false;
  return true;
}

__attribute__((noinline)) void shared_access(uintptr_t address, size_t bytes, bool write) {
  const size_t at = address - reinterpret_cast<uintptr_t>(shared_data);
  const char* verb = write ? "writes" : "reads";
  if (address % alignment_of(bytes) != 0) abandon("%s %zu bytes of shared memory at a misaligned address", verb, bytes);
  for (size_t i = 0; i < bytes; i++) {
    if (at + i >= kShared || shared_states[at + i] == kNone) abandon("%s %zu bytes outside its shared memory, at byte %zu", verb, bytes, at + i);
    if (!write && shared_states[at + i] == kFresh) abandon("reads %zu bytes of shared memory that were never written, at byte %zu", bytes, at + i);
  }
  if (write) std::memset(shared_states + at, kWritten, bytes);
  trace(shared_traces + at, bytes, write, true, stamp());
}

__attribute__((noinline)) void other_access(uintptr_t address, size_t bytes, bool write) {
  if (!in_kernel) {
    if (address - arena < arena_end - arena) report(text("host code %s device memory %s", write ? "writes" : "reads", where(address).c_str()));
    return;
  }
  if (address - reinterpret_cast<uintptr_t>(shared_data) < kShared) return shared_access(address, bytes, write);
  if (address - stacks < stacks_end - stacks || address - image < image_end - image) return;
  bad_access(address, bytes, write);
}

template <size_t n>
inline void access(uintptr_t address, bool write) {
  if (in_kernel && address - arena < arena_end - arena) [[likely]] {
    uint8_t* state = states + (address - arena);
    if (address % n != 0 || device_of(address) != current) bad_access(address, n, write);
    if (!all_written<n>(state)) {
      if (!write || !all_allocated(state, n)) bad_access(address, n, write);
      std::memset(state, kWritten, n);
    }
    if (arena_traces) trace(arena_traces + (address - arena), n, write, false, stamp());
    return;
  }
  other_access(address, n, write);
}

void access_any(uintptr_t address, size_t bytes, bool write) {
  if (!in_kernel || address - arena >= arena_end - arena) return other_access(address, bytes, write);
  uint8_t* state = states + (address - arena);
  if (device_of(address) != current || !all_allocated(state, bytes)) bad_access(address, bytes, write);
  if (write) {
    std::memset(state, kWritten, bytes);
  } else {
    for (size_t i = 0; i < bytes; i++)
      if (state[i] != kWritten) bad_access(address + i, 1, false);
  }
  if (arena_traces) trace(arena_traces + (address - arena), bytes, write, false, stamp());
}

}  // namespace

// ---- what kernels call

void fail_kernel(const char* what) { abandon("%s", what); }

void* shared_memory(const void* site, size_t bytes, size_t alignment) {
  for (const auto& piece : block.pieces)
    if (piece.site == site) return shared_data + piece.offset;
  const size_t offset = (block.shared_used + 64 + alignment - 1) / alignment * alignment;  // a gap, so that running over the end is seen
  if (offset + bytes > kShared) abandon("more than %zu bytes of shared memory", kShared);
  block.pieces.push_back({site, offset});
  block.shared_used = offset + bytes;
  std::memset(shared_states + offset, kFresh, bytes);
  return shared_data + offset;
}

void* dynamic_shared() { return shared_data; }

unsigned lane() { return block.running->number % 32; }

unsigned barrier(unsigned value, int line) {
  if (block.waiting == 0) {
    block.sums[block.generation & 1] = 0;
    block.line = line;
  } else if (block.line != line) {
    abandon("waits at the barrier of line %d while other threads of its block wait at that of line %d", line, block.line);
  }
  const unsigned generation = block.generation & 1;
  block.sums[generation] += value;
  if (++block.waiting == block.alive) {
    release_barrier();
  } else {
    block.at_barrier.push_back(block.running);
    leave();
  }
  return block.sums[generation];
}

unsigned took_part = 0;

void require_lane(unsigned source, const char* op) {
  if (!(took_part >> source & 1)) abandon("%s: reads lane %u, which takes no part", op, source);
}

const uint64_t* exchange(unsigned mask, uint64_t value, const char* op) {
  const unsigned warp = block.running->number / 32, lane = block.running->number % 32, in_warp = std::min(32u, block.threads - warp * 32);
  if (in_warp < 32) mask &= (1u << in_warp) - 1;
  if (!(mask >> lane & 1)) abandon("%s: the calling lane %u is not in the mask %08x", op, lane, mask);
  auto& meetings = block.meetings[warp];
  size_t i = 0;
  while (i < meetings.size() && meetings[i].mask != mask) i++;
  if (i == meetings.size()) {
    meetings.emplace_back();
    meetings[i].mask = mask;
  }
  Meeting& meeting = meetings[i];
  const unsigned generation = meeting.generation & 1;
  if (!meeting.arrived) meeting.op[generation] = op;
  else if (std::strcmp(meeting.op[generation], op) != 0) abandon("%s meets %s in one warp", op, meeting.op[generation]);
  meeting.values[generation][lane] = value;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived == (mask & ~block.exited[warp])) {
    complete(meeting, warp);
  } else {
    meeting.waiting.push_back(block.running);
    leave();
  }
  // Where the caller, whose reads are checked, may look.
  static uint64_t values[32];
  std::memcpy(values, block.meetings[warp][i].values[generation], in_warp * sizeof values[0]);
  took_part = block.meetings[warp][i].took[generation];
  return values;
}

void atomic_access(const void* address, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  const uint64_t now = uint64_t(epoch) << 32 | kAtomic;
  block.acquired = true;
  if (at - arena < arena_end - arena) {
    uint8_t* state = states + (at - arena);
    if (device_of(at) != current || at % bytes != 0 || !all_allocated(state, bytes)) bad_access(at, bytes, true);
    for (size_t i = 0; i < bytes; i++)
      if (state[i] != kWritten) bad_access(at, bytes, false);
    if (arena_traces) trace(arena_traces + (at - arena), bytes, true, false, now);
    return;
  }
  const size_t offset = at - reinterpret_cast<uintptr_t>(shared_data);
  if (offset >= kShared) return other_access(at, bytes, true);
  for (size_t i = 0; i < bytes; i++)
    if (shared_states[offset + i] != kWritten) abandon("an atomic operation on shared memory that was never written, at byte %zu", offset);
  trace(shared_traces + offset, bytes, true, true, now);
}

void check_access(const void* address, size_t bytes, bool write, const char* what) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  if (in_kernel) return access_any(at, bytes, write);
  if (at - arena >= arena_end - arena) return report(text("%s %s %zu bytes of host memory", what, write ? "writes" : "reads", bytes));
  uint8_t* state = states + (at - arena);
  for (size_t i = 0; i < bytes; i++) {
    if (state[i] != kFresh && state[i] != kWritten)
      return report(text("%s %s outside its buffers, %s", what, write ? "writes" : "reads", where(at + i).c_str()));
    if (!write && state[i] != kWritten) return report(text("%s reads what was never written, %s", what, where(at + i).c_str()));
  }
  if (write) std::memset(state, kWritten, bytes);
}

}  // namespace emulation

using namespace emulation;

// ---- the compiler's hooks

extern "C" {
#define DG_HOOKS(n)                                                                                                 \
  void __tsan_read##n(uintptr_t address) { emulation::access<n>(address, false); }                                    \
  void __tsan_write##n(uintptr_t address) { emulation::access<n>(address, true); }                                    \
  void __tsan_unaligned_read##n(uintptr_t address) { emulation::access_any(address, n, false); }                      \
  void __tsan_unaligned_write##n(uintptr_t address) { emulation::access_any(address, n, true); }
DG_HOOKS(1)
DG_HOOKS(2)
DG_HOOKS(4)
DG_HOOKS(8)
DG_HOOKS(16)
void __tsan_read_range(uintptr_t address, size_t bytes) { emulation::access_any(address, bytes, false); }
void __tsan_write_range(uintptr_t address, size_t bytes) { emulation::access_any(address, bytes, true); }
void __tsan_vptr_read(uintptr_t) {}
void __tsan_vptr_update(uintptr_t, uintptr_t) {}
void __tsan_init() {}
// Atomic operations of host code.
#define DG_ATOMICS(bits)                                                                                                                             \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t* at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }                 \
  void __tsan_atomic##bits##_store(volatile uint##bits##_t* at, uint##bits##_t v, int) { __atomic_store_n(at, v, __ATOMIC_SEQ_CST); }                 \
  uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t* at, uint##bits##_t v, int) {                                                \
    return __atomic_exchange_n(at, v, __ATOMIC_SEQ_CST);                                                                                             \
  }                                                                                                                                                  \
  uint##bits##_t __tsan_atomic##bits##_fetch_add(volatile uint##bits##_t* at, uint##bits##_t v, int) {                                               \
    return __atomic_fetch_add(at, v, __ATOMIC_SEQ_CST);                                                                                              \
  }                                                                                                                                                  \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile uint##bits##_t* at, uint##bits##_t* expected, uint##bits##_t v, int, int) {             \
    return __atomic_compare_exchange_n(at, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                                                  \
  }
DG_ATOMICS(8)
DG_ATOMICS(32)
DG_ATOMICS(64)
}

// ---- streams

struct CUevent_st {
  int device = 0;
  uint64_t recorded = 0, done = 0;
  double time = 0;
};

namespace {

struct Op {
  Work work;
  cudaEvent_t event = nullptr;  // with a generation: wait for it
  uint64_t generation = 0;
};

}  // namespace

struct CUgraph_st {
  std::vector<Op> ops;
};
struct CUgraphExec_st {
  std::vector<Op> ops;
};
struct CUstream_st {
  int device = 0;
  std::deque<Op> queue;
  std::unique_ptr<CUgraph_st> capture;
  bool invalidated = false, relaxed = false;
};

namespace {

std::vector<cudaStream_t> streams;

bool runnable(cudaStream_t stream) {
  if (stream->queue.empty()) return false;
  const Op& op = stream->queue.front();
  return !op.event || op.event->done >= op.generation;
}

void run_front(cudaStream_t stream) {
  Op op = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (op.work) op.work();
}

// Does one piece of waiting work of a random stream; false if there is none.
bool step() {
  std::vector<cudaStream_t> able;
  for (cudaStream_t stream : streams)
    if (runnable(stream)) able.push_back(stream);
  if (able.empty()) return false;
  run_front(able[random_source()() % able.size()]);
  return true;
}

cudaError_t push(cudaStream_t stream, Op op) {
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->ops.push_back(std::move(op));
    return cudaSuccess;
  }
  stream->queue.push_back(std::move(op));
  if (!settings().random_streams) {
    while (runnable(stream)) run_front(stream);
  } else {
    while (random_source()() % 3 == 0 && step()) continue;
  }
  return cudaSuccess;
}

cudaError_t drain(cudaStream_t stream) {
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->invalidated = true;
    return error(cudaErrorStreamCaptureUnsupported);
  }
  while (!stream->queue.empty())
    if (!step()) return error(cudaErrorLaunchFailure);
  return pending;
}

double now() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

bool inside(const void* memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  return at - arena < arena_end - arena && bytes <= arena_end - at && (bytes == 0 || all_allocated(states + (at - arena), bytes));
}

bool is_pinned(const void* memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  auto next = pinned.upper_bound(at);
  return next != pinned.begin() && at + bytes <= std::prev(next)->first + std::prev(next)->second;
}

void copy_states(void* to, const void* from, size_t bytes) {
  std::memmove(states + (reinterpret_cast<uintptr_t>(to) - arena), states + (reinterpret_cast<uintptr_t>(from) - arena), bytes);
}

void bad_copy(const char* what, const void* memory, size_t bytes) {
  report(text("%s: %zu bytes of device memory are not live, %s", what, bytes, where(reinterpret_cast<uintptr_t>(memory)).c_str()));
}

}  // namespace

namespace emulation {

std::string leaks() {
  Lock lock(mutex);
  std::string list;
  for (int i = 0; i < kMaxDevices; i++)
    for (const auto& segment : devices[i].segments) list += text("cuda:%d: %lld bytes were not freed\n", i, static_cast<long long>(segment.second));
  return list;
}

void launch_call(cudaStream_t stream, Call call) {
  Lock lock(mutex);
  const dim3 &g = call.grid, &b = call.block;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  if (!stream || !threads || threads > kMaxThreads || b.z > 64 || !g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535 ||
      call.shared > kShared - 1024) {
    error(cudaErrorInvalidConfiguration);
    return;
  }
  const int device = stream->device;
  const auto shared_call = std::make_shared<Call>(std::move(call));
  push(stream, {[shared_call, device] { run_grid(*shared_call, device); }});
}

cudaError_t enqueue(cudaStream_t stream, const char*, Work work) {
  Lock lock(mutex);
  return push(stream, {std::move(work)});
}

void handed_out(void* memory, int64_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  push(stream, {[at, bytes] {
    mark(at, bytes, kFresh);
    live[at] = bytes;
  }});
}

void taken_back(void* memory, int64_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  push(stream, {[at, bytes] {
    mark(at, bytes, kFreed);
    live.erase(at);
  }});
}

}  // namespace emulation

// ---- the run time

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().devices;
  return settings().devices > 0 && start() ? cudaSuccess : error(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= settings().devices) return error(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated CUDA device");
  properties->totalGlobalMem = size_t(settings().memory);
  properties->sharedMemPerBlock = 48 << 10;
  properties->multiProcessorCount = 4;
  properties->major = 9;
  properties->maxThreadsPerMultiProcessor = 2048;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  if (device < 0 || device >= settings().devices) return error(cudaErrorInvalidDevice);
  *value = 1000000;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().devices || !start()) return error(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  Lock lock(mutex);
  for (cudaStream_t stream : streams)
    if (stream->device == current && !stream->capture)
      if (const cudaError_t status = drain(stream)) return status;
  return pending;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(mutex);
  *total = size_t(settings().memory);
  *free = size_t(settings().memory - devices[current].used);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  Lock lock(mutex);
  if (!start()) return error(cudaErrorMemoryAllocation);
  for (cudaStream_t stream : streams)  // only a relaxed capture allows it
    if (stream->capture && !stream->relaxed) return error(cudaErrorStreamCaptureUnsupported);
  Device& device = devices[current];
  const int64_t wanted = int64_t((bytes + kGuard + 511) / 512 * 512);
  if (device.used + int64_t(bytes) > settings().memory) return error(cudaErrorMemoryAllocation);
  uintptr_t at = arena + uintptr_t(current) * device_span + 4096;
  for (const auto& [start, size] : device.segments) {
    if (start - at >= uintptr_t(wanted)) break;
    at = start + uintptr_t(size) + kGuard;
    at = (at + 511) / 512 * 512;
  }
  if (at + uintptr_t(wanted) > arena + uintptr_t(current + 1) * device_span) return error(cudaErrorMemoryAllocation);
  device.segments[at] = int64_t(bytes);
  device.used += int64_t(bytes);
  mark(at, int64_t(bytes), kFresh);
  live[at] = int64_t(bytes);
  *memory = reinterpret_cast<void*>(at);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  Lock lock(mutex);
  if (!memory) return cudaSuccess;
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  if (at - arena >= arena_end - arena) return error(cudaErrorInvalidValue);
  Device& device = devices[device_of(at)];
  const auto it = device.segments.find(at);
  if (it == device.segments.end()) return error(cudaErrorInvalidValue);
  for (cudaStream_t stream : streams)
    if (!stream->capture) drain(stream);  // cudaFree waits for the device
  mark(at, it->second, kFreed);
  live.erase(at);
  device.used -= it->second;
  const uintptr_t page = (at + 4095) & ~uintptr_t(4095), end = (at + uintptr_t(it->second)) & ~uintptr_t(4095);
  if (end > page) madvise(reinterpret_cast<void*>(page), end - page, MADV_DONTNEED);
  device.segments.erase(it);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned) {
  Lock lock(mutex);
  if (!memory || !bytes) return error(cudaErrorInvalidValue);
  if (is_pinned(memory, 1)) return error(cudaErrorHostMemoryAlreadyRegistered);
  pinned[reinterpret_cast<uintptr_t>(memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* memory) {
  Lock lock(mutex);
  return pinned.erase(reinterpret_cast<uintptr_t>(memory)) ? cudaSuccess : error(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Lock lock(mutex);
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyHostToDevice) {
    if (is_pinned(from, bytes))
      return push(stream, {[=] {
        if (!inside(to, bytes)) return bad_copy("copy to the device", to, bytes);
        std::memcpy(to, from, bytes);
        mark(reinterpret_cast<uintptr_t>(to), int64_t(bytes), kWritten);
      }});
    if (stream->capture) return error(cudaErrorStreamCaptureUnsupported);
    // Pageable memory is staged before the call returns.
    const auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return push(stream, {[=] {
      if (!inside(to, bytes)) return bad_copy("copy to the device", to, bytes);
      std::memcpy(to, staged->data(), bytes);
      mark(reinterpret_cast<uintptr_t>(to), int64_t(bytes), kWritten);
    }});
  }
  if (kind == cudaMemcpyDeviceToHost) {
    const bool waits = !is_pinned(to, bytes);
    if (waits && stream->capture) return error(cudaErrorStreamCaptureUnsupported);
    push(stream, {[=] {
      if (!inside(from, bytes)) return bad_copy("copy from the device", from, bytes);
      std::memcpy(to, from, bytes);
    }});
    return waits ? drain(stream) : cudaSuccess;
  }
  if (kind != cudaMemcpyDeviceToDevice) return error(cudaErrorInvalidValue);
  return push(stream, {[=] {
    if (!inside(from, bytes)) return bad_copy("copy", from, bytes);
    if (!inside(to, bytes)) return bad_copy("copy", to, bytes);
    std::memmove(to, from, bytes);
    copy_states(to, from, bytes);
  }});
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  if (bytes == 0) return cudaSuccess;
  return push(stream, {[=] {
    if (!inside(memory, bytes)) return bad_copy("memset", memory, bytes);
    std::memset(memory, value, bytes);
    mark(reinterpret_cast<uintptr_t>(memory), int64_t(bytes), kWritten);
  }});
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Lock lock(mutex);
  *stream = new CUstream_st;
  (*stream)->device = current;
  streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(mutex);
  const auto it = std::find(streams.begin(), streams.end(), stream);
  if (it == streams.end()) return error(cudaErrorInvalidResourceHandle);
  drain(stream);
  streams.erase(it);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(mutex);
  return drain(stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(mutex);
  if (!event) return error(cudaErrorInvalidResourceHandle);
  if (event->recorded == 0) return cudaSuccess;
  return push(stream, {nullptr, event, event->recorded});
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Lock lock(mutex);
  if (!stream || stream->capture) return error(cudaErrorInvalidValue);
  drain(stream);
  stream->capture = std::make_unique<CUgraph_st>();
  stream->invalidated = false;
  stream->relaxed = mode == cudaStreamCaptureModeRelaxed;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(mutex);
  *graph = nullptr;
  if (!stream || !stream->capture) return error(cudaErrorInvalidValue);
  auto captured = std::move(stream->capture);
  if (stream->invalidated) return error(cudaErrorStreamCaptureInvalidated);
  *graph = captured.release();
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Lock lock(mutex);
  *status = !stream->capture ? cudaStreamCaptureStatusNone : stream->invalidated ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->ops};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  Lock lock(mutex);
  for (const Op& op : executable->ops)
    if (const cudaError_t status = push(stream, op)) return status;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  (*event)->device = current;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Lock lock(mutex);
  while (event->done < event->recorded && step()) continue;  // work that waits refers to it
  for (cudaStream_t stream : streams)
    for (Op& op : stream->queue)
      if (op.event == event) op.event = nullptr;
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(mutex);
  if (!event) return error(cudaErrorInvalidResourceHandle);
  const uint64_t generation = ++event->recorded;
  return push(stream, {[=] {
    event->done = std::max(event->done, generation);
    event->time = now();
  }});
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(mutex);
  while (event->done < event->recorded)
    if (!step()) return error(cudaErrorLaunchFailure);
  return pending;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(mutex);
  if (settings().random_streams) step();
  return event->done >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Lock lock(mutex);
  if (!start->recorded || !end->recorded) return error(cudaErrorInvalidResourceHandle);
  if (start->done < start->recorded || end->done < end->recorded) return cudaErrorNotReady;
  *milliseconds = float(end->time - start->time);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  Lock lock(mutex);
  return std::exchange(pending, cudaSuccess);
}

const char* cudaGetErrorString(cudaError_t code) {
  switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return report_text.c_str();
    case cudaErrorHostMemoryAlreadyRegistered: return "part or all of the requested memory range is already mapped";
    case cudaErrorHostMemoryNotRegistered: return "pointer does not correspond to a registered memory region";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    default: return "unspecified launch failure";
  }
}
