// One call updates all parameters of a group: formulas in common/optimizer.h.
#include "../common/optimizer.h"

#include "elementwise.h"

namespace dg {
namespace {

// Calls f(item, begin, end) over chunks of all items, in parallel.
template <class ItemLike, class F>
void each_chunk(const std::vector<ItemLike>& items, F&& f) {
  int64_t total = 0;
  for (const ItemLike& item : items) total += item.numel;
  if (total <= kGrain) {
    for (size_t i = 0; i < items.size(); i++)
      if (items[i].numel > 0) f(items[i], int64_t(0), items[i].numel);
    return;
  }
  std::vector<std::pair<const ItemLike*, int64_t>> chunks;
  chunks.reserve(items.size() + size_t(total / kGrain));
  for (const ItemLike& item : items)
    for (int64_t begin = 0; begin < item.numel; begin += kGrain) chunks.emplace_back(&item, begin);
  parallel_for(int64_t(chunks.size()), 1, [&](int64_t c, int64_t) {
    const auto& [item, begin] = chunks[size_t(c)];
    f(*item, begin, std::min(item->numel, begin + kGrain));
  });
}

// each_chunk with the element type: f(tag<T>, p, g, states, count).
template <class F>
void each_typed(const std::vector<Item>& items, F&& f) {
  each_chunk(items, [&](const Item& item, int64_t begin, int64_t end) {
    auto go = [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      C* state[kStates];
      for (int k = 0; k < kStates; k++) state[k] = item.state[k] ? static_cast<C*>(item.state[k]) + begin : nullptr;
      f(kind, static_cast<T*>(item.p) + begin, static_cast<const T*>(item.g) + begin, state, end - begin);
    };
    switch (item.dtype) {
      case DG_F32: return go(tag<float>{});
      case DG_F64: return go(tag<double>{});
      case DG_F16: return go(tag<f16>{});
      default: return go(tag<bf16>{});
    }
  });
}

}  // namespace

void sgd(const std::vector<Item>& items, const SgdOptions& options) {
  each_typed(items, [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Sgd<C> k(options);
    C* const buffer = state[0];
    if (!options.buffered) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        C v = p[i];
        k.plain(v, g[i]);
        p[i] = T(v);
      }
      return;
    }
    const bool fresh = options.fresh;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      C v = p[i], b = fresh ? C(0) : buffer[i];
      k.with_momentum(v, g[i], b);
      p[i] = T(v);
      buffer[i] = b;
    }
  });
}

void adam(const std::vector<Item>& items, const AdamOptions& options, double step) {
  each_typed(items, [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Adam<C> k(options, step);
    C *const m = state[0], *const v = state[1], *const largest = state[2];
    if (!options.amsgrad) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        C x = p[i];
        const C second = k.moments(x, g[i], m[i], v[i]);
        k.apply(x, m[i], second);
        p[i] = T(x);
      }
      return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      C x = p[i];
      const C second = k.moments(x, g[i], m[i], v[i]);
      largest[i] = second > largest[i] || second != second ? second : largest[i];
      k.apply(x, m[i], largest[i]);
      p[i] = T(x);
    }
  });
}

void rmsprop(const std::vector<Item>& items, const RmsPropOptions& options) {
  each_typed(items, [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const RmsProp<C> k(options);
    C *const square = state[0], *const mean = options.centered ? state[1] : nullptr;
    C* const buffer = options.moving() ? state[options.states() - 1] : nullptr;
    for (int64_t i = 0; i < n; i++) {
      C x = p[i];
      C change = k.scaled(x, g[i], square[i], mean ? mean + i : nullptr);
      if (buffer) change = buffer[i] = k.momentum * buffer[i] + change;
      p[i] = T(x - k.lr * change);
    }
  });
}

void adagrad(const std::vector<Item>& items, const AdagradOptions& options) {
  each_typed(items, [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Adagrad<C> k(options);
    C* const sum = state[0];
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      C x = p[i];
      k.apply(x, g[i], sum[i]);
      p[i] = T(x);
    }
  });
}

}  // namespace dg
