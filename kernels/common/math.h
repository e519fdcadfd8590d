// Elementary functions in float without branches or tables, so that compilers vectorise them and CPU and CUDA agree.
// Double precision goes to the C library. Errors are stated against float64 over the whole range.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "dtype.h"

namespace dg {

template <class To, class From>
DG_MATH To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// (e^r - 1) for |r| <= ln2 / 2: a degree 6 polynomial (Cephes expf).
DG_MATH float expm1_tail(float r) {
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  return fmaf(p, r * r, r);
}

// m * 2^n in two factors, so that 2^n may be denormal or 2^128; n is a whole number, or NaN with m.
DG_MATH float scale_(float m, float n) {
  const int k = n == n ? int(n) : 0, half = k >> 1;
  return m * bit_cast<float>((half + 127) << 23) * bit_cast<float>((k - half + 127) << 23);
}

// e^x, at most 1 ulp off; overflows to inf, underflows through denormals to 0. Reduction to |r| <= ln2 / 2 in two parts.
DG_MATH float exp_(float x) {
  const float clamped = x < -104.0f ? -104.0f : (x > 89.0f ? 89.0f : x);
  const float n = rintf(clamped * 1.44269504088896341f);
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, clamped));
  return scale_(expm1_tail(r) + 1.0f, n);
}
// e^x / 2 for x >= 0, finite wherever it is a float.
DG_MATH float half_exp_(float x) {
  const float clamped = x > 90.0f ? 90.0f : x;
  const float n = rintf(clamped * 1.44269504088896341f);
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, clamped));
  return scale_(expm1_tail(r) + 1.0f, n - 1.0f);
}
DG_MATH double exp_(double x) { return ::exp(x); }

// 2^x, at most 2 ulp off.
DG_MATH float exp2_(float x) {
  const float clamped = x < -151.0f ? -151.0f : (x > 129.0f ? 129.0f : x);
  const float n = rintf(clamped), f = clamped - n;
  return scale_(expm1_tail(f * 0.693147180559945f) + 1.0f, n);
}
DG_MATH double exp2_(double x) { return ::exp2(x); }

// e^x - 1 without cancellation, at most 2 ulp off: 2^n (e^r - 1) + (2^n - 1), halved so that 2^n stays finite.
DG_MATH float expm1_(float x) {
  const float clamped = x < -20.0f ? -20.0f : (x > 89.0f ? 89.0f : x);
  const float n = rintf(clamped * 1.44269504088896341f);
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, clamped));
  const float s = bit_cast<float>(((n == n ? int(n) : 0) + 126) << 23);
  const float y = 2.0f * fmaf(s, expm1_tail(r), s - 0.5f);
  return n == 0.0f ? (x == 0.0f ? x : expm1_tail(r)) : y;
}
DG_MATH double expm1_(double x) { return ::expm1(x); }

// A positive float as (1 + m) 2^e with 1 + m in [sqrt(1/2), sqrt(2)).
struct Split {
  float m, e;
};
DG_MATH Split split_(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const uint32_t bits = bit_cast<uint32_t>(tiny ? x * 8388608.0f : x);
  const float m = bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  const bool low = m < 0.707106781186547524f;
  const int e = int(bits >> 23) - 126 - (tiny ? 23 : 0) - (low ? 1 : 0);
  return {(low ? m + m : m) - 1.0f, float(e)};
}

// log(1 + m) - m for 1 + m in [sqrt(1/2), sqrt(2)) (Cephes logf), and its sum with e ln2.
DG_MATH float log_tail(float m) {
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
  return fmaf(-0.5f, z, m * z * p);
}
DG_MATH float log_join(float m, float e) {
  return fmaf(e, 0.693359375f, m + fmaf(e, -2.12194440e-4f, log_tail(m)));
}

// What every logarithm gives outside the positive finite numbers.
DG_MATH float log_ends(float x, float finite) {
  const float infinity = bit_cast<float>(0x7f800000u), nan = bit_cast<float>(0x7fc00000u);
  return x > 0 ? (x < infinity ? finite : infinity) : (x == 0 ? -infinity : nan);
}

// Natural logarithm, at most 2 ulp off; log(0) = -inf, log(negative) = nan.
DG_MATH float log_(float x) {
  const Split s = split_(x);
  return log_ends(x, log_join(s.m, s.e));
}
DG_MATH double log_(double x) { return ::log(x); }

