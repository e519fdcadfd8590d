// Random numbers of Philox4x32-10 (common/philox.h). Word j of counter `offset + i` makes element 4 i + j; kinds that take 64 bits an
// element (float64, whole numbers) use two words each. Outputs are row-major; results do not depend on the number of threads.
#include "../common/philox.h"

#include <numeric>
#include <vector>

#include "../common/op_codes.h"
#include "allocator.h"
#include "elementwise.h"

namespace dg {
namespace {

constexpr int64_t kLanes = 64;  // counters made at a time

struct Stream {
  PhiloxKey key;
  uint64_t offset;
  uint32_t high[2];  // upper half of the counter: 0 but for known-answer tests

  // The words of `kLanes` counters from offset + first, by place: word[j][lane].
  void words(uint64_t first, uint32_t (&word)[4][kLanes]) const {
    const uint64_t start = offset + first;
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; lane++) {
      const uint64_t counter = start + uint64_t(lane);
      uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = high[0], c3 = high[1];
      philox(c0, c1, c2, c3, key);
      word[0][lane] = c0;
      word[1][lane] = c1;
      word[2][lane] = c2;
      word[3][lane] = c3;
    }
  }
};

// Calls f(words of the counters from first on, index of their first element, elements); `per` elements a counter.
template <class F>
void for_counters(const Stream& stream, int64_t numel, int64_t per, F&& f) {
  const int64_t step = kLanes * per;
  parallel_for(numel, kGrain / step * step, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += step) {
      uint32_t word[4][kLanes];
      stream.words(uint64_t(at / per), word);
      f(word, at, std::min(step, end - at));
    }
  });
}

template <class T>
void store(T* out, const T* values, int64_t count) {
  std::copy(values, values + count, out);
}

// out[i] = a + (b - a) u, u in [0, 1); in [a, b) but for rounding, which is clipped below b.
template <class T>
void uniform(T* out, int64_t numel, const Stream& stream, double a, double b) {
  if constexpr (std::is_same_v<T, double>) {
    for_counters(stream, numel, 2, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; i++) {
        const int64_t lane = i / 2, j = i % 2 * 2;
        const double v = a + (b - a) * uniform_double(w[j][lane], w[j + 1][lane]);
        out[at + i] = v < b ? v : a;
      }
    });
  } else {
    // Halves take as many bits as they hold, so that rounding cannot reach 1.
    const int drop = std::is_same_v<T, float> ? 8 : (std::is_same_v<T, f16> ? 21 : 24);
    const float unit = std::is_same_v<T, float> ? 0x1p-24f : (std::is_same_v<T, f16> ? 0x1p-11f : 0x1p-8f);
    const float low = float(a), span = float(b - a), limit = float(b);
    for_counters(stream, numel, 4, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      T values[4 * kLanes];
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; lane++)
        for (int j = 0; j < 4; j++) {
          const float v = fmaf(float(w[j][lane] >> drop) * unit, span, low);
          values[4 * lane + j] = T(v < limit ? v : low);
        }
      if constexpr (!std::is_same_v<T, float>)
        for (int64_t i = 0; i < count; i++)
          if (!(float(values[i]) < limit)) values[i] = T(low);
      store(out + at, values, count);
    });
  }
}

// out[i] = a + b z.
template <class T>
void normal(T* out, int64_t numel, const Stream& stream, double a, double b) {
  if constexpr (std::is_same_v<T, double>) {
    for_counters(stream, numel, 2, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; i += 2) {
        const int64_t lane = i / 2;
        double z0, z1;
        normal_pair(w[0][lane], w[1][lane], w[2][lane], w[3][lane], z0, z1);
        out[at + i] = a + b * z0;
        if (i + 1 < count) out[at + i + 1] = a + b * z1;
      }
    });
  } else {
    const float mean = float(a), deviation = float(b);
    for_counters(stream, numel, 4, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      float z[4][kLanes];
      T values[4 * kLanes];
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; lane++) {
        normal_pair(w[0][lane], w[1][lane], z[0][lane], z[1][lane]);
        normal_pair(w[2][lane], w[3][lane], z[2][lane], z[3][lane]);
      }
      for (int64_t lane = 0; lane < kLanes; lane++)
        for (int j = 0; j < 4; j++) values[4 * lane + j] = T(fmaf(z[j][lane], deviation, mean));
      store(out + at, values, count);
    });
  }
}

// out[i] = f(low word, high word): one call an element of 64 bits.
template <class T, class F>
void from_words(T* out, int64_t numel, const Stream& stream, F f) {
  for_counters(stream, numel, 2, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
    for (int64_t i = 0; i < count; i++) out[at + i] = f(w[i % 2 * 2][i / 2], w[i % 2 * 2 + 1][i / 2]);
  });
}

