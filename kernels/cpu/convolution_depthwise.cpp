// Depthwise convolution, one filter a channel: y[c] = sum over taps of x[c] * w[tap][c]. Everything is read where it lies: vectors run over the channels,
// a tile is a few neighbouring results of a row, whose source pixels are loaded once for all of its taps. The last vector of the channels overlaps the
// one before it, the last tile of a row likewise; both write the same numbers again. The gradient of the input is the same with source and result
// exchanged; with strides, every stride-th result meets the same taps (a phase).
#include <vector>

#include "convolution.h"

namespace dg::conv {
namespace {

constexpr int64_t kMostRows = 256;           // taps of the leading axes
constexpr int64_t kWork = int64_t(1) << 18;  // products of a chunk of rows
constexpr int64_t kCached = 256 << 10;       // bytes of the input that stay in the second-level cache with the result
constexpr int kTile = 8;                     // results of a tile

// A row of the source that a result row meets, and the weights of its taps.
template <class T> struct Met {
  const T *row, *weight;
};

// What the tiles of a phase have in common. Tap i of a result at column x is at source column x * step + offset + i * apart.
template <class T> struct Line {
  int64_t channels = 0, pixel = 0, width = 0;  // of the source: elements between its pixels, and its columns
  int64_t taps = 0, offset = 0, apart = 1, step = 1;
  int64_t weight = 0, weight_step = 0;         // elements before the first tap's weights, and from tap to tap
  int64_t result_step = 0;                     // elements from result to result
  int64_t source_ahead = 0, result_ahead = 0;  // elements from a row to the one below, 0: nothing is fetched ahead
  const T* bias = nullptr;

  bool inside(int64_t x, int64_t results) const {
    return x * step + offset >= 0 && (x + results - 1) * step + offset + (taps - 1) * apart < width;
  }
  // A bit for each of `Count` columns of the source.
  template <int Count> uint64_t columns_inside(int64_t first) const {
    uint64_t bits = 0;
    for (int i = 0; i < Count; i++) bits |= uint64_t(first + i >= 0 && first + i < width) << i;
    return bits;
  }
};

// Kept in a register: as an operand in memory it would be loaded for each product.
template <class V> [[gnu::always_inline]] inline V loaded(V v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__SSE__)
  asm("" : "+x"(v));
#endif
  return v;
}

// Calls f for c = 0, L, 2 L, ... and for the last whole vector of the channels.
template <class T, class F> [[gnu::always_inline]] inline void each_vector(int64_t channels, const F& f) {
  constexpr int64_t L = Lanes<T>::count;
  for (int64_t c = 0;; c = std::min(c + L, channels - L)) {
    f(c);
    if (c + L >= channels) return;
  }
}

// Fetches what the tile below this one reads and writes of the channels from c on: rows are too far apart for the hardware to follow.
template <int R, int S, class T>
[[gnu::always_inline]] inline void fetch_below(const Line<T>& l, const Met<T>* met, int64_t rows, int64_t first, const T* result, int64_t c) {
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) __builtin_prefetch(result + l.result_ahead + r * l.result_step, 0, 2);
  if (rows == 0) return;
  const T* row = met[rows - 1].row + first * l.pixel + c;
  for (int i = 0; i < S; i++) {
    row += l.source_ahead;
#pragma GCC unroll 16
    for (int j = 0; j < R * S; j++) __builtin_prefetch(row + j * l.pixel, 0, 2);
  }
}

// R results from column x on, for all channels. K taps side by side, or any where K is 0; Edge: some are outside of the picture.
template <class T, int K, int S, int R, bool Edge> void results(const Line<T>& l, const Met<T>* met, int64_t rows, int64_t x, T* y) {
  using V = lanes_t<T>;
  const int64_t first = x * l.step + l.offset;
  const uint64_t inside = Edge ? l.template columns_inside<(R - 1) * S + K>(first) : 0;
  each_vector<T>(l.channels, [&](int64_t c) __attribute__((always_inline)) {
    if (l.source_ahead != 0) fetch_below<R, S>(l, met, rows, first, y + c, c);
    V sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) sum[r] = l.bias ? load(l.bias + c) : V{};
    for (int64_t i = 0; i < rows; i++) {
      const T *const row = met[i].row + c, *const weight = met[i].weight + l.weight + c;
      if constexpr (K > 0) {
        V w[K];
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) w[k] = load(weight + k * l.weight_step);
        const T* from = row + first * l.pixel;
#pragma GCC unroll 32
        for (int j = 0; j < (R - 1) * S + K; j++, from += l.pixel) {
          if (Edge && !(inside >> j & 1)) continue;
          const V v = loaded(load(from));
#pragma GCC unroll 8
          for (int k = 0; k < K; k++)
            if (j >= k && (j - k) % S == 0 && (j - k) / S < R) sum[(j - k) / S] += w[k] * v;
        }
      } else {
        for (int64_t t = 0; t < l.taps; t++) {
          const V w = load(weight + t * l.weight_step);
          int64_t at = first + t * l.apart;
#pragma GCC unroll 8
          for (int r = 0; r < R; r++, at += l.step)
            if (!Edge || (at >= 0 && at < l.width)) sum[r] += w * load(row + at * l.pixel);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) store(y + r * l.result_step + c, sum[r]);
  });
}

