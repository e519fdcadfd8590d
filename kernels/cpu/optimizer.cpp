// One call updates all parameters of a group. Headers lie one after the other from slot `first`: for each parameter itself, its gradient, its states.
// All of a parameter's tensors have its sizes and strides and no gaps, so each is one run of memory; states have the compute type of the parameter.
#include "../common/optimizer.h"

#include "../common/parameters.h"
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
}  // namespace dg

using namespace dg;

int32_t dg_sgd(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t has_buffer, double lr, double momentum, double dampening,
               double weight_decay, uint32_t nesterov, uint32_t maximize, uint32_t fresh) {
  return guard([&] {
    each_typed(collect(t, first, count, has_buffer ? 1 : 0, "sgd"), [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const Sgd<C> k{decay_of<C>(weight_decay, maximize), C(lr), C(momentum), C(1 - dampening), nesterov != 0, fresh != 0};
      C* const buffer = state[0];
      if (!has_buffer) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
          C v = p[i];
          k.plain(v, g[i]);
          p[i] = T(v);
        }
        return;
      }
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        C v = p[i], b = fresh ? C(0) : buffer[i];
        k.with_momentum(v, g[i], b);
        p[i] = T(v);
        buffer[i] = b;
      }
    });
  });
}

int32_t dg_adam(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t amsgrad, double lr, double beta1, double beta2, double eps,
                double weight_decay, uint32_t decoupled, uint32_t maximize, double step) {
  return guard([&] {
    if (!(step >= 1)) fail(DG_RANGE, "adam: step %g must be at least 1", step);
    const double correction1 = 1 - std::pow(beta1, step), correction2 = 1 - std::pow(beta2, step);
    each_typed(collect(t, first, count, amsgrad ? 3 : 2, "adam"), [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const Adam<C> k{decay_of<C>(decoupled ? 0 : weight_decay, maximize), C(decoupled ? 1 - lr * weight_decay : 1), C(1 - beta1), C(beta2),
                      C(1 - beta2), C(lr / correction1), C(1 / std::sqrt(correction2)), C(eps)};
      C *const m = state[0], *const v = state[1], *const largest = state[2];
      if (!amsgrad) {
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
  });
}

int32_t dg_rmsprop(const dg_tensor* t, uint32_t first, uint32_t count, uint32_t centered, double lr, double alpha, double eps, double weight_decay,
                   double momentum, uint32_t maximize) {
  return guard([&] {
    const bool moving = momentum > 0;
    const int states = 1 + (centered ? 1 : 0) + (moving ? 1 : 0);
    each_typed(collect(t, first, count, states, "rmsprop"), [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const RmsProp<C> k{decay_of<C>(weight_decay, maximize), C(lr), C(alpha), C(1 - alpha), C(eps), C(momentum)};
      C *const square = state[0], *const mean = centered ? state[1] : nullptr, *const buffer = moving ? state[states - 1] : nullptr;
      for (int64_t i = 0; i < n; i++) {
        C x = p[i];
        C change = k.scaled(x, g[i], square[i], mean ? mean + i : nullptr);
        if (buffer) change = buffer[i] = k.momentum * buffer[i] + change;
        p[i] = T(x - k.lr * change);
      }
    });
  });
}

int32_t dg_adagrad(const dg_tensor* t, uint32_t first, uint32_t count, double rate, double eps, double weight_decay, uint32_t maximize) {
  return guard([&] {
    each_typed(collect(t, first, count, 1, "adagrad"), [&](auto kind, auto* p, const auto* g, auto* const* state, int64_t n) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const Adagrad<C> k{decay_of<C>(weight_decay, maximize), C(rate), C(eps)};
      C* const sum = state[0];
#pragma omp simd
      for (int64_t i = 0; i < n; i++) {
        C x = p[i];
        k.apply(x, g[i], sum[i]);
        p[i] = T(x);
      }
    });
  });
}
