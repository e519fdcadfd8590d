// Programs: calls that were recorded, to be made again with other storages and numbers. A call made again is checked as at first: a storage
// that is gone, or an argument that does not fit, is a status.
#include "../common/program.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace dg {
namespace {

constexpr uint32_t kMaxCalls = 1 << 20;

struct Call {
  Repeat repeat;
  size_t header, word;  // its first ones
  uint32_t headers, words, doubles;
  std::string name;  // of dg_name_call

  bool is_double(uint32_t argument) const { return doubles >> argument & 1; }
};

// A storage that calls name; `bytes` is added to the offsets that were recorded.
struct Slot {
  uint32_t storage = 0;
  bool announced = false;
  uint32_t first = 0, last = 0;      // calls that name it
  std::vector<size_t> headers = {};  // that name it
};

struct Program {
  std::mutex mutex;  // of whoever runs or changes it
  std::vector<Call> calls;
  std::vector<dg_tensor> headers;
  std::vector<double> offsets;  // as recorded
  std::vector<uint64_t> words;
  std::vector<Slot> slots;
  uint32_t at = 0;  // the call that the last run came to

  size_t word_at(uint32_t call, uint32_t argument, const char* op) const {
    if (call >= calls.size() || argument >= calls[call].words) fail(DG_RANGE, "%s: argument %u of call %u does not exist", op, argument, call);
    return calls[call].word + argument;
  }
};

struct Recorder {
  std::shared_ptr<Program> program = std::make_shared<Program>();
  std::unordered_map<uint32_t, uint32_t> slots = {};  // storage -> slot
  std::string name = {}, failure = {};

  uint32_t slot_of(uint32_t storage, bool announced) {
    auto& all = program->slots;
    const auto known = slots.find(storage);
    if (known != slots.end() && !announced) return known->second;
    const uint32_t slot = uint32_t(all.size());
    all.push_back({});
    all.back().storage = storage;
    all.back().announced = announced;
    slots[storage] = slot;
    return slot;
  }

  void add(const CallRecord& call, const dg_tensor* t, uint32_t headers) {
    Program& to = *program;
    const uint32_t number = uint32_t(to.calls.size());
    if (number >= kMaxCalls) fail(DG_RANGE, "record: more than %u calls", kMaxCalls);
    const size_t first = to.headers.size();
    for (uint32_t i = 0; i < headers; i++) {
      Slot& slot = to.slots[slot_of(t[i].storage, false)];
      if (slot.headers.empty()) slot.first = number;
      slot.last = number;
      slot.headers.push_back(first + i);
      to.headers.push_back(t[i]);
      to.offsets.push_back(t[i].offset);
    }
    to.calls.push_back({call.repeat, first, to.words.size(), headers, call.count, call.doubles, name});
    to.words.insert(to.words.end(), call.words, call.words + call.count);
  }
};

thread_local std::unique_ptr<Recorder> recorder;
thread_local bool recording_now = false;  // the same as recorder != nullptr, without its constructor's guard

std::mutex table_mutex;
std::map<uint32_t, std::shared_ptr<Program>>& programs = *new std::map<uint32_t, std::shared_ptr<Program>>;  // never destroyed
uint32_t next_program = 1;

std::shared_ptr<Program> find(uint32_t id, const char* op) {
  std::lock_guard<std::mutex> lock(table_mutex);
  const auto it = programs.find(id);
  if (it == programs.end()) fail(DG_DISPOSED, "%s: program %u does not exist", op, id);
  return it->second;
}

// Calls f(program) with nobody else at it.
template <class F>
int32_t with_program(uint32_t id, const char* op, F&& f) {
  return guard([&] {
    const std::shared_ptr<Program> program = find(id, op);
    std::lock_guard<std::mutex> lock(program->mutex);
    f(*program);
  });
}

void run(Program& program) {
  // Headers beyond those of the call are none of its.
  struct Limit {
    const uint32_t before = frame_use.slots;
    ~Limit() { frame_use.slots = before; }
  } limit;
  const uint32_t count = uint32_t(program.calls.size());
  for (program.at = 0; program.at < count; program.at++) {
    const Call& call = program.calls[program.at];
    frame_use.slots = call.headers;
    if (!call.name.empty()) call_name() = call.name;
    const int32_t status = call.repeat(program.headers.data() + call.header, program.words.data() + call.word);
    if (status != DG_OK) throw Error{dg_status(status), std::string(last_error())};
  }
}

Recorder& current(const char* op) {
  if (!recorder) fail(DG_RANGE, "%s: nothing is being recorded", op);
  return *recorder;
}

}  // namespace

bool recording() { return recording_now; }

void before_recorded_call() {
  recorder->name = call_name();
  frame_use.reach = 0;
}