void fill(const Tensor& out, RandomOp op, const Stream& stream, double a, double b, double c, double d) {
  const char* const name = "random";
  switch (op) {
    case RandomOp::uniform:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        uniform<T>(out.data<T>(), out.numel, stream, a, b);
      });
    case RandomOp::normal:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        normal<T>(out.data<T>(), out.numel, stream, a, b);
      });
    case RandomOp::integers: {
      if (!(std::abs(a) <= 0x1p53 && std::abs(b) <= 0x1p53 && a < b)) fail(DG_RANGE, "%s: no whole numbers from %g to %g", name, a, b);
      const int64_t low = int64_t(a);
      const uint64_t range = uint64_t(int64_t(b) - low);
      return dispatch_all(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream,
                      [=](uint32_t l, uint32_t h) { return convert<T>(low + int64_t(uniform_below(l, h, range))); });
      });
    }
    case RandomOp::bernoulli: {
      if (!(a >= 0 && a <= 1)) fail(DG_RANGE, "%s: a probability must be in [0, 1], got %g", name, a);
      return dispatch_all(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, [=](uint32_t l, uint32_t h) { return convert<T>(int32_t(uniform_double(l, h) < a)); });
      });
    }
    case RandomOp::exponential: {
      if (!(a > 0)) fail(DG_RANGE, "%s: the rate must be > 0, got %g", name, a);
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, [=](uint32_t l, uint32_t h) { return convert<T>(-::log1p(-uniform_double(l, h)) / a); });
      });
    }
    case RandomOp::truncated_normal: {
      if (!(b > 0 && c < d)) fail(DG_RANGE, "%s: no normal numbers of deviation %g between %g and %g", name, b, c, d);
      const double low = ::erf((c - a) / b * M_SQRT1_2), high = ::erf((d - a) / b * M_SQRT1_2);
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, [=](uint32_t l, uint32_t h) {
          const double at = std::clamp(low + (high - low) * (uniform_double(l, h) + 0x1p-54), -1 + 0x1p-52, 1 - 0x1p-52);
          return convert<T>(std::clamp(a + b * M_SQRT2 * erfinv_(at), c, d));
        });
      });
    }
    case RandomOp::bits: {
      if (out.dtype != DG_I64) fail(DG_DTYPE, "%s: bits are written as int64, got %s", name, dtype_name(out.dtype));
      int64_t* data = out.data<int64_t>();
      return for_counters(stream, out.numel, 4, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
        for (int64_t i = 0; i < count; i++) data[at + i] = w[i % 4][i / 4];
      });
    }
    case RandomOp::permutation: {
      if (out.dtype != DG_I64) fail(DG_DTYPE, "%s: a permutation is written as int64, got %s", name, dtype_name(out.dtype));
      int64_t* data = out.data<int64_t>();
      std::iota(data, data + out.numel, int64_t(0));
      uint32_t word[4][kLanes];
      for (int64_t i = 0; i + 1 < out.numel; i++) {  // Fisher and Yates
        if (i % (2 * kLanes) == 0) stream.words(uint64_t(i / 2), word);
        const int64_t lane = i % (2 * kLanes) / 2, j = i % 2 * 2;
        std::swap(data[i], data[i + int64_t(uniform_below(word[j][lane], word[j + 1][lane], uint64_t(out.numel - i)))]);
      }
      return;
    }
    case RandomOp::count: break;
  }
  fail(DG_RANGE, "%s: op code %u does not exist", name, unsigned(op));
}

// Draws `draws` categories of a row of weights; false when it does not have as many of weight > 0.
bool draw(int64_t* out, int64_t draws, const double* weights, int64_t categories, bool replacement, const Stream& stream, uint64_t first) {
  uint32_t word[4][kLanes];
  if (replacement) {
    std::vector<double> cumulative(static_cast<size_t>(categories));
    double total = 0;
    int64_t last = -1;
    for (int64_t i = 0; i < categories; i++) {
      cumulative[size_t(i)] = total += weights[i];
      if (weights[i] > 0) last = i;
    }
    if (last < 0) return false;
    for (int64_t i = 0; i < draws; i++) {
      if (i % (2 * kLanes) == 0) stream.words(first + uint64_t(i / 2), word);
      const int64_t lane = i % (2 * kLanes) / 2, j = i % 2 * 2;
      const double at = uniform_double(word[j][lane], word[j + 1][lane]) * total;
      const int64_t found = std::upper_bound(cumulative.begin(), cumulative.end(), at) - cumulative.begin();
      out[i] = std::min(found, last);
    }
    return true;
  }
  // The smallest of exponential numbers of rate w_i, one after another, are draws in proportion to w (Efraimidis and Spirakis 2006).
  std::vector<std::pair<double, int64_t>> keys;
  for (int64_t i = 0; i < categories; i++) {
    if (i % (2 * kLanes) == 0) stream.words(first + uint64_t(i / 2), word);
    const int64_t lane = i % (2 * kLanes) / 2, j = i % 2 * 2;
    if (weights[i] > 0) keys.emplace_back(-::log1p(-uniform_double(word[j][lane], word[j + 1][lane])) / weights[i], i);
  }
  if (int64_t(keys.size()) < draws) return false;
  std::partial_sort(keys.begin(), keys.begin() + draws, keys.end());
  for (int64_t i = 0; i < draws; i++) out[i] = keys[size_t(i)].second;
  return true;
}

}  // namespace
}  // namespace dg

using namespace dg;

