// One call updates all parameters of a group: a launch takes as many of one dtype as its argument table holds, whatever their sizes. Formulas:
// common/optimizer.h. Whole packs and the rest of a run go through the same code, so an update does not depend on where in memory an element lies.
#include "../common/optimizer.h"

#include "map.h"

namespace dg {
namespace {

constexpr int64_t kPart = 4096;  // elements of a block

// Runs of memory that are updated together: parameter, gradient and states of each.
template <int P>
struct Table {
  static constexpr int capacity = 3600 / (8 * P + 12);
  struct Run {
    void* at[P];
    int64_t count;
  };
  int runs;
  unsigned first_block[capacity + 1];  // of each run, then the number of blocks
  Run run[capacity];
};

template <class C>
struct SgdRule {
  static constexpr int states = 0;
  Sgd<C> k;
  __device__ bool reads() const { return true; }
  __device__ void prepare() {}
  __device__ void operator()(C& p, C g, C*) const { k.plain(p, g); }
};

template <class C>
struct MomentumRule {
  static constexpr int states = 1;
  Sgd<C> k;
  __device__ bool reads() const { return !k.fresh; }
  __device__ void prepare() {}
  __device__ void operator()(C& p, C g, C* state) const { k.with_momentum(p, g, state[0]); }
};

template <class C, bool amsgrad>
struct AdamRule {
  static constexpr int states = amsgrad ? 3 : 2;
  Adam<C> k;
  AdamOptions options;
  double step;
  const Replay* replay;  // null: k holds the corrections of the step

  __device__ bool reads() const { return true; }
  __device__ void prepare() {
    if (!replay) return;
    DG_SHARED(C[2], corrections);
    if (threadIdx.x == 0) {
      k.correct(options, step + double(replay->launches));
      corrections[0] = k.step_size;
      corrections[1] = k.inverse_correction;
    }
    __syncthreads();
    k.step_size = corrections[0];
    k.inverse_correction = corrections[1];
  }
  __device__ void operator()(C& p, C g, C* state) const {
    const C second = k.moments(p, g, state[0], state[1]);
    if constexpr (amsgrad) {
      state[2] = second > state[2] || second != second ? second : state[2];
      k.apply(p, state[0], state[2]);
    } else {
      k.apply(p, state[0], second);
    }
  }
};

template <class C, bool centered, bool moving>
struct RmsPropRule {
  static constexpr int states = 1 + centered + moving;
  RmsProp<C> k;
  __device__ bool reads() const { return true; }
  __device__ void prepare() {}
  __device__ void operator()(C& p, C g, C* state) const {
    C change = k.scaled(p, g, state[0], centered ? state + 1 : nullptr);
    if constexpr (moving) change = state[states - 1] = k.momentum * state[states - 1] + change;
    p = p - k.lr * change;
  }
};

template <class C>
struct AdagradRule {
  static constexpr int states = 1;
  Adagrad<C> k;
  __device__ bool reads() const { return true; }
  __device__ void prepare() {}
  __device__ void operator()(C& p, C g, C* state) const { k.apply(p, g, state[0]); }
};

// Up to N elements from `at`: a pack, or the first `count` one by one.
template <int N, class T, class C>
__device__ void load(C (&to)[N], const T* at, bool whole, int64_t count) {
  if (whole) {
    const Pack<T, N> v = *reinterpret_cast<const Pack<T, N>*>(at);
#pragma unroll
    for (int j = 0; j < N; j++) to[j] = C(v.at[j]);
  } else {
#pragma unroll
    for (int j = 0; j < N; j++) to[j] = j < count ? C(at[j]) : C(0);
  }
}
template <int N, class T, class C>
__device__ void store(T* at, const C (&from)[N], bool whole, int64_t count) {
  if (whole) {
    Pack<T, N> v;
#pragma unroll
    for (int j = 0; j < N; j++) v.at[j] = T(from[j]);
    *reinterpret_cast<Pack<T, N>*>(at) = v;
  } else {
#pragma unroll
    for (int j = 0; j < N; j++)
      if (j < count) at[j] = T(from[j]);
  }
}

template <class T, class Rule>
__global__ void update(const __grid_constant__ Table<2 + Rule::states> table, Rule rule) {
  using C = compute_t<T>;
  constexpr int N = 16 / sizeof(C), S = Rule::states;
  rule.prepare();
  int low = 0, high = table.runs;  // the run of this block: the last that begins at or before it
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first_block[middle] <= blockIdx.x) low = middle;
    else high = middle;
  }
  const auto& run = table.run[low];
  T* const p = static_cast<T*>(run.at[0]);
  const T* const g = static_cast<const T*>(run.at[1]);
  C* state[S + 1];
  bool fits = packs_fit<N>(p, g);
#pragma unroll
  for (int k = 0; k < S; k++) {
    state[k] = static_cast<C*>(run.at[2 + k]);
    fits &= packs_fit<N>(state[k]);
  }
  const int64_t begin = int64_t(blockIdx.x - table.first_block[low]) * kPart, end = min(run.count, begin + kPart);
  for (int64_t i = begin + int64_t(threadIdx.x) * N; i < end; i += int64_t(blockDim.x) * N) {
    const bool whole = fits && i + N <= end;
    C value[N], gradient[N], s[S + 1][N];
    load(value, p + i, whole, end - i);
    load(gradient, g + i, whole, end - i);
#pragma unroll
    for (int k = 0; k < S; k++) {
      if (rule.reads()) load(s[k], state[k] + i, whole, end - i);
      else
        for (C& element : s[k]) element = C(0);
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
      C mine[S + 1];
#pragma unroll
      for (int k = 0; k < S; k++) mine[k] = s[k][j];
      rule(value[j], gradient[j], mine);
#pragma unroll
      for (int k = 0; k < S; k++) s[k][j] = mine[k];
    }
    store(p + i, value, whole, end - i);
#pragma unroll
    for (int k = 0; k < S; k++) store(state[k] + i, s[k], whole, end - i);
  }
}

