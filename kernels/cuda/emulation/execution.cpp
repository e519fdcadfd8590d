// Kernels, a thread at a time: threads of a block run one after the other; one that waits (barrier, warp operation) does so in a fibre of its own.
#include "state.h"

#include <cstdarg>
#include <cstdio>
#include <numeric>

namespace emulation {

Place place;
constinit thread_local bool in_kernel = false;
int kernel_device = 0;
uintptr_t kernel_memory = 0;
uint32_t epoch = 0, block_epoch = 0, launch_epoch = 0;
bool acquired = false;
Fibre* running = nullptr;
std::vector<uint32_t> warp_epochs;

namespace {

alignas(64) unsigned char argument_data[kArguments];

__attribute__((naked, noinline)) void switch_stack(void**, void*) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}

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
  void* scheduler = nullptr;  // its stack pointer
  std::vector<Fibre*> idle, ready, at_barrier;
  std::vector<std::vector<Meeting>> meetings;
  std::vector<uint32_t> exited;
  std::vector<unsigned> order;
  struct Piece {
    const void* site;
    size_t offset;
  };
  std::vector<Piece> pieces;
  size_t shared_used = 0;
  bool failed = false;
} block;

std::unique_ptr<Fibre[]> fibres;

void leave() { switch_stack(&running->stack_pointer, block.scheduler); }

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
  warp_epochs[warp]++;
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
      Fibre* self = running;
      self->number = block.order[block.next++];
      self->thread = place.thread = position(self->number);
      block.call->run(argument_data);
      settle_store();
      self = running;
      const unsigned warp = self->number / 32;
      block.exited[warp] |= 1u << (self->number % 32);
      for (Meeting& meeting : block.meetings[warp])
        if (meeting.arrived && meeting.arrived == (meeting.mask & ~block.exited[warp])) complete(meeting, warp);
      if (--block.alive && block.waiting == block.alive) release_barrier();
    }
    block.idle.push_back(running);
    leave();
  }
}

void prepare(Fibre* fibre) {
  void** top = reinterpret_cast<void**>((fibre->stack + kStack) & ~uintptr_t(15));
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(fibre_main);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fibre->stack_pointer = top;
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
  const uint3 b = place.block, t = running ? running->thread : uint3{};
  return text("kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", block.call->name, b.x, b.y, b.z, t.x, t.y, t.z);
}

}  // namespace

void abandon(const char* format, ...) {
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

namespace {

void run_block() {
  const unsigned warps = (block.threads + 31) / 32;
  block.next = 0;
  block.alive = block.threads;
  block.waiting = 0;
  acquired = false;
  block.exited.assign(warps, 0);
  warp_epochs.assign(warps, 0);
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
    running = fibre;
    place.thread = fibre->thread;
    switch_stack(&block.scheduler, fibre->stack_pointer);
  }
}

}  // namespace

void run_grid(const Call& call, int device) {
  if (call.arguments.size() > kArguments) return report(text("kernel %s: arguments of %zu bytes, at most %zu", call.name, call.arguments.size(), kArguments));
  kernel_device = device;
  kernel_memory = arena + uintptr_t(device) * device_span;
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
  forget_changes();
  in_kernel = true;
  for (uint64_t i = 0; i < blocks && !block.failed; i++) {
    const uint64_t at = order == 1 ? blocks - 1 - i : i;
    if (order == 2) std::shuffle(block.order.begin(), block.order.end(), random_source());
    place.block = {unsigned(at % call.grid.x), unsigned(at / call.grid.x % call.grid.y), unsigned(at / (uint64_t(call.grid.x) * call.grid.y))};
    run_block();
  }
  in_kernel = false;
  if (!block.failed) return;
  reset_fibres();
  undo_changes();
}

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

unsigned lane() { return running->number % 32; }

unsigned barrier(unsigned value, int line) {
  settle_store();
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
    block.at_barrier.push_back(running);
    leave();
  }
  return block.sums[generation];
}

unsigned took_part = 0;

void require_lane(unsigned source, const char* op) {
  if (!(took_part >> source & 1)) abandon("%s: reads lane %u, which takes no part", op, source);
}

const uint64_t* exchange(unsigned mask, uint64_t value, const char* op) {
  settle_store();
  const unsigned warp = running->number / 32, lane = running->number % 32, in_warp = std::min(32u, block.threads - warp * 32);
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
    meeting.waiting.push_back(running);
    leave();
  }
  // Where the caller, whose reads are checked, may look.
  static uint64_t values[32];
  std::memcpy(values, block.meetings[warp][i].values[generation], in_warp * sizeof values[0]);
  took_part = block.meetings[warp][i].took[generation];
  return values;
}
}  // namespace emulation