// Logarithms to the bases 2 and 10, at most 3 ulp off.
DG_MATH float log2_(float x) {
  const Split s = split_(x);
  const float tail = log_tail(s.m);
  // (m + tail) log2(e) with log2(e) = 1 + 0.4427: the part that would cancel is exact.
  const float y = fmaf(tail, 0.44269504088896341f, fmaf(s.m, 0.44269504088896341f, tail)) + s.m;
  return log_ends(x, s.e + y);
}
DG_MATH double log2_(double x) { return ::log2(x); }
DG_MATH float log10_(float x) {
  const Split s = split_(x);
  const float y = 0.43429448190325183f * (s.m + log_tail(s.m));
  return log_ends(x, fmaf(s.e, 0.30102920532226562f, fmaf(s.e, 7.9034151557e-7f, y)));
}
DG_MATH double log10_(double x) { return ::log10(x); }

// log(1 + x) without cancellation, at most 2 ulp off: what 1 + x rounds away is added to the reduced argument.
DG_MATH float log1p_(float x) {
  const float u = 1.0f + x;
  const float lost = x < 1.0f ? x - (u - 1.0f) : 1.0f - (u - x);
  const Split s = split_(u);
  const float scale = s.e > 100.0f ? 0.0f : bit_cast<float>((127 - (s.e > 100.0f ? 0 : int(s.e))) << 23);
  const float m = fabsf(x) < 0.25f ? x : fmaf(lost, scale, s.m), e = fabsf(x) < 0.25f ? 0.0f : s.e;
  const float y = log_ends(u, log_join(m, e));
  return x == 0.0f ? x : y;
}
DG_MATH double log1p_(double x) { return ::log1p(x); }

// log(1 + t) for t in [0, 1], at most 2 ulp off.
DG_MATH float log1p_unit(float t) {
  const bool high = t > 0.41421356f;
  return log_join(high ? (t - 1.0f) * 0.5f : t, high ? 1.0f : 0.0f);
}
DG_MATH double log1p_unit(double t) { return ::log1p(t); }

