// Elementary functions in float without branches or tables, so that compilers vectorise them and CPU and CUDA agree.
// Double precision goes to the C library. Errors are stated against float64 over the whole range.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "dtype.h"

namespace dg {

template <class To, class From>
DG_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// e^x, at most 1 ulp off; overflows to inf, underflows through denormals to 0.
// Reduction to |r| <= ln2/2 in two parts and a degree 6 polynomial (Cephes expf).
DG_HD float exp_(float x) {
  const float clamped = x < -104.0f ? -104.0f : (x > 89.0f ? 89.0f : x);
  const float n = rintf(clamped * 1.44269504088896341f);
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, clamped));
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.0f;
  const int k = clamped == clamped ? int(n) : 0;
  const int half = k >> 1;  // two factors, so that 2^k may be denormal or 2^128
  return p * bit_cast<float>((half + 127) << 23) * bit_cast<float>((k - half + 127) << 23);
}
DG_HD double exp_(double x) { return ::exp(x); }

// Natural logarithm, at most 2 ulp off (Cephes logf); log(0) = -inf, log(negative) = nan.
DG_HD float log_(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float scaled = tiny ? x * 8388608.0f : x;
  uint32_t bits = bit_cast<uint32_t>(scaled);
  int e = int(bits >> 23) - 126 - (tiny ? 23 : 0);
  float m = bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  const bool low = m < 0.707106781186547524f;
  e -= low ? 1 : 0;
  m = (low ? m + m : m) - 1.0f;
  const float z = m * m;
  float p = 7.0376836292e-2f;
  p = fmaf(p, m, -1.1514610310e-1f);
  p = fmaf(p, m, 1.1676998740e-1f);
  p = fmaf(p, m, -1.2420140846e-1f);
  p = fmaf(p, m, 1.4249322787e-1f);
  p = fmaf(p, m, -1.6668057665e-1f);
  p = fmaf(p, m, 2.0000714765e-1f);
  p = fmaf(p, m, -2.4999993993e-1f);
  p = fmaf(p, m, 3.3333331174e-1f);
  const float fe = float(e);
  float y = m * z * p;
  y = fmaf(fe, -2.12194440e-4f, y);
  y = fmaf(-0.5f, z, y);
  const float finite = fmaf(fe, 0.693359375f, m + y);
  const float infinity = bit_cast<float>(0x7f800000u), nan = bit_cast<float>(0x7fc00000u);
  return x > 0 ? (x < infinity ? finite : infinity) : (x == 0 ? -infinity : nan);
}
DG_HD double log_(double x) { return ::log(x); }

// Hyperbolic tangent, at most 3 ulp off: an odd polynomial near 0, 1 - 2 / (e^2x + 1) elsewhere (Cephes tanhf).
DG_HD float tanh_(float x) {
  const float a = fabsf(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = fmaf(p, z, 2.06390887954e-2f);
  p = fmaf(p, z, -5.37397155531e-2f);
  p = fmaf(p, z, 1.33314422036e-1f);
  p = fmaf(p, z, -3.33332819422e-1f);
  const float small = fmaf(p * z, x, x);
  const float large = copysignf(1.0f - 2.0f / (exp_(a + a) + 1.0f), x);
  return a < 0.625f ? small : (x == x ? large : x);
}
DG_HD double tanh_(double x) { return ::tanh(x); }

template <class T>
DG_HD T sigmoid_(T x) {
  return T(1) / (T(1) + exp_(-x));
}

// log(1 + x) for x >= 0 without cancellation: log(u) x / (u - 1) with u = 1 + x (Higham, Accuracy and Stability, 1.14.1).
DG_HD float log1p_nonnegative(float x) {
  const float u = 1.0f + x;
  return u == 1.0f ? x : log_(u) * (x / (u - 1.0f));
}
DG_HD double log1p_nonnegative(double x) { return ::log1p(x); }

// log(1 + e^x) without overflow.
template <class T>
DG_HD T softplus_(T x) {
  const T magnitude = x < 0 ? -x : x;
  return (x > 0 ? x : T(0)) + log1p_nonnegative(exp_(-magnitude));
}

// Error function, absolute error under 2e-7: the odd rational approximation x P(x^2) / Q(x^2) on |x| <= 4 (coefficients of Eigen's erf).
DG_HD float erf_(float x) {
  const float c = x < -4.0f ? -4.0f : (x > 4.0f ? 4.0f : x);
  const float z = c * c;
  float p = -2.72614225801306e-10f;
  p = fmaf(p, z, 2.77068142495902e-08f);
  p = fmaf(p, z, -2.10102402082508e-06f);
  p = fmaf(p, z, -5.69250639462346e-05f);
  p = fmaf(p, z, -7.34990630326855e-04f);
  p = fmaf(p, z, -2.95459980854025e-03f);
  p = fmaf(p, z, -1.60960333262415e-02f);
  float q = -1.45660718464996e-05f;
  q = fmaf(q, z, -2.13374055278905e-04f);
  q = fmaf(q, z, -1.68282697438203e-03f);
  q = fmaf(q, z, -7.37332916720468e-03f);
  q = fmaf(q, z, -1.42647390514189e-02f);
  return c * p / q;
}
DG_HD double erf_(double x) { return ::erf(x); }

}  // namespace dg
