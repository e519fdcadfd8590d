// What the random functions make of Philox words, an element at a time. The libraries compile this without fused products, so that one seed gives
// one sequence everywhere (logarithms and the like as far as the C libraries agree).
#pragma once
#include "loop.h"
#include "op_codes.h"
#include "philox.h"

namespace dg {

struct RandomStream {
  PhiloxKey key;
  uint64_t offset;
  uint32_t high[2];  // upper half of the counter: 0 but for known-answer tests

  // The words of counter offset + i.
  DG_HD void words(uint64_t i, uint32_t (&word)[4]) const {
    const uint64_t counter = offset + i;
    word[0] = uint32_t(counter), word[1] = uint32_t(counter >> 32), word[2] = high[0], word[3] = high[1];
    philox(word[0], word[1], word[2], word[3], key);
  }
};

inline RandomStream random_stream(uint32_t seed_low, uint32_t seed_high, uint32_t offset_low, uint32_t offset_high) {
  return {{seed_low, seed_high}, uint64_t(offset_high) << 32 | offset_low, {0, 0}};
}

// In [a, b) but for rounding, which is clipped below b. Halves take as many bits as they hold, so that rounding cannot reach 1.
template <class T>
struct UniformNumber {
  float low, span, limit;
  UniformNumber(double a, double b) : low(float(a)), span(float(b - a)), limit(float(b)) {}
  DG_HD T operator()(uint32_t word) const {
    constexpr int drop = std::is_same_v<T, float> ? 8 : (std::is_same_v<T, f16> ? 21 : 24);
    constexpr float unit = std::is_same_v<T, float> ? 0x1p-24f : (std::is_same_v<T, f16> ? 0x1p-11f : 0x1p-8f);
    const float v = fmaf(float(word >> drop) * unit, span, low);
    const T number = T(v < limit ? v : low);
    if constexpr (std::is_same_v<T, float>) return number;
    else return float(number) < limit ? number : T(low);
  }
};
template <>
struct UniformNumber<double> {
  double a, b;
  UniformNumber(double a_, double b_) : a(a_), b(b_) {}
  DG_HD double operator()(uint32_t low, uint32_t high) const {
    const double v = a + (b - a) * uniform_double(low, high);
    return v < b ? v : a;
  }
};

// Mean a, deviation b, of a standard normal number.
template <class T>
struct NormalNumber {
  compute_t<T> mean, deviation;
  NormalNumber(double a, double b) : mean(compute_t<T>(a)), deviation(compute_t<T>(b)) {}
  DG_HD T operator()(compute_t<T> z) const {
    if constexpr (std::is_same_v<T, double>) return mean + deviation * z;
    else return T(fmaf(z, deviation, mean));
  }
};

template <class T>
struct WholeNumber {
  int64_t low;
  uint64_t range;
  WholeNumber(double a, double b) : low(int64_t(a)), range(uint64_t(int64_t(b) - low)) {}
  DG_HD T operator()(uint32_t l, uint32_t h) const { return convert<T>(low + int64_t(uniform_below(l, h, range))); }
};

template <class T>
struct BernoulliNumber {
  double p;
  DG_HD T operator()(uint32_t l, uint32_t h) const { return convert<T>(int32_t(uniform_double(l, h) < p)); }
};

DG_HD double exponential_number(uint32_t l, uint32_t h, double rate) { return -::log1p(-uniform_double(l, h)) / rate; }

template <class T>
struct ExponentialNumber {
  double rate;
  DG_HD T operator()(uint32_t l, uint32_t h) const { return convert<T>(exponential_number(l, h, rate)); }
};

template <class T>
struct TruncatedNormalNumber {
  double mean, deviation, least, most, low, high;
  TruncatedNormalNumber(double a, double b, double c, double d)
      : mean(a), deviation(b), least(c), most(d), low(::erf((c - a) / b * M_SQRT1_2)), high(::erf((d - a) / b * M_SQRT1_2)) {}
  DG_HD T operator()(uint32_t l, uint32_t h) const {
    const double end = 1 - 0x1p-52, u = low + (high - low) * (uniform_double(l, h) + 0x1p-54), at = u < -end ? -end : (u > end ? end : u);
    const double v = mean + deviation * M_SQRT2 * erfinv_(at);
    return convert<T>(v < least ? least : (v > most ? most : v));
  }
};

// The partner that step i of Fisher and Yates's shuffle of n elements swaps element i with.
DG_HD int64_t shuffle_partner(int64_t i, int64_t n, uint32_t low, uint32_t high) { return i + int64_t(uniform_below(low, high, uint64_t(n - i))); }

// What dropout multiplies what it keeps by, and the least word for which it keeps an element; p = 1 drops by its scale of 0.
template <class C>
struct DropoutRule {
  C scale;
  uint32_t threshold;
  explicit DropoutRule(double p) : scale(p < 1 ? C(1.0 / (1.0 - p)) : C(0)), threshold(p < 1 ? uint32_t(p * 0x1p32) : 0) {}
  DG_HD C operator()(C x, uint32_t word) const { return word >= threshold && scale != C(0) ? x * scale : C(0); }
};

// The numbers of dg_random; what they are depends on the op.
struct RandomArguments {
  double a, b, c, d;
};

// `draws` of the categories of each of `rows` rows of weights.
struct Draws {
  int64_t rows, draws, categories;
  bool replacement;
  uint64_t counters;  // of the stream, a row
};

// Provided by each library (random.cpp, random.cu); checked by entry/random.cpp, but for the values of weights. All tensors but those of dropout
// are contiguous.
void random(const Tensor& out, RandomOp op, const RandomStream& stream, const RandomArguments& arguments);
void dropout(const Tensor& y, const Tensor& x, double p, const RandomStream& stream);
void multinomial(int64_t* out, const double* weights, const Draws& size, const RandomStream& stream);

}  // namespace dg