// Hyperbolic tangent, at most 1.5 ulp off: an odd polynomial near 0, 1 - 2 / (e^2x + 1) elsewhere (Cephes tanhf).
DG_MATH float tanh_(float x) {
  const float a = fabsf(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = fmaf(p, z, 2.06390887954e-2f);
  p = fmaf(p, z, -5.37397155531e-2f);
  p = fmaf(p, z, 1.33314422036e-1f);
  p = fmaf(p, z, -3.33332819422e-1f);
  const float small = fmaf(p * z, a, a);
  const float large = 1.0f - 2.0f / (exp_(a + a) + 1.0f);
  return copysignf(a < 0.625f ? small : large, x);
}
DG_MATH double tanh_(double x) { return ::tanh(x); }

template <class T>
DG_MATH T sigmoid_(T x) {
  return T(1) / (T(1) + exp_(-x));
}

// log(1 + e^x) without overflow.
template <class T>
DG_MATH T softplus_(T x) {
  const T magnitude = x < 0 ? -x : x;
  return (x > 0 ? x : T(0)) + log1p_unit(exp_(-magnitude));
}

// Error function, absolute error under 2e-7: the odd rational approximation x P(x^2) / Q(x^2) on |x| <= 4 (coefficients of Eigen's erf).
DG_MATH float erf_(float x) {
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
  return c * (p / q);
}
DG_MATH double erf_(double x) { return ::erf(x); }

// 1 - erf(x), at most 5.5 ulp off: 1 - erf(x) near 0, elsewhere e^(-x^2) t P(t) with t = 1 / (1 + |x| / 2), P fitted to |x| <= 10.2
// (relative error 4e-9).
DG_MATH float erfc_(float x) {
  const float a = fabsf(x) > 10.2f ? 10.2f : fabsf(x), t = 1.0f / fmaf(a, 0.5f, 1.0f);
  float p = 0.0357671432576f;
  p = fmaf(p, t, -0.191033567305f);
  p = fmaf(p, t, 0.38142000313f);
  p = fmaf(p, t, -0.289592322412f);
  p = fmaf(p, t, -0.0219600854503f);
  p = fmaf(p, t, 0.0354058866012f);
  p = fmaf(p, t, 0.0548779131319f);
  p = fmaf(p, t, 0.185594953695f);
  p = fmaf(p, t, 0.245179160902f);
  p = fmaf(p, t, 0.282252396971f);
  p = fmaf(p, t, 0.282088520974f);
  const float square = a * a, lost = fmaf(a, a, -square);
  const float e = exp_(-square), y = p * t * fmaf(e, -lost, e);
  return a < 0.5f ? 1.0f - erf_(x) : (x < 0.0f ? 2.0f - y : y);
}
DG_MATH double erfc_(double x) { return ::erfc(x); }

// asin(x) / x - 1 for |x| <= 1/2, z = x^2 (Cephes asinf).
DG_MATH float asin_tail(float z) {
  float p = 4.2163199048e-2f;
  p = fmaf(p, z, 2.4181311049e-2f);
  p = fmaf(p, z, 4.5470025998e-2f);
  p = fmaf(p, z, 7.4953002686e-2f);
  p = fmaf(p, z, 1.6666752422e-1f);
  return p * z;
}
// Inverse sine and cosine, at most 2.5 ulp off; past 1/2 from the square root of (1 - |x|) / 2.
DG_MATH float asin_(float x) {
  const float a = fabsf(x);
  const bool large = a > 0.5f;
  const float z = large ? 0.5f * (1.0f - a) : a * a, s = large ? sqrtf(z) : a;
  const float y = fmaf(s, asin_tail(z), s);
  return copysignf(large ? 1.57079632679489662f - 2.0f * y : y, x);
}
DG_MATH float acos_(float x) {
  const float a = fabsf(x);
  const bool large = a > 0.5f;
  const float z = large ? 0.5f * (1.0f - a) : a * a, s = large ? sqrtf(z) : x;
  const float y = fmaf(s, asin_tail(z), s);
  // pi / 2 in two parts, so that the sum is rounded once.
  return large ? (x > 0.0f ? 2.0f * y : 3.14159265358979324f - 2.0f * y) : 1.57079637f - (y + 4.37113883e-8f);
}
DG_MATH double asin_(double x) { return ::asin(x); }
DG_MATH double acos_(double x) { return ::acos(x); }

// Inverse tangent, at most 3 ulp off: the range is reduced to tan(pi / 8) (Cephes atanf).
DG_MATH float atan_(float x) {
  const float a = fabsf(x);
  const bool large = a > 2.414213562373095f, middle = a > 0.4142135623730950f;
  const float r = (large ? -1.0f : (middle ? a - 1.0f : a)) / (large ? a : (middle ? a + 1.0f : 1.0f)), z = r * r;
  float p = 8.05374449538e-2f;
  p = fmaf(p, z, -1.38776856032e-1f);
  p = fmaf(p, z, 1.99777106478e-1f);
  p = fmaf(p, z, -3.33329491539e-1f);
  return copysignf((large ? 1.57079632679489662f : (middle ? 0.785398163397448310f : 0.0f)) + fmaf(p * z, r, r), x);
}
DG_MATH double atan_(double x) { return ::atan(x); }

// Hyperbolic sine and cosine, at most 2 ulp off.
DG_MATH float sinh_(float x) {
  const float a = fabsf(x), z = x * x, h = half_exp_(a);
  float p = 2.03721912945e-4f;
  p = fmaf(p, z, 8.33028376239e-3f);
  p = fmaf(p, z, 1.66667160211e-1f);
  return copysignf(a < 1.0f ? fmaf(p * z, a, a) : h - 0.25f / h, x);
}
DG_MATH float cosh_(float x) {
  const float h = half_exp_(fabsf(x));
  return h + 0.25f / h;
}
DG_MATH double sinh_(double x) { return ::sinh(x); }
DG_MATH double cosh_(double x) { return ::cosh(x); }

// Inverses of the hyperbolic functions by log(1 + t), at most 2.5 ulp off; where squares would overflow the logarithm of 2 x is meant.
DG_MATH float asinh_(float x) {
  const float a = fabsf(x);
  const bool large = a > 1e8f;
  const float t = a + a * (a / (1.0f + sqrtf(fmaf(a, a, 1.0f))));
  return copysignf(log1p_(large ? a : t) + (large ? 0.693147180559945f : 0.0f), x);
}
DG_MATH float acosh_(float x) {
  const bool large = x > 1e8f;
  const float t = x - 1.0f;
  const float y = log1p_(large ? x : t + sqrtf(t * (t + 2.0f))) + (large ? 0.693147180559945f : 0.0f);
  return x < 1.0f ? bit_cast<float>(0x7fc00000u) : y;
}
DG_MATH float atanh_(float x) {
  const float a = fabsf(x), b = a + a;
  return copysignf(0.5f * log1p_(a < 0.5f ? fmaf(b, a / (1.0f - a), b) : b / (1.0f - a)), x);
}
DG_MATH double asinh_(double x) { return ::asinh(x); }
DG_MATH double acosh_(double x) { return ::acosh(x); }
DG_MATH double atanh_(double x) { return ::atanh(x); }

// Arguments from which sin_, cos_ and tan_ leave the float path: the reduction below is exact enough up to here.
inline constexpr float kPeriodicLimit = 1e14f;

// x minus the nearest multiple n of pi / 2, in double; the quadrant is n mod 4.
DG_MATH float quadrant_(float x, int* quadrant) {
  const double v = double(x), n = rint(v * 0.63661977236758134308);
  const double r = fma(n, -6.123233995736766e-17, fma(n, -1.5707963267948966, v));
  *quadrant = int(n - 4.0 * floor(n * 0.25));
  return float(r);
}
// Sine and cosine for |r| <= pi / 4, at most 1 ulp off (Cephes sinf, cosf).
DG_MATH float sin_tail(float r) {
  const float z = r * r;
  const float p = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
  return fmaf(p * z, r, r);
}
DG_MATH float cos_tail(float r) {
  const float z = r * r;
  const float p = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
  return fmaf(p * z, z, fmaf(-0.5f, z, 1.0f));
}
// At most 2 ulp off for |x| < kPeriodicLimit.
DG_MATH float sin_(float x) {
  int q;
  const float r = quadrant_(x, &q), y = q & 1 ? cos_tail(r) : sin_tail(r);
  return x == 0.0f ? x : (q & 2 ? -y : y);
}
DG_MATH float cos_(float x) {
  int q;
  const float r = quadrant_(x, &q), y = q & 1 ? sin_tail(r) : cos_tail(r);
  return (q + 1) & 2 ? -y : y;
}
DG_MATH float tan_(float x) {
  int q;
  const float r = quadrant_(x, &q), s = sin_tail(r), c = cos_tail(r);
  return x == 0.0f ? x : (q & 1 ? -c / s : s / c);
}
DG_MATH double sin_(double x) { return ::sin(x); }
DG_MATH double cos_(double x) { return ::cos(x); }
DG_MATH double tan_(double x) { return ::tan(x); }

// x^y, correctly rounded but for rare ties: 2^(y log2 x) in double, log2 by the series of the inverse hyperbolic tangent.
DG_MATH float pow_(float x, float y) {
  const float infinity = bit_cast<float>(0x7f800000u), a = fabsf(x);
  const bool tiny = a < 1.17549435e-38f;
  const uint32_t bits = bit_cast<uint32_t>(tiny ? a * 8388608.0f : a);
  const float mantissa = bit_cast<float>((bits & 0x007fffffu) | 0x3f000000u);
  const bool low = mantissa < 0.707106781186547524f;
  const double e = double(int(bits >> 23) - 126 - (tiny ? 23 : 0) - (low ? 1 : 0));
  const double m = double(low ? mantissa + mantissa : mantissa);
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 19;
  p = fma(p, z, 1.0 / 17);
  p = fma(p, z, 1.0 / 15);
  p = fma(p, z, 1.0 / 13);
  p = fma(p, z, 1.0 / 11);
  p = fma(p, z, 1.0 / 9);
  p = fma(p, z, 1.0 / 7);
  p = fma(p, z, 1.0 / 5);
  p = fma(p, z, 1.0 / 3);
  p = fma(p, z, 1.0);
  double l = fma(2.0 * 1.4426950408889634 * s, p, e);
  l = a == 0.0f ? -double(infinity) : (a < infinity ? l : double(a));
  double t = double(y) * l;
  t = t < -200.0 ? -200.0 : (t > 200.0 ? 200.0 : t);
  const double n = rint(t), f = (t - n) * 0.6931471805599453;
  double q = 1.0 / 362880;
  q = fma(q, f, 1.0 / 40320);
  q = fma(q, f, 1.0 / 5040);
  q = fma(q, f, 1.0 / 720);
  q = fma(q, f, 1.0 / 120);
  q = fma(q, f, 1.0 / 24);
  q = fma(q, f, 1.0 / 6);
  q = fma(q, f, 0.5);
  q = fma(q, f, 1.0);
  q = fma(q, f, 1.0);
  const int64_t k = n == n ? int64_t(n) : 0;
  float result = float(q * bit_cast<double>((k + 1023) << 52));
  const float half = y * 0.5f;
  const bool whole = truncf(y) == y, odd = whole && truncf(half) != half;
  result = odd && bit_cast<uint32_t>(x) >> 31 ? -result : result;
  result = x < 0.0f && a < infinity && !whole ? bit_cast<float>(0x7fc00000u) : result;
  return y == 0.0f || x == 1.0f || (x == -1.0f && fabsf(y) == infinity) ? 1.0f : result;
}
DG_MATH double pow_(double x, double y) { return ::pow(x, y); }

}  // namespace dg
