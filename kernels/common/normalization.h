// Formulas of the normalisations. One expression each, so that a backward that computes an output again gets the same bits.
#pragma once
#include "math.h"

namespace dg {

DG_HD float fma_(float a, float b, float c) { return fmaf(a, b, c); }
DG_HD double fma_(double a, double b, double c) { return ::fma(a, b, c); }

// y = (x - mean) * scale + shift with scale = weight / sqrt(var + eps): the difference first, for data far from 0.
template <class C>
DG_HD C normalised(C x, C mean, C scale, C shift) {
  return fma_(x - mean, scale, shift);
}

// dx = slope * (dy - a - (x - mean) * b) with slope = weight * invstd, a = mean(dy), b = mean(dy * xhat) * invstd; both 0 when the
// statistics do not depend on x.
template <class C>
DG_HD C normalised_slope(C dy, C x, C mean, C slope, C a, C b) {
  return slope * (dy - fma_(x - mean, b, a));
}

// 1 / sqrt(var + eps).
template <class C>
DG_HD C inverse_deviation(C var, double eps) {
  return C(1.0 / ::sqrt(double(var) + eps));
}

// What becomes of a channel's mean and biased variance, which `unbiased` = count / (count - 1) makes the unbiased one: the inverse deviation and the
// running statistics, where given. Channel 0 counts the batch.
template <class C>
struct ChannelUpdate {
  C *invstd = nullptr, *running_mean = nullptr, *running_var = nullptr;
  int64_t* batches = nullptr;
  double unbiased = 1, momentum = 0, eps = 0;

  DG_HD void operator()(int64_t channel, C mean, C var) const {
    if (batches && channel == 0) ++*batches;
    if (invstd) invstd[channel] = inverse_deviation(var, eps);
    if (!running_mean) return;
    running_mean[channel] = C((1 - momentum) * double(running_mean[channel]) + momentum * double(mean));
    running_var[channel] = C((1 - momentum) * double(running_var[channel]) + momentum * unbiased * double(var));
  }
};

}  // namespace dg