// sums[tap][vector of channels][L] += products of R gradients of a result row, from column x on, with the source pixels that their taps met.
template <class T, int K, int S, int R, bool Edge>
void products(const Line<T>& l, const Met<T>* met, T* const* sums, int64_t rows, int64_t x, const T* dy) {
  using V = lanes_t<T>;
  constexpr int64_t L = Lanes<T>::count;
  const int64_t first = x * l.step + l.offset;
  const uint64_t inside = Edge ? l.template columns_inside<(R - 1) * S + K>(first) : 0;
  int64_t lane = 0;
  each_vector<T>(l.channels, [&](int64_t c) __attribute__((always_inline)) {
    if (l.source_ahead != 0) fetch_below<R, S>(l, met, rows, first, dy + c, c);
    V g[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) g[r] = load(dy + r * l.result_step + c);
    for (int64_t i = 0; i < rows; i++) {
      const T* const row = met[i].row + c;
      T* const sum = sums[i] + lane;
      if constexpr (K > 0) {
        V total[K];
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) total[k] = load(sum + k * l.weight_step);
        const T* from = row + first * l.pixel;
#pragma GCC unroll 32
        for (int j = 0; j < (R - 1) * S + K; j++, from += l.pixel) {
          if (Edge && !(inside >> j & 1)) continue;
          const V v = loaded(load(from));
#pragma GCC unroll 8
          for (int k = 0; k < K; k++)
            if (j >= k && (j - k) % S == 0 && (j - k) / S < R) total[k] += g[(j - k) / S] * v;
        }
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) store(sum + k * l.weight_step, total[k]);
      } else {
        for (int64_t t = 0; t < l.taps; t++) {
          V total = load(sum + t * l.weight_step);
          int64_t at = first + t * l.apart;
#pragma GCC unroll 8
          for (int r = 0; r < R; r++, at += l.step)
            if (!Edge || (at >= 0 && at < l.width)) total += g[r] * load(row + at * l.pixel);
          store(sum + t * l.weight_step, total);
        }
      }
    }
    lane += L;
  });
}

// f<K, S> for the taps of a line: compile-time numbers where they are side by side and few.
template <class T, class F> auto with_taps(const Line<T>& l, F&& f) {
  const auto taps = [&](auto k, auto s) { return f(k, s); };
  using std::integral_constant;
  if (l.apart == 1 && l.step == 1) {
    if (l.taps == 1) return taps(integral_constant<int, 1>{}, integral_constant<int, 1>{});
    if (l.taps == 2) return taps(integral_constant<int, 2>{}, integral_constant<int, 1>{});
    if (l.taps == 3) return taps(integral_constant<int, 3>{}, integral_constant<int, 1>{});
    if (l.taps == 5) return taps(integral_constant<int, 5>{}, integral_constant<int, 1>{});
    if (l.taps == 7) return taps(integral_constant<int, 7>{}, integral_constant<int, 1>{});
  }
  if (l.apart == 1 && l.step == 2 && l.taps == 3) return taps(integral_constant<int, 3>{}, integral_constant<int, 2>{});
  return taps(integral_constant<int, 0>{}, integral_constant<int, 1>{});
}

