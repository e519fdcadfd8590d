// Update formulas of the optimisers for one element, C the compute type; as torch.optim's single-tensor forms, in the same order of operations.
#pragma once
#include <vector>

#include "math.h"
#include "tensor.h"

namespace dg {

DG_HD float root(float v) { return sqrtf(v); }
DG_HD double root(double v) { return ::sqrt(v); }

// What every optimiser does to the gradient first: ascend instead of descend, add the decay.
template <class C>
struct Decay {
  C sign, decay;  // -1 to maximise; L2 factor
  DG_HD C gradient(C g, C p) const {
    g *= sign;
    return decay != C(0) ? g + decay * p : g;
  }
};

template <class C>
Decay<C> decay_of(double weight_decay, bool maximize) {
  return {C(maximize ? -1 : 1), C(weight_decay)};
}

struct SgdOptions {
  double lr, momentum, dampening, weight_decay;
  bool buffered, nesterov, maximize, fresh;  // fresh: the buffer starts as the gradient
  int states() const { return buffered; }
};

template <class C>
struct Sgd {
  Decay<C> decay;
  C lr, momentum, undamped;  // undamped: 1 - dampening
  bool nesterov, fresh;

  explicit Sgd(const SgdOptions& o)
      : decay(decay_of<C>(o.weight_decay, o.maximize)), lr(C(o.lr)), momentum(C(o.momentum)), undamped(C(1 - o.dampening)),
        nesterov(o.nesterov), fresh(o.fresh) {}

  DG_HD void plain(C& p, C g) const { p -= lr * decay.gradient(g, p); }
  DG_HD void with_momentum(C& p, C g, C& buffer) const {
    g = decay.gradient(g, p);
    buffer = fresh ? g : momentum * buffer + undamped * g;
    p -= lr * (nesterov ? g + momentum * buffer : buffer);
  }
};

struct AdamOptions {
  double lr, beta1, beta2, eps, weight_decay;
  bool amsgrad, decoupled, maximize;
  int states() const { return amsgrad ? 3 : 2; }
};

template <class C>
struct Adam {
  Decay<C> decay;
  C shrink;                      // 1 - lr * weight decay (AdamW), else 1
  C rest1, beta2, rest2;         // 1 - beta1, beta2, 1 - beta2
  C step_size, inverse_correction;  // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  C eps;

  Adam(const AdamOptions& o, double step)
      : decay(decay_of<C>(o.decoupled ? 0 : o.weight_decay, o.maximize)), shrink(C(o.decoupled ? 1 - o.lr * o.weight_decay : 1)),
        rest1(C(1 - o.beta1)), beta2(C(o.beta2)), rest2(C(1 - o.beta2)), eps(C(o.eps)) {
    correct(o, step);
  }
  DG_HD void correct(const AdamOptions& o, double step) {
    step_size = C(o.lr / (1 - ::pow(o.beta1, step)));
    inverse_correction = C(1 / ::sqrt(1 - ::pow(o.beta2, step)));
  }

  DG_HD C moments(C& p, C g, C& m, C& v) const {
    p *= shrink;
    g = decay.gradient(g, p);
    m += rest1 * (g - m);
    v = beta2 * v + rest2 * (g * g);
    return v;
  }
  DG_HD void apply(C& p, C m, C v) const { p -= step_size * (m / (root(v) * inverse_correction + eps)); }
};

struct RmsPropOptions {
  double lr, alpha, eps, weight_decay, momentum;
  bool centered, maximize;
  bool moving() const { return momentum > 0; }
  int states() const { return 1 + centered + moving(); }
};

template <class C>
struct RmsProp {
  Decay<C> decay;
  C lr, alpha, rest, eps, momentum;  // rest: 1 - alpha

  explicit RmsProp(const RmsPropOptions& o)
      : decay(decay_of<C>(o.weight_decay, o.maximize)), lr(C(o.lr)), alpha(C(o.alpha)), rest(C(1 - o.alpha)), eps(C(o.eps)),
        momentum(C(o.momentum)) {}

  DG_HD C scaled(C& p, C g, C& square, C* mean) const {
    g = decay.gradient(g, p);
    square = alpha * square + rest * (g * g);
    C average = square;
    if (mean) {
      *mean += rest * (g - *mean);
      average = square - *mean * *mean;
    }
    return g / (root(average) + eps);
  }
};

struct AdagradOptions {
  double rate, eps, weight_decay;  // rate: lr / (1 + (t - 1) * lr decay)
  bool maximize;
  int states() const { return 1; }
};

template <class C>
struct Adagrad {
  Decay<C> decay;
  C rate, eps;

  explicit Adagrad(const AdagradOptions& o) : decay(decay_of<C>(o.weight_decay, o.maximize)), rate(C(o.rate)), eps(C(o.eps)) {}

  DG_HD void apply(C& p, C g, C& sum) const {
    g = decay.gradient(g, p);
    sum += g * g;
    p -= rate * (g / (root(sum) + eps));
  }
};

inline constexpr int kStates = 3;

// A parameter as a run of memory, with its gradient and its states, which have the compute type of the parameter, in the same order.
struct Item {
  void* p;
  const void* g;
  void* state[kStates];
  uint32_t dtype;
  int64_t numel;
};

// Provided by each library (optimizer.cpp, optimizer.cu); checked by entry/optimizer.cpp. Each item has as many states as its options say.
void sgd(const std::vector<Item>& items, const SgdOptions& options);
void adam(const std::vector<Item>& items, const AdamOptions& options, double step);
void rmsprop(const std::vector<Item>& items, const RmsPropOptions& options);
void adagrad(const std::vector<Item>& items, const AdagradOptions& options);

}  // namespace dg