// Runs `rule` over the items of element type T.
template <class T, class Rule>
void update_all(const char* name, const std::vector<Item>& items, uint32_t dtype, const Rule& rule) {
  constexpr int P = 2 + Rule::states;
  constexpr int64_t N = 16 / sizeof(compute_t<T>);
  Table<P> table{};
  int64_t longest = 0;
  const auto flush = [&] {
    if (table.runs == 0) return;
    const int threads = int(std::clamp<int64_t>((longest + 32 * N - 1) / (32 * N) * 32, 32, kThreads));
    launch(name, update<T, Rule>, table.first_block[table.runs], threads, 0, table, rule);
    table.runs = 0;
    longest = 0;
  };
  for (const Item& item : items) {
    if (item.dtype != dtype || item.numel == 0) continue;
    auto& run = table.run[table.runs];
    run.at[0] = item.p;
    run.at[1] = const_cast<void*>(item.g);
    for (int k = 0; k < Rule::states; k++) run.at[2 + k] = item.state[k];
    run.count = item.numel;
    table.first_block[table.runs + 1] = table.first_block[table.runs] + blocks_for(item.numel, kPart);
    longest = std::max(longest, item.numel);
    if (++table.runs == Table<P>::capacity) flush();
  }
  flush();
}

// Calls f(tag<T>, dtype) for the element types that occur among the items.
template <class F>
void each_dtype(const std::vector<Item>& items, const char* name, F&& f) {
  for (const uint32_t dtype : {DG_F32, DG_F64, DG_F16, DG_BF16})
    if (std::any_of(items.begin(), items.end(), [=](const Item& item) { return item.dtype == dtype; }))
      dispatch_floats(dtype, name, [&](auto kind) { f(kind, dtype); });
}

}  // namespace

void sgd(const std::vector<Item>& items, const SgdOptions& options) {
  each_dtype(items, "sgd", [&](auto kind, uint32_t dtype) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    if (options.buffered) update_all<T>("sgd", items, dtype, MomentumRule<C>{Sgd<C>(options)});
    else update_all<T>("sgd", items, dtype, SgdRule<C>{Sgd<C>(options)});
  });
}

void adam(const std::vector<Item>& items, const AdamOptions& options, double step) {
  each_dtype(items, "adam", [&](auto kind, uint32_t dtype) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Adam<C> k(options, step);
    if (options.amsgrad) update_all<T>("adam", items, dtype, AdamRule<C, true>{k, options, step, replay()});
    else update_all<T>("adam", items, dtype, AdamRule<C, false>{k, options, step, replay()});
  });
}

void rmsprop(const std::vector<Item>& items, const RmsPropOptions& options) {
  each_dtype(items, "rmsprop", [&](auto kind, uint32_t dtype) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const RmsProp<C> k(options);
    const auto run = [&](auto rule) { update_all<T>("rmsprop", items, dtype, rule); };
    if (options.centered && options.moving()) run(RmsPropRule<C, true, true>{k});
    else if (options.centered) run(RmsPropRule<C, true, false>{k});
    else if (options.moving()) run(RmsPropRule<C, false, true>{k});
    else run(RmsPropRule<C, false, false>{k});
  });
}

void adagrad(const std::vector<Item>& items, const AdagradOptions& options) {
  each_dtype(items, "adagrad", [&](auto kind, uint32_t dtype) {
    using T = typename decltype(kind)::type;
    update_all<T>("adagrad", items, dtype, AdagradRule<compute_t<T>>{Adagrad<compute_t<T>>(options)});
  });
}

}  // namespace dg
