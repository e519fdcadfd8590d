// Convolution as a matrix product: rows are positions, A gathers the taps of a block of positions, B is the packed weight.
// Forward is one such product a group. The gradient of the input is one for each phase of the stride (positions i with the same i mod stride meet
// the same taps), which also is the forward of the transposed convolution.
#include <vector>

#include "convolution.h"
#include "tile.h"

namespace dg::conv {
namespace {

constexpr int64_t kDepth = 256;  // of a pass over B: its panel slice stays in the first-level cache
constexpr int64_t kRows = 8 * kTileRows;

template <class T> struct Product {
  int64_t batch, rows[3];    // positions to compute
  int64_t step[3], limit[3]; // source position = row position * step + tap, valid in [0, limit)
  std::vector<std::array<int64_t, 3>> taps;
  int64_t run = 1;  // taps in a row that read pixels side by side: they are gathered as one
  const T* x;
  int64_t pixel, channels;  // elements of a source pixel; channels taken
  T* y;
  int64_t strides[4], columns;  // of y for sample and position
  const T* weight;              // [panel][tap * channels][kPanel], or [column][tap * channels] where columns are few
  const T* bias;                // padded to panels
  const Finish<T>* finish = nullptr;  // beside the bias, at the first column; y is without gaps then

  int64_t depth() const { return int64_t(taps.size()) * channels; }
  bool few() const { return columns <= kFew<T>; }
  int64_t positions() const { return batch * rows[0] * rows[1] * rows[2]; }
};

struct Position {
  int64_t sample, at[3];
};

template <class T> Position position_of(const Product<T>& p, int64_t row) {
  Position q;
  for (int i = 2; i >= 0; i--) {
    q.at[i] = row % p.rows[i];
    row /= p.rows[i];
  }
  q.sample = row;
  return q;
}

template <class T> void advance(const Product<T>& p, Position& q) {
  for (int i = 2; i >= 0; i--) {
    if (++q.at[i] < p.rows[i]) return;
    q.at[i] = 0;
  }
  q.sample++;
}

// A[rows][depth k0 .. k1) of the positions from `first`.
template <class T> void gather(const Product<T>& p, int64_t first, int64_t count, int64_t k0, int64_t k1, T* a, int64_t lda) {
  Position q = position_of(p, first);
  const int64_t length = p.run * p.channels, run0 = k0 / length, run1 = (k1 - 1) / length;
  for (int64_t r = 0; r < count; r++, advance(p, q)) {
    T* out = a + r * lda - k0;
    for (int64_t t = run0; t <= run1; t++) {
      const auto& tap = p.taps[size_t(t * p.run)];
      const int64_t z = q.at[0] * p.step[0] + tap[0], y = q.at[1] * p.step[1] + tap[1], x = q.at[2] * p.step[2] + tap[2];
      const bool inside = z >= 0 && z < p.limit[0] && y >= 0 && y < p.limit[1];
      const int64_t begin = std::max<int64_t>(k0 - t * length, 0), end = std::min(k1 - t * length, length);
      const Span span = span_inside(inside, x, p.limit[2], p.run, p.channels, begin, end);
      copy_span(out + t * length, p.x + (((q.sample * p.limit[0] + z) * p.limit[1] + y) * p.limit[2] + x) * p.pixel, span);
    }
  }
}

// A square of w as columns of B: `valid` rows of it, `apart`, a vector of each, zeros behind them.
template <class T> void pack_square(T* out, const T* w, int64_t apart, int64_t valid) {
  constexpr int L = Lanes<T>::count;
  lanes_t<T> rows[L];
  for (int i = 0; i < L; i++) rows[i] = i < valid ? load(w + i * apart) : lanes_t<T>{};
  transpose<T>(rows);
  for (int i = 0; i < L; i++) store(out + i * kPanel<T>, rows[i]);
}

// B[panel][tap * channels][kPanel]; a tap is an offset into the weight.
template <class T>
void pack(T* out, const T* w, const std::vector<int64_t>& taps, int64_t channels, int64_t channel_stride, int64_t columns, int64_t column_stride) {
  constexpr int64_t P = kPanel<T>;
  const int64_t panels = ceil_div(columns, P), depth = int64_t(taps.size()) * channels, count = int64_t(taps.size());
  if (depth == 0) return;
  if (columns <= kFew<T>) {
    for (int64_t j = 0; j < columns; j++)
      for (int64_t t = 0; t < count; t++)
        for (int64_t c = 0; c < channels; c++) *out++ = w[j * column_stride + c * channel_stride + taps[size_t(t)]];
    return;
  }
  constexpr int64_t L = Lanes<T>::count, run = 16;  // channels at a time: 16 * taps lines of B stay cached while the rows of w are read in order
  const int64_t runs = ceil_div(channels, run);
  parallel_for(panels * runs, std::max<int64_t>(1, kGrain / (P * run * count)), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t panel = job / runs, c0 = job % runs * run, c1 = std::min(channels, c0 + run);
      T* const base = out + panel * depth * P;
      const T* const from = w + panel * P * column_stride;
      const int64_t valid = std::min(P, columns - panel * P);
      const auto put = [&](int64_t t, int64_t c, int64_t j) {
        base[(t * channels + c) * P + j] = from[j * column_stride + c * channel_stride + taps[size_t(t)]];
      };
      // Innermost is what lies side by side in the weight.
      if (column_stride == 1) {
        for (int64_t t = 0; t < count; t++)
          for (int64_t c = c0; c < c1; c++)
            for (int64_t j = 0; j < valid; j++) put(t, c, j);
      } else if (channel_stride == 1) {
        const int64_t whole = c0 + (c1 - c0) / L * L;
        for (int64_t j = 0; j < valid; j += L)
          for (int64_t t = 0; t < count; t++)
            for (int64_t c = c0; c < whole; c += L)
              pack_square(base + (t * channels + c) * P + j, from + j * column_stride + c + taps[size_t(t)], column_stride, valid - j);
        for (int64_t j = 0; j < valid; j++)
          for (int64_t t = 0; t < count; t++)
            for (int64_t c = whole; c < c1; c++) put(t, c, j);
      } else {
        for (int64_t j = 0; j < valid; j++)
          for (int64_t c = c0; c < c1; c++)
            for (int64_t t = 0; t < count; t++) put(t, c, j);
      }
      for (int64_t t = 0; t < count && valid < P; t++)
        for (int64_t c = c0; c < c1; c++) std::fill(base + (t * channels + c) * P + valid, base + (t * channels + c + 1) * P, T(0));
    }
  });
}

