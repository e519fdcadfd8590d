// Settings, device memory and reports of the emulator.
//
// Settings, from the environment when the first call is made: DINOGRAD_EMULATED_DEVICES (1), DINOGRAD_EMULATED_MEMORY (bytes a device, 4 GiB),
// DINOGRAD_EMULATED_ORDER (forward, reverse, shuffle: of the threads and blocks), DINOGRAD_EMULATED_STREAMS (eager, or random: work waits in its
// stream and is done at random moments in a legal order), DINOGRAD_EMULATED_SEED (1), DINOGRAD_EMULATED_RACES (0),
// DINOGRAD_EMULATED_FAILS (none; "NAME" or "NAME:3": the first or third launch of that kernel, or "cublasCreate", "cublasGemm").
#include "state.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace emulation {

namespace {

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
  s.fails = environment("DINOGRAD_EMULATED_FAILS");
  if (const auto colon = s.fails.find(':'); colon != std::string::npos) {
    s.failing_call = std::atoi(s.fails.c_str() + colon + 1);
    s.fails.resize(colon);
  }
  if (const auto v = environment("DINOGRAD_EMULATED_SEED"); !v.empty()) s.seed = std::strtoull(v.c_str(), nullptr, 10);
  return s;
}


// Addresses of a device; fewer where each has a trace.
uintptr_t span() { return uintptr_t(settings().races ? 4 : 32) << 30; }

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
}  // namespace

const Settings& settings() {
  static const Settings instance = read_settings();
  return instance;
}

bool fails(const char* name) {
  static int calls = 0;
  return settings().fails == name && ++calls == settings().failing_call;
}

std::mt19937_64& random_source() {
  static std::mt19937_64 instance(settings().seed);
  return instance;
}

std::recursive_mutex mutex;

uintptr_t arena = 0, arena_end = 0, device_span = 1, image = 0, image_end = 0, stacks = 0, stacks_end = 0;
uint8_t* states = nullptr;
Trace* arena_traces = nullptr;
Device devices[kMaxDevices];
std::map<uintptr_t, int64_t> live;
alignas(128) unsigned char shared_data[kShared];
uint8_t shared_states[kShared];
Trace shared_traces[kShared];

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
std::string leaks() {
  Lock lock(mutex);
  std::string list;
  for (int i = 0; i < kMaxDevices; i++)
    for (const auto& segment : devices[i].segments) list += text("cuda:%d: %lld bytes were not freed\n", i, static_cast<long long>(segment.second));
  return list;
}

thread_local int current = 0;
cudaError_t pending = cudaSuccess;
std::string report_text;

cudaError_t error(cudaError_t code) {
  if (code != cudaSuccess) pending = code;
  return code;
}

std::string text(const char* format, ...) {
  char buffer[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

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
}  // namespace emulation
