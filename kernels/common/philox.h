// Philox4x32-10, a counter-based random generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
// and the numbers made of its words. Word j of counter k depends on (seed, k, j) alone: neither on threads nor on the device.
#pragma once
#include "math.h"

namespace dg {

struct PhiloxKey {
  uint32_t low, high;
};

// Encrypts the 128-bit counter c in place.
DG_HD void philox(uint32_t& c0, uint32_t& c1, uint32_t& c2, uint32_t& c3, PhiloxKey key) {
  uint32_t k0 = key.low, k1 = key.high;
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53u) * c0, b = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(b >> 32) ^ c1 ^ k0, n2 = uint32_t(a >> 32) ^ c3 ^ k1;
    c1 = uint32_t(b);
    c3 = uint32_t(a);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Uniform in [0, 1) with the resolution of the type: 24 bits for float, 53 for double (two words).
DG_HD float uniform_float(uint32_t word) { return float(word >> 8) * 0x1p-24f; }
DG_HD double uniform_double(uint32_t low, uint32_t high) { return double((uint64_t(high) << 32 | low) >> 11) * 0x1p-53; }

// The high half of a 64-bit product.
DG_HD uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t al = uint32_t(a), ah = a >> 32, bl = uint32_t(b), bh = b >> 32;
  const uint64_t middle = ah * bl + (al * bl >> 32), other = al * bh + uint32_t(middle);
  return ah * bh + (middle >> 32) + (other >> 32);
}

// A whole number in [0, range); its distance from uniform is under range / 2^64.
DG_HD uint64_t uniform_below(uint32_t low, uint32_t high, uint64_t range) { return multiply_high(uint64_t(high) << 32 | low, range); }

// Two independent standard normal numbers (Box and Muller 1958); |z| < 6.8. The angle is a fraction of a turn held in a whole number,
// so its reduction to an eighth of a turn is exact; sine and cosine there are Cephes' polynomials.
DG_HD void normal_pair(uint32_t w0, uint32_t w1, float& z0, float& z1) {
  const float radius = sqrtf(-2.0f * log_((float(w0) + 0.5f) * 0x1p-32f));
  const uint32_t quadrant = (w1 + 0x20000000u) >> 30;
  const float a = float(int32_t(w1 - (quadrant << 30))) * 1.46291807926715968e-9f;  // 2 pi / 2^32
  const float z = a * a;
  float s = -1.9515295891e-4f;
  s = fmaf(s, z, 8.3321608736e-3f);
  s = fmaf(s, z, -1.6666654611e-1f);
  s = fmaf(s * z, a, a);
  float c = 2.443315711809948e-5f;
  c = fmaf(c, z, -1.388731625493765e-3f);
  c = fmaf(c, z, 4.166664568298827e-2f);
  c = fmaf(c * z, z, fmaf(-0.5f, z, 1.0f));
  const bool swap = quadrant & 1u;
  const float sine = swap ? c : s, cosine = swap ? s : c;
  z0 = radius * ((quadrant + 1u) & 2u ? -cosine : cosine);
  z1 = radius * (quadrant & 2u ? -sine : sine);
}

// The same from four words in double precision; |z| < 8.6.
DG_HD void normal_pair(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3, double& z0, double& z1) {
  const double radius = ::sqrt(-2.0 * ::log(uniform_double(w0, w1) + 0x1p-54)), angle = 6.283185307179586477 * uniform_double(w2, w3);
  z0 = radius * ::cos(angle);
  z1 = radius * ::sin(angle);
}

// Inverse of the error function on (-1, 1): Giles's approximation (2010) and two Newton steps.
DG_HD double erfinv_(double x) {
  double w = -::log((1.0 - x) * (1.0 + x)), p;
  if (w < 5.0) {
    w -= 2.5;
    p = 2.81022636e-08;
    p = 3.43273939e-07 + p * w;
    p = -3.5233877e-06 + p * w;
    p = -4.39150654e-06 + p * w;
    p = 0.00021858087 + p * w;
    p = -0.00125372503 + p * w;
    p = -0.00417768164 + p * w;
    p = 0.246640727 + p * w;
    p = 1.50140941 + p * w;
  } else {
    w = ::sqrt(w) - 3.0;
    p = -0.000200214257;
    p = 0.000100950558 + p * w;
    p = 0.00134934322 + p * w;
    p = -0.00367342844 + p * w;
    p = 0.00573950773 + p * w;
    p = -0.0076224613 + p * w;
    p = 0.00943887047 + p * w;
    p = 1.00167406 + p * w;
    p = 2.83297682 + p * w;
  }
  double y = p * x;
  for (int step = 0; step < 2; step++) y -= (::erf(y) - x) / (1.12837916709551257 * ::exp(-y * y));
  return y;
}

}  // namespace dg