// Rows of A that need no gathering: one tap, each position its own pixel.
template <class T> bool direct(const Product<T>& p) {
  if (p.taps.size() != 1) return false;
  for (int i = 0; i < 3; i++)
    if (p.step[i] != 1 || p.taps[0][i] != 0 || p.rows[i] != p.limit[i]) return false;
  return true;
}

// Positions that meet no tap, of which there are as many as the stride leaves out.
template <class T> void fill(const Product<T>& p) {
  constexpr int64_t L = Lanes<T>::count;
  const int64_t lines = p.batch * p.rows[0] * p.rows[1], whole = p.columns / L * L;
  parallel_for(lines, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, p.rows[2] * p.columns)), [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; line++) {
      const int64_t y = line % p.rows[1], z = line / p.rows[1] % p.rows[0], n = line / p.rows[1] / p.rows[0];
      T* out = p.y + n * p.strides[0] + z * p.strides[1] + y * p.strides[2];
      for (int64_t x = 0; x < p.rows[2]; x++, out += p.strides[3]) {
        for (int64_t c = 0; c < whole; c += L) store(out + c, load(p.bias + c));
        if (whole < p.columns) store_some(out + whole, load(p.bias + whole), p.columns - whole);
      }
    }
  });
}

template <class T> void multiply(const Product<T>& p) {
  constexpr int64_t P = kPanel<T>;
  const int64_t positions = p.positions(), depth = p.depth(), panels = ceil_div(p.columns, P), width = panels * P;
  if (positions == 0 || p.columns == 0) return;
  if (depth == 0 && !p.finish) return fill(p);
  const bool uniform = p.strides[2] == p.rows[2] * p.strides[3] && p.strides[1] == p.rows[1] * p.strides[2] &&
                       p.strides[0] == p.rows[0] * p.strides[1];
  const bool whole = p.columns % Lanes<T>::count == 0;  // no vector reaches past the columns
  const bool in_place = uniform && !p.few(), no_gather = direct(p);
  const int64_t block = std::min(kRows, std::max<int64_t>(kTileRows, round_up(ceil_div(positions, 16), kTileRows)));
  const int64_t blocks = ceil_div(positions, block);
  // Few blocks of rows: split the columns as well.
  const int64_t parts = blocks >= 8 ? 1 : std::min(panels, ceil_div(8, blocks)), part = ceil_div(panels, parts);
  const int64_t row = std::min(kDepth, round_up(depth, 16)) + 16;  // of gathered rows: a power of two apart they would meet in a few sets of the cache
  PerThread<T> rows(block * row), results(in_place ? 0 : block * width);
  parallel_for(blocks * parts, 1, [&](int64_t begin, int64_t end) {
    T *const a = rows.mine(), *const staged = in_place ? nullptr : results.mine();
    for (int64_t job = begin; job < end; job++) {
      const int64_t first = job / parts * block, count = std::min(block, positions - first);
      const int64_t panel0 = job % parts * part, panel1 = std::min(panels, panel0 + part);
      T* const c = in_place ? p.y + first * p.strides[3] : staged;
      const int64_t ldc = in_place ? p.strides[3] : width;
      for (int64_t k0 = 0; k0 < std::max<int64_t>(depth, 1); k0 += kDepth) {
        const int64_t k1 = std::min(depth, k0 + kDepth);
        const T* rows_of_a = a;
        int64_t lda = row;
        if (no_gather) rows_of_a = p.x + first * p.pixel + k0, lda = p.pixel;
        else if (k1 > k0) gather(p, first, count, k0, k1, a, lda);
        if (p.few()) {
          with_few<T>(p.columns, [&](auto columns) {
            few_columns<T, decltype(columns)::value>(count, rows_of_a, lda, p.weight + k0, depth, k1 - k0, c, ldc, k0 == 0 ? p.bias : nullptr);
          });
          continue;
        }
        for (int64_t panel = panel0; panel < panel1; panel++) {
          T* const out = c + panel * P;
          const auto tiles = in_place && !whole && panel == panels - 1 ? tile_rows<T, false, true> : tile_rows<T, false>;
          tiles(count, p.columns - panel * P, rows_of_a, lda, p.weight + (panel * depth + k0) * P, k1 - k0, out, ldc,
                k0 == 0 ? p.bias + panel * P : out, k0 == 0 ? 0 : ldc);
        }
      }
      const int64_t column0 = panel0 * P, columns = std::min(p.columns, panel1 * P) - column0;
      if (in_place && p.finish) finish_rows(*p.finish, count, columns, c + column0, ldc, column0);
      if (in_place || columns <= 0) continue;
      if (columns < 16 && uniform) {
        T* out = p.y + first * p.strides[3] + column0;
        for (int64_t r = 0; r < count; r++, out += p.strides[3])
          for (int64_t i = 0; i < columns; i++) out[i] = staged[r * width + column0 + i];
        if (p.finish) finish_rows(*p.finish, count, columns, out - count * p.strides[3], p.strides[3], column0);
        continue;
      }
      Position q = position_of(p, first);
      for (int64_t r = 0; r < count; r++, advance(p, q)) {
        T* out = p.y + q.sample * p.strides[0] + q.at[0] * p.strides[1] + q.at[1] * p.strides[2] + q.at[2] * p.strides[3] + column0;
        if (columns < 16)
          for (int64_t i = 0; i < columns; i++) out[i] = staged[r * width + column0 + i];
        else
          std::memcpy(out, staged + r * width + column0, size_t(columns) * sizeof(T));
      }
    }
  });
}