// The result rows of one direction, and what the columns of a phase share.
template <class T> struct Direction {
  const ConvShape& s;
  const bool backward;
  const int64_t *source, *result;  // sizes
  const int64_t pixel, phases;     // elements of a source pixel
  const int64_t rows = s.batch * result[0] * result[1], slots = s.kernel[0] * s.kernel[1];

  Direction(const ConvShape& s, bool backward)
      : s(s), backward(backward), source(backward ? s.output : s.input), result(backward ? s.input : s.output),
        pixel(backward ? s.channels : s.pixel), phases(backward ? std::clamp<int64_t>(s.input[2], 1, s.stride[2]) : 1) {}

  // `between`: elements from the weights of a tap to those of the next.
  Line<T> line(int64_t phase, int64_t between) const {
    Line<T> l;
    l.channels = s.channels, l.pixel = pixel, l.width = source[2], l.result_step = phases * s.channels;
    if (s.batch * s.input[0] * s.input[1] * s.input[2] * s.channels * int64_t(sizeof(T)) >= kCached)
      l.source_ahead = source[2] * pixel, l.result_ahead = result[2] * s.channels;
    if (!backward) {
      l.taps = s.kernel[2], l.offset = -s.padding[2], l.apart = s.dilation[2], l.step = s.stride[2], l.weight_step = between;
      return l;
    }
    int64_t first = -1, next = -1;  // the last taps that the phase meets: they reach furthest to the left
    for (int64_t k = s.kernel[2] - 1; k >= 0; k--) {
      const int64_t reach = phase + s.padding[2] - k * s.dilation[2];
      if (reach % s.stride[2] != 0) continue;
      if (first < 0) first = k, l.offset = reach / s.stride[2];
      else if (next < 0) next = k, l.apart = reach / s.stride[2] - l.offset;
      l.taps++;
    }
    l.weight = std::max<int64_t>(first, 0) * between, l.weight_step = next < 0 ? 0 : (next - first) * between;
    return l;
  }

  // The rows of the source that a result row meets, with the weights of their taps, `slot` elements for each tap of the leading axes.
  template <class Add> int64_t meet(const T* x, int64_t row, Met<T>* met, Add&& add) const {
    const int64_t y = row % result[1], z = row / result[1] % result[0], n = row / result[1] / result[0];
    int64_t count = 0;
    for (int64_t i = 0; i < s.kernel[0]; i++) {  // upwards in memory: what the last row lies above is fetched ahead
      const int64_t kz = backward ? s.kernel[0] - 1 - i : i;
      const int64_t sz = tap_source(s, backward, 0, z, kz);
      if (sz < 0) continue;
      for (int64_t j = 0; j < s.kernel[1]; j++) {
        const int64_t ky = backward ? s.kernel[1] - 1 - j : j;
        const int64_t sy = tap_source(s, backward, 1, y, ky);
        if (sy < 0) continue;
        met[count].row = x + ((n * source[0] + sz) * source[1] + sy) * source[2] * pixel;
        add(count++, kz * s.kernel[1] + ky);
      }
    }
    return count;
  }
};

template <class T> using Results = void (*)(const Line<T>&, const Met<T>*, int64_t, int64_t, T*);
template <class T> using Products = void (*)(const Line<T>&, const Met<T>*, T* const*, int64_t, int64_t, const T*);

template <class T> void run(const Direction<T>& d, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  const ConvShape& s = d.s;
  const int64_t C = s.channels, kernel = s.kernel[2], across = d.result[2];
  Scratch packed(scratch_bytes<T>({s.taps(), C}));
  T* const weights = packed.as<T>();
  for (int64_t k = 0; k < s.taps(); k++) {
    const T* const from = w.data + k / kernel / s.kernel[1] * w.tap[0] + k / kernel % s.kernel[1] * w.tap[1] + k % kernel * w.tap[2];
    for (int64_t c = 0; c < C; c++) weights[k * C + c] = from[c * w.filter];
  }
  struct Phase {
    Line<T> line;
    int64_t columns, size;
    Results<T> inside, edge;
  };
  std::vector<Phase> phases;
  for (int64_t phase = 0; phase < d.phases; phase++) {
    Line<T> l = d.line(phase, C);
    l.bias = f.bias;
    const int64_t columns = ceil_div(across - phase, d.phases);
    with_taps(l, [&](auto k, auto step) {
      constexpr int K = k(), S = step();
      if (columns >= kTile) phases.push_back({l, columns, kTile, results<T, K, S, kTile, false>, results<T, K, S, kTile, true>});
      else if (columns >= kTile / 2) phases.push_back({l, columns, kTile / 2, results<T, K, S, kTile / 2, false>, results<T, K, S, kTile / 2, true>});
      else phases.push_back({l, columns, 1, results<T, K, S, 1, false>, results<T, K, S, 1, true>});
    });
  }
  parallel_for(d.rows, std::max<int64_t>(1, kWork / std::max<int64_t>(1, across * C * ceil_div(s.taps(), d.phases))), [&](int64_t begin, int64_t end) {
    Met<T> met[kMostRows];
    for (int64_t row = begin; row < end; row++) {
      const int64_t count = d.meet(x, row, met, [&](int64_t i, int64_t slot) { met[i].weight = weights + slot * kernel * C; });
      T* const out = y + row * across * C;
      for (int64_t at = 0; at < phases[0].columns; at += phases.back().size) {
        for (int64_t phase = 0; phase < d.phases; phase++) {
          const Phase& p = phases[size_t(phase)];
          const int64_t tile = std::min(at, p.columns - p.size);
          (p.line.inside(tile, p.size) ? p.inside : p.edge)(p.line, met, count, tile, out + phase * C + tile * p.line.result_step);
        }
      }
      if (f.scale) finish_rows(f, across, C, out, C, 0);
    }
  });
}

