// Random numbers of Philox4x32-10 (common/philox.h). Word j of counter `offset + i` makes element 4 i + j; kinds that take 64 bits an
// element (float64, whole numbers) use two words each. Outputs are row-major; results do not depend on the number of threads.
#include "../common/random.h"

#include <numeric>
#include <vector>

#include "allocator.h"
#include "elementwise.h"

namespace dg {
namespace {

constexpr int64_t kLanes = 64;  // counters made at a time

struct Stream : RandomStream {
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

template <class T>
void uniform(T* out, int64_t numel, const Stream& stream, double a, double b) {
  const UniformNumber<T> number(a, b);
  if constexpr (std::is_same_v<T, double>) {
    for_counters(stream, numel, 2, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      double values[2 * kLanes];
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; lane++)
        for (int j = 0; j < 2; j++) values[2 * lane + j] = number(w[2 * j][lane], w[2 * j + 1][lane]);
      store(out + at, values, count);
    });
  } else {
    for_counters(stream, numel, 4, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      T values[4 * kLanes];
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; lane++)
        for (int j = 0; j < 4; j++) values[4 * lane + j] = number(w[j][lane]);
      store(out + at, values, count);
    });
  }
}

template <class T>
void normal(T* out, int64_t numel, const Stream& stream, double a, double b) {
  const NormalNumber<T> number(a, b);
  if constexpr (std::is_same_v<T, double>) {
    for_counters(stream, numel, 2, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      for (int64_t i = 0; i < count; i += 2) {
        const int64_t lane = i / 2;
        double z0, z1;
        normal_pair(w[0][lane], w[1][lane], w[2][lane], w[3][lane], z0, z1);
        out[at + i] = number(z0);
        if (i + 1 < count) out[at + i + 1] = number(z1);
      }
    });
  } else {
    for_counters(stream, numel, 4, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
      float z[4][kLanes];
      T values[4 * kLanes];
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; lane++) {
        normal_pair(w[0][lane], w[1][lane], z[0][lane], z[1][lane]);
        normal_pair(w[2][lane], w[3][lane], z[2][lane], z[3][lane]);
      }
#pragma omp simd
      for (int64_t lane = 0; lane < kLanes; lane++)
        for (int j = 0; j < 4; j++) values[4 * lane + j] = number(z[j][lane]);
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

// Draws from one row of weights, with the counters of the stream from `first` on; false when it does not have as many of weight > 0.
bool draw(int64_t* out, const Draws& size, const double* weights, const Stream& stream, uint64_t first) {
  const int64_t draws = size.draws, categories = size.categories;
  uint32_t word[4][kLanes];
  if (size.replacement) {
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
    if (weights[i] > 0) keys.emplace_back(exponential_number(word[j][lane], word[j + 1][lane], weights[i]), i);
  }
  if (int64_t(keys.size()) < draws) return false;
  std::partial_sort(keys.begin(), keys.begin() + draws, keys.end());
  for (int64_t i = 0; i < draws; i++) out[i] = keys[size_t(i)].second;
  return true;
}

}  // namespace

void random(const Tensor& out, RandomOp op, const RandomStream& words, const RandomArguments& arguments) {
  const char* const name = "random";
  const Stream stream{words};
  const double a = arguments.a, b = arguments.b, c = arguments.c, d = arguments.d;
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
    case RandomOp::integers:
      return dispatch_all(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, WholeNumber<T>(a, b));
      });
    case RandomOp::bernoulli:
      return dispatch_all(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, BernoulliNumber<T>{a});
      });
    case RandomOp::exponential:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, ExponentialNumber<T>{a});
      });
    case RandomOp::truncated_normal:
      return dispatch_floats(out.dtype, name, [&](auto kind) {
        using T = typename decltype(kind)::type;
        from_words<T>(out.data<T>(), out.numel, stream, TruncatedNormalNumber<T>(a, b, c, d));
      });
    case RandomOp::bits: {
      int64_t* data = out.data<int64_t>();
      return for_counters(stream, out.numel, 4, [=](const uint32_t (&w)[4][kLanes], int64_t at, int64_t count) {
        for (int64_t i = 0; i < count; i++) data[at + i] = w[i % 4][i / 4];
      });
    }
    case RandomOp::permutation: {
      int64_t* data = out.data<int64_t>();
      std::iota(data, data + out.numel, int64_t(0));
      uint32_t word[4][kLanes];
      for (int64_t i = 0; i + 1 < out.numel; i++) {  // Fisher and Yates
        if (i % (2 * kLanes) == 0) stream.words(uint64_t(i / 2), word);
        const int64_t lane = i % (2 * kLanes) / 2, j = i % 2 * 2;
        std::swap(data[i], data[shuffle_partner(i, out.numel, word[j][lane], word[j + 1][lane])]);
      }
      return;
    }
    case RandomOp::count: break;
  }
}

void dropout(const Tensor& y, const Tensor& x, double p, const RandomStream& words) {
  const Stream stream{words};
  dispatch_floats(x.dtype, "dropout", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Loop<2> loop({&y, &x});
    const DropoutRule<C> rule(p);
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
        if (unit) {
#pragma omp simd
          for (int64_t i = 0; i < length; i++) out[i] = T(rule(C(in[i]), keep[i]));
        } else {
          for (int64_t i = 0; i < length; i++) out[i * sy] = T(rule(C(in[i * sx]), keep[i]));
        }
      });
    });
  });
}

void multinomial(int64_t* out, const double* weights, const Draws& size, const RandomStream& words) {
  const char* const name = "multinomial";
  for (int64_t i = 0; i < size.rows * size.categories; i++)
    if (!(weights[i] >= 0 && weights[i] < HUGE_VAL)) fail(DG_RANGE, "%s: weights must be finite and >= 0, got %g", name, weights[i]);
  const Stream stream{words};
  for (int64_t row = 0; row < size.rows; row++)
    if (!draw(out + row * size.draws, size, weights + row * size.categories, stream, uint64_t(row) * size.counters))
      fail(DG_RANGE, "%s: row %lld does not have %lld categories of weight > 0", name, (long long)row,
           (long long)(size.replacement ? 1 : size.draws));
}

}  // namespace dg