// Bias of one group, padded with zeros to whole panels.
template <class T> std::vector<T> padded_bias(const T* bias, int64_t columns) {
  std::vector<T> padded(size_t(round_up(std::max<int64_t>(columns, 1), kPanel<T>)), T(0));
  if (bias) std::copy(bias, bias + columns, padded.begin());
  return padded;
}

// Calls f(z, y, x) for each tap of the kernel, the last axis backwards on request.
template <class F> void each_tap(const ConvShape& s, bool backwards, F&& f) {
  for (int64_t z = 0; z < s.kernel[0]; z++)
    for (int64_t y = 0; y < s.kernel[1]; y++)
      for (int64_t x = 0; x < s.kernel[2]; x++) f(z, y, backwards ? s.kernel[2] - 1 - x : x);
}

}  // namespace

template <class T> void gemm_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  const int64_t channels = s.group_channels(), filters = s.group_filters();
  Scratch packed(scratch_bytes<T>({round_up(filters, kPanel<T>), s.taps(), channels}));
  std::vector<int64_t> offsets;
  Product<T> p;
  each_tap(s, false, [&](int64_t kz, int64_t ky, int64_t kx) {
    offsets.push_back(kz * w.tap[0] + ky * w.tap[1] + kx * w.tap[2]);
    const int64_t at[3] = {kz, ky, kx};
    std::array<int64_t, 3> tap;
    for (int i = 0; i < 3; i++) tap[size_t(i)] = at[i] * s.dilation[i] - s.padding[i];
    p.taps.push_back(tap);
  });
  p.batch = s.batch, p.pixel = s.pixel, p.channels = channels, p.columns = filters, p.weight = packed.as<T>();
  if (s.pixel == channels && s.dilation[2] == 1) p.run = s.kernel[2];
  p.strides[3] = s.filters;
  for (int i = 2; i >= 0; i--) p.strides[i] = p.strides[i + 1] * s.output[i];
  std::copy_n(s.output, 3, p.rows);
  std::copy_n(s.stride, 3, p.step);
  std::copy_n(s.input, 3, p.limit);
  for (int64_t g = 0; g < s.groups; g++) {
    const Finish<T> own = f.from(g * filters);
    const std::vector<T> padded = padded_bias(own.bias, filters);
    pack(packed.as<T>(), w.data + g * filters * w.filter, offsets, channels, w.channel, filters, w.filter);
    p.x = x + g * channels, p.y = y + g * filters, p.bias = padded.data(), p.finish = f.scale ? &own : nullptr;
    multiply(p);
  }
}

