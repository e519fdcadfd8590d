// One call updates all parameters of a group: a launch takes as many of one dtype as its argument table holds, whatever their sizes. Headers, shapes
// and strides as on the CPU: common/parameters.h; formulas: common/optimizer.h. Whole packs and the rest of a run go through the same code, so an
// update does not depend on where in memory an element lies.
#include "../common/optimizer.h"

#include "../common/parameters.h"
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
  const Replay* replay;  // null: k holds the corrections of the step
  double lr, beta1, beta2, step;

  __device__ bool reads() const { return true; }
  __host__ __device__ void correct(double count) {
    k.step_size = C(lr / (1 - ::pow(beta1, count)));
    k.inverse_correction = C(1 / ::sqrt(1 - ::pow(beta2, count)));
  }
  __device__ void prepare() {
    if (!replay) return;
    DG_SHARED(C[2], corrections);
    if (threadIdx.x == 0) {
      correct(step + double(replay->launches));
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
}  // namespace dg

using namespace dg;

int32_t dg_sgd(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t has_buffer, double lr, double momentum, double dampening,
               double weight_decay, uint32_t nesterov, uint32_t maximize, uint32_t fresh) {
  return guard([&] {
    const char* const name = "sgd";
    const std::vector<Item> items = collect(t, first, count, has_buffer ? 1 : 0, name);
    each_dtype(items, name, [&](auto kind, uint32_t dtype) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const Sgd<C> k{decay_of<C>(weight_decay, maximize), C(lr), C(momentum), C(1 - dampening), nesterov != 0, fresh != 0};
      if (has_buffer) update_all<T>(name, items, dtype, MomentumRule<C>{k});
      else update_all<T>(name, items, dtype, SgdRule<C>{k});
    });
  });
}

int32_t dg_adam(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t amsgrad, double lr, double beta1, double beta2, double eps,
                double weight_decay, uint32_t decoupled, uint32_t maximize, double step) {
  return guard([&] {
    const char* const name = "adam";
    if (!(step >= 1)) fail(DG_RANGE, "adam: step %g must be at least 1", step);
    const std::vector<Item> items = collect(t, first, count, amsgrad ? 3 : 2, name);
    each_dtype(items, name, [&](auto kind, uint32_t dtype) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const auto run = [&]<class Rule>(Rule rule) {
        rule.correct(step);
        update_all<T>(name, items, dtype, rule);
      };
      const Adam<C> k{decay_of<C>(decoupled ? 0 : weight_decay, maximize), C(decoupled ? 1 - lr * weight_decay : 1), C(1 - beta1), C(beta2),
                      C(1 - beta2), C(0), C(0), C(eps)};
      if (amsgrad) run(AdamRule<C, true>{k, replay(), lr, beta1, beta2, step});
      else run(AdamRule<C, false>{k, replay(), lr, beta1, beta2, step});
    });
  });
}

int32_t dg_rmsprop(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t centered, double lr, double alpha, double eps, double weight_decay,
                   double momentum, uint32_t maximize) {
  return guard([&] {
    const char* const name = "rmsprop";
    const bool moving = momentum > 0;
    const std::vector<Item> items = collect(t, first, count, 1 + (centered ? 1 : 0) + (moving ? 1 : 0), name);
    each_dtype(items, name, [&](auto kind, uint32_t dtype) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const RmsProp<C> k{decay_of<C>(weight_decay, maximize), C(lr), C(alpha), C(1 - alpha), C(eps), C(momentum)};
      if (centered && moving) update_all<T>(name, items, dtype, RmsPropRule<C, true, true>{k});
      else if (centered) update_all<T>(name, items, dtype, RmsPropRule<C, true, false>{k});
      else if (moving) update_all<T>(name, items, dtype, RmsPropRule<C, false, true>{k});
      else update_all<T>(name, items, dtype, RmsPropRule<C, false, false>{k});
    });
  });
}

int32_t dg_adagrad(const dg_tensor* t, uint32_t first, uint32_t count, double rate, double eps, double weight_decay, uint32_t maximize) {
  return guard([&] {
    const char* const name = "adagrad";
    const std::vector<Item> items = collect(t, first, count, 1, name);
    each_dtype(items, name, [&](auto kind, uint32_t dtype) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      update_all<T>(name, items, dtype, AdagradRule<C>{{decay_of<C>(weight_decay, maximize), C(rate), C(eps)}});
    });
  });
}
