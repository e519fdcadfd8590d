// Update formulas of the optimisers for one element, C the compute type; as torch.optim's single-tensor forms, in the same order of operations.
#pragma once
#include "dtype.h"
#include "math.h"

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
Decay<C> decay_of(double weight_decay, uint32_t maximize) {
  return {C(maximize ? -1 : 1), C(weight_decay)};
}

template <class C>
struct Sgd {
  Decay<C> decay;
  C lr, momentum, undamped;  // undamped: 1 - dampening
  bool nesterov, fresh;      // fresh: the buffer starts as the gradient

  DG_HD void plain(C& p, C g) const { p -= lr * decay.gradient(g, p); }
  DG_HD void with_momentum(C& p, C g, C& buffer) const {
    g = decay.gradient(g, p);
    buffer = fresh ? g : momentum * buffer + undamped * g;
    p -= lr * (nesterov ? g + momentum * buffer : buffer);
  }
};

template <class C>
struct Adam {
  Decay<C> decay;
  C shrink;                      // 1 - lr * weight decay (AdamW), else 1
  C rest1, beta2, rest2;         // 1 - beta1, beta2, 1 - beta2
  C step_size, inverse_correction;  // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  C eps;

  DG_HD C moments(C& p, C g, C& m, C& v) const {
    p *= shrink;
    g = decay.gradient(g, p);
    m += rest1 * (g - m);
    v = beta2 * v + rest2 * (g * g);
    return v;
  }
  DG_HD void apply(C& p, C m, C v) const { p -= step_size * (m / (root(v) * inverse_correction + eps)); }
};

template <class C>
struct RmsProp {
  Decay<C> decay;
  C lr, alpha, rest, eps, momentum;  // rest: 1 - alpha

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

template <class C>
struct Adagrad {
  Decay<C> decay;
  C rate, eps;  // rate: lr / (1 + (t - 1) * lr decay)

  DG_HD void apply(C& p, C g, C& sum) const {
    g = decay.gradient(g, p);
    sum += g * g;
    p -= rate * (g / (root(sum) + eps));
  }
};

}  // namespace dg