namespace {

// The gradient of an input of few channels, the other way round: its columns would fill no vector, those of all taps do. Products of the pixels of dy
// with every tap are added where they belong. A job is a block of rows of dx, which reads again what reaches into it from its neighbours.
bool spreads(const ConvShape& s) {
  return s.groups == 1 && s.channels <= 4 && s.taps() * s.channels >= 16 && s.filters >= 16 && s.kernel[0] == 1 && s.input[0] == 1 && s.output[0] == 1 &&
         s.padding[0] == 0 && s.dilation[2] == 1;
}

// to[i] += from[i].
template <class T> void add_run(T* to, const T* from, int64_t count) {
  constexpr int L = Lanes<T>::count;
  for (; count >= L; count -= L, to += L, from += L) store(to, load(to) + load(from));
  if (count > 0) store_some(to, load_some(to, count) + load_some(from, count), count);
}

template <class T> void spread_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias) {
  constexpr int64_t P = kPanel<T>, chunk = 2 * kTileRows;
  const int64_t channels = s.channels, filters = s.filters, run = s.kernel[2] * channels, columns = s.kernel[1] * run;
  const int64_t panels = ceil_div(columns, P), width = panels * P, height = s.input[1], row = s.input[2] * channels;
  Scratch packed(scratch_bytes<T>({width, filters}));  // [panel][filter][kPanel], columns by tap and channel
  std::fill_n(packed.as<T>(), width * filters, T(0));
  for (int64_t i = 0; i < columns; i++) {
    const int64_t ky = i / run, kx = i % run / channels, c = i % channels;
    T* const out = packed.as<T>() + i / P * filters * P + i % P;
    for (int64_t f = 0; f < filters; f++) out[f * P] = w.data[f * w.filter + c * w.channel + ky * w.tap[1] + kx * w.tap[2]];
  }
  const std::vector<T> zeros(size_t(P), T(0));
  const int64_t reach = (s.kernel[1] - 1) * s.dilation[1] + 1;
  const int64_t pieces = std::clamp<int64_t>(ceil_div(16, s.batch), 1, std::max<int64_t>(1, height / (8 * reach))), piece = ceil_div(height, pieces);
  // Positions whose products do not overlap are this many apart: those side by side would wait for each other's sums.
  const int64_t apart = ceil_div(s.kernel[2], s.stride[2]);
  PerThread<T> products(chunk * width);
  parallel_for(s.batch * pieces, 1, [&](int64_t begin, int64_t end) {
    T* const product = products.mine();
    for (int64_t job = begin; job < end; job++) {
      const int64_t n = job / pieces, y0 = std::min(height, job % pieces * piece), y1 = std::min(height, y0 + piece);
      T* const image = dx + n * height * row;
      for (int64_t i = y0 * row; i < y1 * row; i++) image[i] = bias ? bias[i % channels] : T(0);
      const int64_t low = y0 + s.padding[1] - (reach - 1), first = low <= 0 ? 0 : ceil_div(low, s.stride[1]);
      const int64_t last = std::min(s.output[1] - 1, (y1 - 1 + s.padding[1]) / s.stride[1]);
      for (int64_t oy = first; oy <= last; oy++) {
        for (int64_t ox = 0; ox < s.output[2]; ox += chunk) {
          const int64_t count = std::min(chunk, s.output[2] - ox);
          const T* const from = dy + ((n * s.output[1] + oy) * s.output[2] + ox) * filters;
          for (int64_t panel = 0; panel < panels; panel++)
            tile_rows<T, false>(count, columns - panel * P, from, filters, packed.as<T>() + panel * filters * P, filters, product + panel * P, width,
                                zeros.data(), 0);
          for (int64_t phase = 0; phase < apart; phase++)
            for (int64_t i = phase; i < count; i += apart) {
              const int64_t x = (ox + i) * s.stride[2] - s.padding[2];
              const int64_t left = std::clamp<int64_t>(-x, 0, s.kernel[2]), right = std::clamp<int64_t>(s.input[2] - x, left, s.kernel[2]);
              for (int64_t ky = 0; ky < s.kernel[1]; ky++) {
                const int64_t y = oy * s.stride[1] - s.padding[1] + ky * s.dilation[1];
                if (y < y0 || y >= y1) continue;
                add_run(image + y * row + (x + left) * channels, product + i * width + ky * run + left * channels, (right - left) * channels);
              }
            }
        }
      }
    }
  });
}

}  // namespace

