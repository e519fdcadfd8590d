// Random calls of every exported function, for the sanitizers: kernel_tests [calls] [seed].
// Headers are random but often plausible (live storages, matching shapes), so that kernels run and not only their checks.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "../abi.h"

namespace {

constexpr int kSlots = 12, kStorages = 10;
constexpr int64_t kStorageBytes = 4096;

// Memory lent to a call, of whatever type it takes.
struct Buffer {
  char* data;
  template <class T>
  operator T*() const {
    return reinterpret_cast<T*>(data);
  }
};

struct Fuzz {
  std::mt19937_64 random;
  dg_tensor headers[DG_MAX_SLOTS] = {};
  uint32_t storages[kStorages] = {};
  alignas(64) char scratch[1 << 16] = {};
  std::map<std::string, int64_t> succeeded, called;

  explicit Fuzz(uint64_t seed) : random(seed) { refresh(); }

  uint64_t below(uint64_t n) { return random() % n; }
  bool chance(double p) { return double(random() >> 11) / 9007199254740992.0 < p; }

  // Lives storages anew: random calls free some of them, or write over them.
  void refresh() {
    for (uint32_t& id : storages) {
      dg_free(id);
      id = dg_alloc(double(kStorageBytes), 1, 0);
    }
  }

  double size() { return chance(0.03) ? odd() : double(chance(0.1) ? 0 : 1 + below(5)); }
  double odd() {
    static const double values[] = {-1, 0.5, 1e18, 9007199254740992.0, 1e300, -0.0, 4294967296.0, 65537, 2147483647.0};
    if (chance(0.1)) return __builtin_nan("");
    return values[below(sizeof values / sizeof *values)];
  }

  void fill(dg_tensor& h, const double* shape, int rank, uint8_t dtype) {
    h.storage = chance(0.02) ? uint32_t(random()) : storages[below(kStorages)];
    h.dtype = chance(0.02) ? uint8_t(random()) : dtype;
    h.rank = chance(0.02) ? uint8_t(below(12)) : uint8_t(rank);
    h.device_type = chance(0.01) ? 1 : 0;
    h.device_index = 0;
    h.offset = chance(0.02) ? odd() : double(below(3));
    double step = 1;
    for (int i = 7; i >= 0; i--) {
      h.sizes[i] = i < rank ? shape[i] : 0;
      h.strides[i] = step;
      if (i < rank) step *= h.sizes[i] > 1 ? h.sizes[i] : 1;
    }
    if (rank >= 3 && chance(0.3)) {  // channels-last
      double at = h.sizes[1];
      h.strides[1] = 1;
      for (int i = rank - 1; i >= 2; i--) {
        h.strides[i] = at;
        at *= h.sizes[i];
      }
      h.strides[0] = at;
    }
    if (chance(0.1)) h.strides[below(8)] = chance(0.5) ? 0 : double(below(9));
    if (chance(0.02)) h.strides[below(8)] = odd();
  }

  const dg_tensor* frame() {
    const int rank = int(below(6));
    double shape[8];
    for (double& s : shape) s = size();
    static const uint8_t kinds[] = {DG_F32, DG_F32, DG_F32, DG_F64, DG_F16, DG_BF16, DG_I32, DG_I64, DG_U8, DG_BOOL};
    const uint8_t dtype = kinds[below(sizeof kinds)];
    for (int i = 0; i < kSlots; i++) {
      double own[8];
      int own_rank = rank;
      for (int k = 0; k < 8; k++) own[k] = chance(0.15) ? size() : (chance(0.05) ? 1 : shape[k]);
      if (chance(0.2)) own_rank = int(below(6));
      uint8_t own_dtype = chance(0.15) ? kinds[below(sizeof kinds)] : dtype;
      if (chance(0.15)) own_dtype = chance(0.5) ? DG_I64 : DG_BOOL;
      fill(headers[i], own, own_rank, own_dtype);
    }
    return headers;
  }

  Buffer buffer() { return {chance(0.05) ? nullptr : scratch}; }
  uint32_t u32() {
    if (chance(0.6)) return uint32_t(below(6));  // slots, op codes, flags, small counts
    if (chance(0.3)) return DG_NONE;
    if (chance(0.3)) return storages[below(kStorages)];
    return chance(0.5) ? uint32_t(below(40)) : uint32_t(random());
  }
  int32_t i32() { return chance(0.85) ? int32_t(below(6)) - 1 : int32_t(random()); }
  double f64() { return chance(0.8) ? double(below(9)) * (chance(0.3) ? 0.25 : 1.0) : odd(); }

  // A result that is an id or a count, and one that is a status.
  int64_t result(const char* name, uint32_t value) {
    called[name]++;
    if (value != 0) succeeded[name]++;
    return value;
  }
  int64_t result(const char* name, int32_t status) {
    called[name]++;
    if (status == 0) succeeded[name]++;
    if (status == DG_INTERNAL) {
      char text[512];
      dg_last_error(text, sizeof text);
      std::fprintf(stderr, "%s reported a defect: %s\n", name, text);
      std::exit(1);
    }
    return status;
  }
};

#include "calls.inc"

}  // namespace

// Storages that random calls make are never freed: that is no leak of the library's.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0:allocator_may_return_null=1"; }

int main(int argc, char** argv) {
  const int64_t calls = argc > 1 ? std::atoll(argv[1]) : 100000;
  dg_set_threads(2);
  dg_memory_limit(0, double(int64_t(1) << 30));
  auto* fuzz = new Fuzz(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  for (int64_t i = 0; i < calls; i++) {
    if (i % 200 == 0) fuzz->refresh();
    call(int(fuzz->below(kFunctions)), *fuzz);
  }
  int never = 0;
  for (const auto& [name, count] : fuzz->called)
    if (!fuzz->succeeded.count(name)) never++, std::printf("note: %s never succeeded in %lld calls\n", name.c_str(), static_cast<long long>(count));
  std::printf("%lld random calls of %zu functions, %d of them never valid: no fault\n", static_cast<long long>(calls), fuzz->called.size(), never);
  delete fuzz;
}