// Neighbouring results of a tile, and its kernels.
template <class T> struct Tile {
  int64_t size;
  Products<T> inside, edge;
};

}  // namespace

// A vector of channels at least.
template <class T> bool depthwise_fits(const ConvShape& s) {
  return s.groups > 1 && s.groups == s.channels && s.groups == s.filters && s.channels >= Lanes<T>::count &&
         s.kernel[0] * s.kernel[1] <= kMostRows && s.taps() <= 4096;
}

template <class T> void depthwise_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  run<T>(Direction<T>(s, false), y, x, w, f);
}

template <class T> void depthwise_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias) {
  Finish<T> f;
  f.bias = bias;
  run<T>(Direction<T>(s, true), dx, dy, w, f);
}

template <class T> void depthwise_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  constexpr int64_t L = Lanes<T>::count;
  const Direction<T> d(s, false);
  const int64_t C = s.channels, vectors = ceil_div(C, L), wide = vectors * L, kernel = s.kernel[2], across = s.output[2], size = s.taps() * wide;
  // Slices by the shape alone; their sums are added in order.
  const int64_t slices = std::clamp<int64_t>(d.rows * across / 256, 1, std::min<int64_t>(64, std::max<int64_t>(d.rows, 1)));
  const int64_t slice = ceil_div(std::max<int64_t>(d.rows, 1), slices);
  Scratch memory(scratch_bytes<T>({slices, size}));
  T* const sums = memory.as<T>();
  const Line<T> line = d.line(0, wide);
  std::vector<Tile<T>> tiles;
  with_taps(line, [&](auto k, auto step) {
    constexpr int K = k(), S = step();
    tiles.push_back({kTile, products<T, K, S, kTile, false>, products<T, K, S, kTile, true>});
    tiles.push_back({kTile / 2, products<T, K, S, kTile / 2, false>, products<T, K, S, kTile / 2, true>});
    tiles.push_back({1, products<T, K, S, 1, false>, products<T, K, S, 1, true>});
  });
  parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
    Met<T> met[kMostRows];
    T* to[kMostRows];
    for (int64_t job = begin; job < end; job++) {
      T* const sum = sums + job * size;
      std::fill_n(sum, size, T(0));
      for (int64_t row = job * slice; row < std::min(d.rows, (job + 1) * slice); row++) {
        const int64_t count = d.meet(x, row, met, [&](int64_t i, int64_t slot) { to[i] = sum + slot * kernel * wide; });
        const T* const from = dy + row * across * C;
        int64_t at = 0;
        for (const Tile<T>& tile : tiles)
          for (; at + tile.size <= across; at += tile.size)
            (line.inside(at, tile.size) ? tile.inside : tile.edge)(line, met, to, count, at, from + at * C);
      }
    }
  });
  for (int64_t job = 1; job < slices; job++)
    for (int64_t i = 0; i < size; i += L) store(sums + i, load(sums + i) + load(sums + job * size + i));
  for (int64_t k = 0; k < s.taps(); k++) {
    T* const out = dw.data + k / kernel / s.kernel[1] * dw.tap[0] + k / kernel % s.kernel[1] * dw.tap[1] + k % kernel * dw.tap[2];
    const int64_t whole = (vectors - 1) * L;  // the last vector ends with the last channel
    for (int64_t c = 0; c < C; c++) out[c * dw.filter] = sums[k * wide + (c < whole ? c : c - C + wide)];
  }
}

template bool depthwise_fits<float>(const ConvShape&);
template bool depthwise_fits<double>(const ConvShape&);
template void depthwise_forward<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const Finish<float>&);
template void depthwise_forward<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const Finish<double>&);
template void depthwise_backward_input<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const float*);
template void depthwise_backward_input<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const double*);
template void depthwise_backward_weight<float>(const ConvShape&, const Weight<float>&, const float*, const float*);
template void depthwise_backward_weight<double>(const ConvShape&, const Weight<double>&, const double*, const double*);

}  // namespace dg::conv