void after_recorded_call(const CallRecord& call, const dg_tensor* t) noexcept {
  try {
    recorder->add(call, t, frame_use.reach);
  } catch (const Error& error) {
    recorder->failure = error.text;
  } catch (...) {
    recorder->failure = "record: out of memory";
  }
}

}  // namespace dg

using namespace dg;

#include "recorded_calls.inc"

int32_t dg_record_begin(void) {
  return guard([&] {
    if (recorder) fail(DG_RANGE, "record_begin: this thread is recording already");
    recorder = std::make_unique<Recorder>();
    recording_now = true;
  });
}

uint32_t dg_record_end(void) {
  uint32_t id = 0;
  guard([&] {
    const std::unique_ptr<Recorder> ended = std::move(recorder);
    recording_now = false;
    if (!ended) fail(DG_RANGE, "record_end: nothing is being recorded");
    if (!ended->failure.empty()) fail(DG_RANGE, "%s", ended->failure.c_str());
    std::lock_guard<std::mutex> lock(table_mutex);
    programs[next_program] = ended->program;
    id = next_program++;
  });
  return id;
}

int32_t dg_record_storage(uint32_t storage, uint32_t* slot) {
  return guard([&] {
    if (!slot) fail(DG_RANGE, "record_storage: null destination");
    Recorder& it = current("record_storage");
    if (it.program->slots.size() >= kMaxCalls) fail(DG_RANGE, "record_storage: more than %u storages", kMaxCalls);
    *slot = it.slot_of(storage, true);
  });
}

int32_t dg_record_position(uint32_t* calls) {
  return guard([&] {
    if (!calls) fail(DG_RANGE, "record_position: null destination");
    *calls = uint32_t(current("record_position").program->calls.size());
  });
}

int32_t dg_program_info(uint32_t program, double* out8) {
  return with_program(program, "program_info", [&](const Program& it) {
    if (!out8) fail(DG_RANGE, "program_info: null destination");
    const double values[8] = {double(it.calls.size()), double(it.slots.size()), double(it.headers.size()), double(it.at), 0, 0, 0, 0};
    std::copy(values, values + 8, out8);
  });
}

int32_t dg_program_slot(uint32_t program, uint32_t slot, double* out8) {
  return with_program(program, "program_slot", [&](const Program& it) {
    if (!out8) fail(DG_RANGE, "program_slot: null destination");
    if (slot >= it.slots.size()) fail(DG_RANGE, "program_slot: slot %u does not exist", slot);
    const Slot& found = it.slots[slot];
    const double values[8] = {double(found.storage), double(found.announced), double(found.headers.size()), double(found.first),
                              double(found.last),    0,                       0,                            0};
    std::copy(values, values + 8, out8);
  });
}

int32_t dg_program_bind(uint32_t program, uint32_t slot, uint32_t storage, double offset_bytes) {
  return with_program(program, "program_bind", [&](Program& it) {
    if (slot >= it.slots.size()) fail(DG_RANGE, "program_bind: slot %u does not exist", slot);
    it.slots[slot].storage = storage;
    for (const size_t header : it.slots[slot].headers) {
      dg_tensor& t = it.headers[header];
      t.storage = storage;
      if (t.dtype > DG_BOOL) continue;  // a header that the call did not look at
      t.offset = it.offsets[header] + offset_bytes / double(dtype_size(t.dtype));
    }
  });
}

int32_t dg_program_set(uint32_t program, uint32_t call, uint32_t argument, double value) {
  return with_program(program, "program_set", [&](Program& it) {
    uint64_t& word = it.words[it.word_at(call, argument, "program_set")];
    const bool is_double = it.calls[call].is_double(argument);
    if (!is_double && whole(value, "program_set", "the value") > int64_t(0xffffffff)) fail(DG_RANGE, "program_set: %g exceeds 32 bits", value);
    word = is_double ? word_of(value) : uint64_t(value);
  });
}

int32_t dg_program_get(uint32_t program, uint32_t call, uint32_t argument, double* value) {
  return with_program(program, "program_get", [&](const Program& it) {
    if (!value) fail(DG_RANGE, "program_get: null destination");
    const uint64_t word = it.words[it.word_at(call, argument, "program_get")];
    *value = it.calls[call].is_double(argument) ? argument_of<double>(word) : double(word);
  });
}

int32_t dg_program_run(uint32_t program) {
  return with_program(program, "program_run", [&](Program& it) {
    if (recorder) fail(DG_RANGE, "program_run: not while this thread records");
    run(it);
  });
}

int32_t dg_program_free(uint32_t program) {
  return guard([&] {
    find(program, "program_free");
    std::lock_guard<std::mutex> lock(table_mutex);
    programs.erase(program);
  });
}
