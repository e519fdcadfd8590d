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

}  // namespace dg