template <class T> void gemm_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias) {
  if (spreads(s)) return spread_backward_input(s, dx, dy, w, bias);
  const int64_t channels = s.group_channels(), filters = s.group_filters();
  Scratch packed(scratch_bytes<T>({round_up(channels, kPanel<T>), s.taps(), filters}));
  int64_t phases[3];
  for (int i = 0; i < 3; i++) phases[i] = std::min(s.stride[i], s.input[i]);
  Product<T> p;
  p.batch = s.batch, p.pixel = s.filters, p.channels = filters, p.columns = channels, p.weight = packed.as<T>();
  std::copy_n(s.output, 3, p.limit);
  std::fill_n(p.step, 3, 1);
  int64_t full[4];  // strides of dx
  full[3] = s.channels;
  for (int i = 2; i >= 0; i--) full[i] = full[i + 1] * s.input[i];
  p.strides[0] = full[0];
  for (int i = 0; i < 3; i++) p.strides[i + 1] = full[i + 1] * s.stride[i];
  std::vector<int64_t> offsets;
  for (int64_t phase = 0; phase < phases[0] * phases[1] * phases[2]; phase++) {
    const int64_t at[3] = {phase / phases[2] / phases[1], phase / phases[2] % phases[1], phase % phases[2]};
    p.taps.clear();
    offsets.clear();
    each_tap(s, true, [&](int64_t kz, int64_t ky, int64_t kx) {
      const int64_t k[3] = {kz, ky, kx};
      std::array<int64_t, 3> tap;
      for (int i = 0; i < 3; i++) {
        const int64_t reach = at[i] + s.padding[i] - k[i] * s.dilation[i];
        if (reach % s.stride[i] != 0) return;
        tap[size_t(i)] = reach / s.stride[i];
      }
      p.taps.push_back(tap);
      offsets.push_back(kz * w.tap[0] + ky * w.tap[1] + kx * w.tap[2]);
    });
    // Source positions rise by 1 from tap to tap.
    int64_t across = 0;
    for (const auto& tap : p.taps) across += tap[0] == p.taps[0][0] && tap[1] == p.taps[0][1];
    p.run = s.groups == 1 && s.dilation[2] == 1 ? std::max<int64_t>(across, 1) : 1;
    int64_t shift = 0;
    for (int i = 0; i < 3; i++) {
      p.rows[i] = (s.input[i] - at[i] + s.stride[i] - 1) / s.stride[i];
      shift += at[i] * full[i + 1];
    }
    for (int64_t g = 0; g < s.groups; g++) {
      pack(packed.as<T>(), w.data + g * filters * w.filter, offsets, filters, w.filter, channels, w.channel);
      const std::vector<T> padded = padded_bias(bias ? bias + g * channels : nullptr, channels);
      p.x = dy + g * filters, p.y = dx + g * channels + shift, p.bias = padded.data();
      multiply(p);
    }
  }
}

template void gemm_forward<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const Finish<float>&);
template void gemm_forward<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const Finish<double>&);
template void gemm_backward_input<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const float*);
template void gemm_backward_input<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const double*);

}  // namespace dg::conv