static Stream stream_of(uint32_t seed_low, uint32_t seed_high, uint32_t offset_low, uint32_t offset_high) {
  return Stream{{seed_low, seed_high}, uint64_t(offset_high) << 32 | offset_low, {0, 0}};
}

int32_t dg_random(const dg_tensor* t, uint32_t out_slot, uint32_t op, uint32_t seed_low, uint32_t seed_high, uint32_t offset_low,
                  uint32_t offset_high, double a, double b, double c, double d) {
  return guard([&] {
    const Tensor out = tensor_at(t, out_slot, "random", Access::write);
    if (!out.contiguous()) fail(DG_SHAPE, "random: the output must be contiguous");
    Stream stream = stream_of(seed_low, seed_high, offset_low, offset_high);
    if (RandomOp(op) == RandomOp::bits) {
      if (!(a >= 0 && a <= 0xffffffffu && b >= 0 && b <= 0xffffffffu)) fail(DG_RANGE, "random: the upper counter words must be 32-bit");
      stream.high[0] = uint32_t(a);
      stream.high[1] = uint32_t(b);
    }
    fill(out, RandomOp(op), stream, a, b, c, d);
  });
}

int32_t dg_dropout(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, double p, uint32_t seed_low, uint32_t seed_high, uint32_t offset_low,
                   uint32_t offset_high) {
  return guard([&] {
    const char* const name = "dropout";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(y, x, name);
    require_dtype(y, x.dtype, name, "the output");
    if (!(p >= 0 && p <= 1)) fail(DG_RANGE, "%s: p must be in [0, 1], got %g", name, p);
    const Stream stream = stream_of(seed_low, seed_high, offset_low, offset_high);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      using C = compute_t<T>;
      const Loop<2> loop({&y, &x});
      const C scale = p < 1 ? C(1.0 / (1.0 - p)) : C(0);
      const uint32_t threshold = p < 1 ? uint32_t(p * 0x1p32) : 0;  // p = 1 drops by its scale of 0
      const int64_t sy = loop.strides[0][loop.rank - 1], sx = loop.strides[1][loop.rank - 1];
      const bool unit = loop.all_unit();
      T* const to = y.data<T>();
      const T* const from = x.data<T>();
      for_counters(stream, loop.numel, 4, [=, &loop](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
        uint32_t word[4 * kLanes];
#pragma omp simd
        for (int64_t lane = 0; lane < kLanes; lane++)
          for (int j = 0; j < 4; j++) word[4 * lane + j] = w[j][lane];
        const uint32_t* u = word;
        loop.rows(at, at + count, [=, &u](const int64_t* offset, int64_t length) {
          T* const out = to + offset[0];
          const T* const in = from + offset[1];
          const uint32_t* const keep = u;
          u += length;
          if (unit && scale != C(0)) {
#pragma omp simd
            for (int64_t i = 0; i < length; i++) {
              const C v = C(in[i]) * scale;
              out[i] = T(keep[i] >= threshold ? v : C(0));
            }
          } else {
            for (int64_t i = 0; i < length; i++) out[i * sy] = T(keep[i] >= threshold && scale != C(0) ? C(in[i * sx]) * scale : C(0));
          }
        });
      });
    });
  });
}

int32_t dg_multinomial(const dg_tensor* t, uint32_t out_slot, uint32_t weights_slot, uint32_t replacement, uint32_t seed_low, uint32_t seed_high,
                       uint32_t offset_low, uint32_t offset_high) {
  return guard([&] {
    const char* const name = "multinomial";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), weights = tensor_at(t, weights_slot, name);
    require_dtype(out, DG_I64, name, "the output");
    require_dtype(weights, DG_F64, name, "the weights");
    if (out.rank != 2 || weights.rank != 2 || out.sizes[0] != weights.sizes[0] || !out.contiguous() || !weights.contiguous())
      fail(DG_SHAPE, "%s: output %s and weights %s must be contiguous matrices of as many rows", name, shape_text(out).c_str(),
           shape_text(weights).c_str());
    const int64_t rows = out.sizes[0], draws = out.sizes[1], categories = weights.sizes[1];
    if (draws == 0) return;
    if (!replacement && draws > categories)
      fail(DG_RANGE, "%s: cannot draw %lld of %lld categories without replacement", name, (long long)draws, (long long)categories);
    const double* w = weights.data<double>();
    for (int64_t i = 0; i < rows * categories; i++)
      if (!(w[i] >= 0 && w[i] < HUGE_VAL)) fail(DG_RANGE, "%s: weights must be finite and >= 0, got %g", name, w[i]);
    const Stream stream = stream_of(seed_low, seed_high, offset_low, offset_high);
    const uint64_t stride = uint64_t(((replacement ? draws : categories) + 1) / 2);
    for (int64_t row = 0; row < rows; row++)
      if (!draw(out.data<int64_t>() + row * draws, draws, w + row * categories, categories, replacement, stream, uint64_t(row) * stride))
        fail(DG_RANGE, "%s: row %lld does not have %lld categories of weight > 0", name, (long long)row, (long long)(replacement ? 1 : draws));
  });
}
