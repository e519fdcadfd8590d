// Checks of what kernels load and store. The translation units with kernels are compiled with the instrumentation of the compiler's thread sanitizer,
// which calls __tsan_read4(address) and its like before every access: those functions are defined here, and its run time is not linked.
//
// Device memory is one reserved range of addresses with a state for every byte, so that an access outside live memory, of the wrong device,
// misaligned, or a read of what was never written is reported with kernel, block and thread. For shared memory (and for device memory with
// DINOGRAD_EMULATED_RACES=1) the last writer and readers of every address are kept, so that two threads that meet there without a barrier between
// them are reported, in whatever order they happened to run.
//
// Threads that store one and the same value where no other reads it do not race: whichever comes last, memory holds that value.
#include "state.h"

#include <unordered_map>

namespace emulation {

namespace {

constexpr unsigned kAtomic = 0xfff;  // in place of a thread's number: atomic operations do not race with each other

uint64_t stamp() {
  const unsigned number = running->number;
  return uint64_t(epoch) << 32 | uint64_t(warp_epochs[number / 32] & 0xfffff) << 12 | (number + 1);
}

bool meets(uint64_t before, uint64_t now, bool shared) {
  if ((before & 0xfff) == (now & 0xfff)) {
    if (uint32_t(before >> 32) >= block_epoch) return false;  // the thread itself
  }
  const uint32_t then = uint32_t(before >> 32);
  if (then < launch_epoch) return false;
  if (then < block_epoch) return !shared && !acquired;  // another block of this launch
  if (then != epoch) return false;
  const bool one_warp = ((before & 0xfff) - 1) / 32 == ((now & 0xfff) - 1) / 32;
  return !one_warp || (before >> 12 & 0xfffff) == (now >> 12 & 0xfffff);
}

// A store where another thread had stored, and what was there: the check comes before the store, so only the next one can tell what it changed.
struct Store {
  const void* address;
  size_t bytes = 0;
  unsigned char before[64];
  uint64_t other;
  bool shared;
} doubtful;

[[noreturn]] void race(bool shared, bool write, bool wrote, uint64_t other) {
  const std::string who = (other & 0xfff) == kAtomic ? "an atomic operation" : text("thread %u", unsigned(other & 0xfff) - 1);
  abandon("race in %s memory: %s what %s %s, with no barrier between them", shared ? "shared" : "device", write ? "writes" : "reads", who.c_str(),
          wrote ? "writes" : "reads");
}

void trace(Trace* traces, uintptr_t address, size_t bytes, bool write, bool shared, uint64_t now) {
  settle_store();
  const bool plain = write && (now & 0xfff) != kAtomic && bytes <= sizeof doubtful.before;
  for (size_t i = 0; i < bytes; i += 2) {
    Trace& it = traces[i];
    const bool wrote = meets(it.writer, now, shared), read = write && (meets(it.first_reader, now, shared) || meets(it.last_reader, now, shared));
    if (wrote || read) {
      const uint64_t other = wrote ? it.writer : meets(it.first_reader, now, shared) ? it.first_reader : it.last_reader;
      if (read || !plain || (other & 0xfff) == kAtomic) race(shared, write, wrote, other);
      doubtful.address = reinterpret_cast<const void*>(address);
      doubtful.bytes = bytes;
      doubtful.other = other;
      doubtful.shared = shared;
    }
    if (write) {
      it.writer = now;
    } else {
      if (uint32_t(it.first_reader >> 32) != epoch) it.first_reader = now;
      it.last_reader = now;
    }
  }
  if (doubtful.bytes) std::memcpy(doubtful.before, doubtful.address, bytes);
}

// Of an access that the compiler may have put together from the members of a struct.
size_t alignment_of(size_t bytes) { return std::min<size_t>(bytes & -bytes, 16); }

[[noreturn]] __attribute__((noinline)) void bad_access(uintptr_t address, size_t bytes, bool write) {
  in_kernel = false;
  const char* verb = write ? "writes" : "reads";
  if (!in_arena(address)) abandon("%s %zu bytes of host memory at %#zx", verb, bytes, size_t(address));
  if (device_of(address) != kernel_device)
    abandon("%s %zu bytes of device %d while it runs on device %d", verb, bytes, device_of(address), kernel_device);
  if (address % alignment_of(bytes) != 0) abandon("%s %zu bytes at a misaligned address, %s", verb, bytes, where(address).c_str());
  for (size_t i = 0; i < bytes; i++) {
    const uint8_t state = *state_at(address + i);
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

__attribute__((noinline)) void shared_access(uintptr_t address, size_t bytes, bool write) {
  const size_t at = address - reinterpret_cast<uintptr_t>(shared_data);
  const char* verb = write ? "writes" : "reads";
  if (address % alignment_of(bytes) != 0) abandon("%s %zu bytes of shared memory at a misaligned address", verb, bytes);
  for (size_t i = 0; i < bytes; i++) {
    if (at + i >= kShared || shared_states[at + i] == kNone) abandon("%s %zu bytes outside its shared memory, at byte %zu", verb, bytes, at + i);
    if (!write && shared_states[at + i] == kFresh) abandon("reads %zu bytes of shared memory that were never written, at byte %zu", bytes, at + i);
  }
  if (write) std::memset(shared_states + at, kWritten, bytes);
  trace(shared_traces + at, address, bytes, write, true, stamp());
}

__attribute__((noinline)) void other_access(uintptr_t address, size_t bytes, bool write) {
  if (!in_kernel) {
    if (in_arena(address)) report(text("host code %s device memory %s", write ? "writes" : "reads", where(address).c_str()));
    return;
  }
  if (address - reinterpret_cast<uintptr_t>(shared_data) < kShared) return shared_access(address, bytes, write);
  if (address - stacks < stacks_end - stacks || address - image < image_end - image) return;
  bad_access(address, bytes, write);
}

template <size_t n>
inline void access(uintptr_t address, bool write) {
  if (in_kernel && address - kernel_memory < device_span) [[likely]] {
    uint8_t* state = state_at(address);
    if (address % n != 0) bad_access(address, n, write);
    if (!all_written<n>(state)) {
      if (!write || !all_allocated(state, n)) bad_access(address, n, write);
      std::memset(state, kWritten, n);
    }
    if (arena_traces) trace(arena_traces + (address - arena), address, n, write, false, stamp());
    return;
  }
  other_access(address, n, write);
}

void access_any(uintptr_t address, size_t bytes, bool write) {
  if (!in_kernel || address - kernel_memory >= device_span) return other_access(address, bytes, write);
  uint8_t* state = state_at(address);
  if (!all_allocated(state, bytes)) bad_access(address, bytes, write);
  if (write) {
    std::memset(state, kWritten, bytes);
  } else {
    for (size_t i = 0; i < bytes; i++)
      if (state[i] != kWritten) bad_access(address + i, 1, false);
  }
  if (arena_traces) trace(arena_traces + (address - arena), address, bytes, write, false, stamp());
}

struct Value {
  size_t bytes;
  uint64_t bits;
};
std::unordered_map<uintptr_t, Value> changes;  // by atomic operations on device memory in this launch

}  // namespace

void settle_store() {
  if (!doubtful.bytes) return;
  const size_t bytes = std::exchange(doubtful.bytes, 0);
  if (std::memcmp(doubtful.before, doubtful.address, bytes) != 0) race(doubtful.shared, true, true, doubtful.other);
}

void undo_changes() {
  for (const auto& [address, value] : changes) std::memcpy(reinterpret_cast<void*>(address), &value.bits, value.bytes);
  forget_changes();
}

void forget_changes() {
  changes.clear();
  doubtful.bytes = 0;
}

void atomic_access(const void* address, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  const uint64_t now = uint64_t(epoch) << 32 | kAtomic;
  acquired = true;
  if (at - kernel_memory < device_span) {
    uint8_t* state = state_at(at);
    if (at % bytes != 0 || !all_allocated(state, bytes)) bad_access(at, bytes, true);
    for (size_t i = 0; i < bytes; i++)
      if (state[i] != kWritten) bad_access(at, bytes, false);
    if (arena_traces) trace(arena_traces + (at - arena), at, bytes, true, false, now);
    if (const auto [it, added] = changes.try_emplace(at, Value{bytes, 0}); added) std::memcpy(&it->second.bits, address, bytes);
    return;
  }
  const size_t offset = at - reinterpret_cast<uintptr_t>(shared_data);
  if (offset >= kShared) return other_access(at, bytes, true);
  for (size_t i = 0; i < bytes; i++)
    if (shared_states[offset + i] != kWritten) abandon("an atomic operation on shared memory that was never written, at byte %zu", offset);
  trace(shared_traces + offset, at, bytes, true, true, now);
}

void check_access(const void* address, size_t bytes, bool write, const char* what) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(address);
  if (in_kernel) return access_any(at, bytes, write);
  if (!in_arena(at)) return report(text("%s %s %zu bytes of host memory", what, write ? "writes" : "reads", bytes));
  uint8_t* state = state_at(at);
  for (size_t i = 0; i < bytes; i++) {
    if (state[i] != kFresh && state[i] != kWritten)
      return report(text("%s %s outside its buffers, %s", what, write ? "writes" : "reads", where(at + i).c_str()));
    if (!write && state[i] != kWritten) return report(text("%s reads what was never written, %s", what, where(at + i).c_str()));
  }
  if (write) std::memset(state, kWritten, bytes);
}

}  // namespace emulation

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
