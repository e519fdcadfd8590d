// The transforms of Winograd's F(4x4, KxK) (Lavin and Gray 2016): y = A^T [(G g G^T) * (B^T d B)] A, on vectors of channels. An axis has 3, 2 or
// 1 taps and with them 6, 5 or 4 points: 0, 1, -1, 2, -2, infinity for three taps, else 0, 1, -1, 2 and, for two, infinity. With 4 taps it is
// F(3x3, 4x4) on the points of three taps: G has a column more, A^T a row less.
//            | 4  0 -5  0  1  0 |        |  1/4     0     0   |        | 1  1  1  1  1  0 |
//            | 0 -4 -4  1  1  0 |        | -1/6  -1/6  -1/6  |   A^T = | 0  1 -1  2 -2  0 |
//  3:  B^T = | 0  4 -4 -1  1  0 |    G = | -1/6   1/6  -1/6  |        | 0  1  1  4  4  0 |
//            | 0 -2 -1  2  1  0 |        |  1/24  1/12  1/6  |        | 0  1 -1  8 -8  1 |
//            | 0  2 -1 -2  1  0 |        |  1/24 -1/12  1/6  |
//            | 0  4  0 -5  0  1 |        |   0     0     1   |
//            | 2 -1 -2  1  0 |           |  1/2    0   |               | 1  1  1  1  0 |
//            | 0 -2 -1  1  0 |           | -1/2  -1/2  |         A^T = | 0  1 -1  2  0 |
//  2:  B^T = | 0  2 -3  1  0 |       G = | -1/6   1/6  |               | 0  1  1  4  0 |
//            | 0 -1  0  1  0 |           |  1/6   1/3  |               | 0  1 -1  8  1 |
//            | 0  2 -1 -2  1 |           |   0     1   |
// One tap is two without the last point, row and column. The gradient of the weights uses the transposes of G and A^T.
#pragma once
#include "convolution.h"
#include "tile.h"

namespace dg::winograd {

using V = lanes_t<float>;

template <int K> inline constexpr int kPoints = K == 4 ? 6 : K + 3;
template <int K> inline constexpr int kOutputs = kPoints<K> - K + 1;

// Each is a product with the named matrix: in d[0], d[s] .., out o[0], o[t] ..
template <int K> inline void input_line(const V* d, int s, V* o, int t) {  // B^T, points to points
  const V d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s];
  if constexpr (K >= 3) {
    const V d4 = d[4 * s], d5 = d[5 * s], a = d4 - 4.0f * d2, b = d3 - 4.0f * d1, c = d4 - d2, e = d3 - d1;
    o[0] = 4.0f * (d0 - d2) + c;
    o[t] = a + b;
    o[2 * t] = a - b;
    o[3 * t] = c + 2.0f * e;
    o[4 * t] = c - 2.0f * e;
    o[5 * t] = 4.0f * (d1 - d3) + (d5 - d3);
  } else {
    const V a = d3 - d1;
    o[0] = (2.0f * d0 - d1) + (d3 - 2.0f * d2);
    o[t] = (a - d1) - d2;
    o[2 * t] = (2.0f * d1 + d3) - 3.0f * d2;
    o[3 * t] = a;
    if constexpr (K == 2) o[4 * t] = (d[4 * s] - d2) - 2.0f * a;
  }
}

template <int K> inline void output_line(const V* m, int s, V* o, int t) {  // A^T, points to outputs
  const V m0 = m[0], m1 = m[s], m2 = m[2 * s], m3 = m[3 * s], a = m1 + m2, b = m1 - m2;
  if constexpr (K >= 3) {
    const V m4 = m[4 * s], c = m3 + m4, d = m3 - m4;
    o[0] = m0 + a + c;
    o[t] = b + 2.0f * d;
    o[2 * t] = a + 4.0f * c;
    if constexpr (K == 3) o[3 * t] = 8.0f * d + (b + m[5 * s]);
    else o[2 * t] = 4.0f * c + (a + m[5 * s]);
  } else {
    o[0] = m0 + a + m3;
    o[t] = b + 2.0f * m3;
    o[2 * t] = a + 4.0f * m3;
    o[3 * t] = b + 8.0f * m3;
    if constexpr (K == 2) o[3 * t] += m[4 * s];
  }
}

template <int K> inline void gradient_line(const V* y, int s, V* o, int t) {  // A, outputs to points
  const V y0 = y[0], y1 = y[s], y2 = y[2 * s], y3 = K == 4 ? V{} : y[3 * s];
  const V a = y0 + y2, b = y1 + y3, c = y0 + 4.0f * y2, d = 2.0f * y1 + 8.0f * y3;
  o[0] = y0;
  o[t] = a + b;
  o[2 * t] = a - b;
  o[3 * t] = c + d;
  if constexpr (K >= 3) o[4 * t] = c - d;
  if constexpr (K > 1) o[(kPoints<K> - 1) * t] = K == 4 ? y2 : y3;
}

template <int K> inline void weight_line(const V* g, int s, V* o, int t) {  // G, taps to points
  const V g0 = g[0], g1 = K > 1 ? g[s] : V{}, g2 = K > 2 ? g[2 * s] : V{}, g3 = K > 3 ? g[3 * s] : V{};
  if constexpr (K >= 3) {
    const V a = (g0 + g2) * (-1.0f / 6), b = (g1 + g3) * (1.0f / 6), c = g0 * (1.0f / 24) + g2 * (1.0f / 6), d = g1 * (1.0f / 12) + g3 * (1.0f / 3);
    o[0] = g0 * 0.25f;
    o[t] = a - b;
    o[2 * t] = a + b;
    o[3 * t] = c + d;
    o[4 * t] = c - d;
    o[5 * t] = K == 4 ? g3 : g2;
  } else {
    o[0] = g0 * 0.5f;
    o[t] = (g0 + g1) * -0.5f;
    o[2 * t] = (g1 - g0) * (1.0f / 6);
    o[3 * t] = g0 * (1.0f / 6) + g1 * (1.0f / 3);
    if constexpr (K == 2) o[4 * t] = g1;
  }
}

template <int K> inline void weight_gradient_line(const V* u, int s, V* o, int t) {  // G^T, points to taps
  const V u0 = u[0], u1 = u[s], u2 = u[2 * s], u3 = u[3 * s];
  if constexpr (K >= 3) {
    const V u4 = u[4 * s], u5 = u[5 * s], a = (u1 + u2) * (-1.0f / 6), b = u3 + u4, c = (u2 - u1) * (1.0f / 6), d = u3 - u4;
    o[0] = 0.25f * u0 + a + b * (1.0f / 24);
    o[t] = c + d * (1.0f / 12);
    o[2 * t] = a + b * (1.0f / 6);
    if constexpr (K == 3) o[2 * t] += u5;
    else o[3 * t] = c + d * (1.0f / 3) + u5;
  } else {
    o[0] = 0.5f * (u0 - u1) + (u3 - u2) * (1.0f / 6);
    if constexpr (K == 2) o[t] = u[4 * s] - 0.5f * u1 + u2 * (1.0f / 6) + u3 * (1.0f / 3);
  }
}

// ---- tiles

inline constexpr int64_t L = Lanes<float>::count, P = kPanel<float>;

// Channels-last pictures: `channels` (of one group) are taken of each pixel.
struct Pictures {
  int64_t height, width, channels, pixel;
  int64_t step;  // of positions of a tile in the picture: 2 where a stride splits it into phases
  int64_t image() const { return height * width * pixel; }
};

// One transform of a tile at (y, x): its positions are step * (y + i) + shift_y, step * (x + j) + shift_x.
struct Phase {
  int taps_y, taps_x;
  int64_t shift_y, shift_x;
  int64_t first_y = 0, first_x = 0, skip = 1;  // its taps in the kernel: first + skip * i (which may go backwards)
  static int points(int taps) { return taps == 4 ? 6 : taps + 3; }
  bool at(int64_t row, int64_t column) const { return row < points(taps_y) && column < points(taps_x); }  // whether it has the point
};

// A convolution by tiles: all sources are summed into each target. One of the two lists has one phase. Phases are ordered so that those which
// have a point are neighbours.
struct Grid {
  int64_t images, tile, tiles_y, tiles_x;  // tile: its results on each axis
  Pictures in, out;
  Phase sources[4], targets[4];
  int source_count, target_count;
  int64_t rows, columns;  // of the points
  int64_t points() const { return rows * columns; }
  int64_t tiles() const { return images * tiles_y * tiles_x; }
};

// The weight of a convolution as the tiles see it: filter and channel strides, and those of the kernel's rows and columns.
struct Kernel {
  const float* data;
  int64_t filter, channel, row, column;
};

struct Range {
  int64_t begin, end;
};

// So few that the weights, which take as long for one tile as for many, are most of the work: 3x3 with
// stride 1, and with stride 2 forward, in convolution_winograd_few.cpp. The limits are where the other ways overtake.
inline bool few_tiles(const Grid& g) {
  const int64_t weights = g.in.channels * g.out.channels;
  if (g.source_count == 4) return g.sources[3].taps_y == 1 && g.sources[3].taps_x == 1 && g.tiles() <= 12;
  if (g.source_count * g.target_count > 1 || g.rows != 6 || g.columns != 6 || g.tile != 4) return false;
  return g.tiles() <= (weights >= 128 * 128 ? 12 : weights >= 64 * 64 ? 8 : 4);
}

// convolution_winograd_few.cpp. The bias has a vector for each vector of results.
void run_few_tiles(const Grid& g, float* y, const float* x, const Kernel& w, const conv::Finish<float>& f);


// Not many tiles and many filters: the weights are transformed when they are used and stay in the second-level cache.
inline bool by_filters(const Grid& g) {
  const int64_t width = conv::round_up(g.out.channels, P);
  const int64_t weights = g.points() * g.source_count * g.target_count * g.in.channels * width * int64_t(sizeof(float));
  const int64_t few = weights >= int64_t(16) << 20 ? 160 : 64;  // tiles: reading all weights for each block of tiles takes longer than transforms
  return g.tiles() <= few && g.target_count * width >= 4 * P;
}

// Otherwise, as many tiles at a time as keep V and M in the second-level cache, in whole register tiles; at least 8 blocks for the threads. Where there are
// not that many, a last one by itself would keep the others waiting: an even number of blocks of one size.
inline int64_t block_of(const Grid& g) {
  const int64_t depth = g.source_count * conv::round_up(g.in.channels, L), width = conv::round_up(g.out.channels, P);
  const int64_t block = std::clamp<int64_t>((int64_t(640) << 10) / (g.points() * 4 * (depth + width)), 1, 112);
  const int64_t whole = std::max<int64_t>(std::min(block, conv::ceil_div(g.tiles(), 8)) / kTileRows, 1) * kTileRows;
  const int64_t blocks = conv::ceil_div(g.tiles(), whole);
  return blocks > 8 ? whole : conv::ceil_div(g.tiles(), conv::round_up(blocks, 2));
}

inline Range phases_at(const Phase* phases, int count, const Grid& g, int64_t point) {
  const int64_t row = point / g.columns, column = point % g.columns;
  Range r{0, count};
  while (r.begin < count && !phases[r.begin].at(row, column)) r.begin++;
  while (r.end > r.begin && !phases[r.end - 1].at(row, column)) r.end--;
  return r;
}

struct Place {
  int64_t image, y, x;  // of a tile: its image and its corner
};

inline Place place_of(const Grid& g, int64_t tile) {
  return {tile / g.tiles_x / g.tiles_y, tile / g.tiles_x % g.tiles_y * g.tile, tile % g.tiles_x * g.tile};
}

// Calls f with the taps of a phase as compile-time numbers.
template <class F> inline void with_taps(const Phase& p, F&& f) {
  using one = std::integral_constant<int, 1>;
  using two = std::integral_constant<int, 2>;
  if (p.taps_y == 4) return f(std::integral_constant<int, 4>{}, std::integral_constant<int, 4>{});
  if (p.taps_y == 3) return f(std::integral_constant<int, 3>{}, std::integral_constant<int, 3>{});
  if (p.taps_y == 2) return p.taps_x == 2 ? f(two{}, two{}) : f(two{}, one{});
  return p.taps_x == 2 ? f(one{}, two{}) : f(one{}, one{});
}

// Which rows and columns of a window at (y0, x0) lie in the picture.
template <int H, int W> struct Inside {
  bool y[H], x[W], whole = true;
  Inside(const Pictures& s, int64_t y0, int64_t x0) {
    for (int i = 0; i < H; i++) whole &= y[i] = y0 + s.step * i >= 0 && y0 + s.step * i < s.height;
    for (int j = 0; j < W; j++) whole &= x[j] = x0 + s.step * j >= 0 && x0 + s.step * j < s.width;
  }
  bool at(int i, int j) const { return y[i] && x[j]; }
};

// B^T d B of a tile: vectors of channels are `chunk` apart, points `plane`. Lines first, so that addresses are a register and multiples of another.
template <int KY, int KX>
void transform_input(const Pictures& s, const float* x, int64_t y0, int64_t x0, float* v, int64_t plane, int64_t columns, int64_t chunk) {
  constexpr int H = kPoints<KY>, W = kPoints<KX>;
  const int64_t pixel = s.step * s.pixel, line = pixel * s.width, row = plane * columns;
  const Inside<H, W> inside(s, y0, x0);
  const float* corner = x + (y0 * s.width + x0) * s.pixel;
  const auto pass = [&](auto get) {
    V e[H * W];
    const float* p = corner;
#pragma GCC unroll 6
    for (int i = 0; i < H; i++, p += line) {
      V d[W];
#pragma GCC unroll 6
      for (int j = 0; j < W; j++) d[j] = get(p + j * pixel, i, j);
      input_line<KX>(d, 1, e + i * W, 1);
    }
    float* to = v;
#pragma GCC unroll 6
    for (int j = 0; j < W; j++, to += plane) {
      V o[H];
      input_line<KY>(e + j, W, o, 1);
#pragma GCC unroll 6
      for (int i = 0; i < H; i++) store(to + i * row, o[i]);
    }
    corner += L, v += chunk;
  };
  int64_t left = s.channels;
  if (inside.whole)
    for (; left >= L; left -= L) pass([](const float* p, int, int) { return load(p); });
  else
    for (; left >= L; left -= L) pass([&](const float* p, int i, int j) { return inside.at(i, j) ? load(p) : V{}; });
  if (left > 0) pass([&](const float* p, int i, int j) { return inside.at(i, j) ? load_some(p, left) : V{}; });
}

// A^T m A for channels [c0, c1) of a tile, finished; m and f are at c0. A vector may be read behind the last bias.
template <int KY, int KX, bool Scaled, bool Residual>
void transform_and_finish(const Pictures& s, float* y, int64_t y0, int64_t x0, const float* m, int64_t plane, int64_t columns,
                          const conv::Finish<float>& f, int64_t c0, int64_t c1) {
  constexpr int H = kPoints<KY>, W = kPoints<KX>, OY = kOutputs<KY>, OX = kOutputs<KX>;
  const int64_t pixel = s.step * s.pixel, line = pixel * s.width, row = plane * columns;
  const Inside<OY, OX> inside(s, y0, x0);
  float* corner = y + (y0 * s.width + x0) * s.pixel + c0;
  const float *bias = f.bias, *scales = f.scale, *shifts = f.shift, *corner_added = Residual ? f.added(corner) : nullptr;
  const V least = V{} + f.least;
  const auto pass = [&](auto put, auto get) {
    const V add = load(bias), scale = Scaled ? load(scales) : V{}, shift = Scaled ? load(shifts) : V{};
    V e[H * OX];
    const float* from = m;
#pragma GCC unroll 6
    for (int i = 0; i < H; i++, from += row) {
      V d[W];
#pragma GCC unroll 6
      for (int j = 0; j < W; j++) d[j] = load(from + j * plane);
      output_line<KX>(d, 1, e + i * OX, 1);
    }
    float* to = corner;
    const float* from_added = corner_added;
#pragma GCC unroll 4
    for (int j = 0; j < OX; j++, to += pixel) {
      V o[OY], added[OY] = {};
      if constexpr (Residual) {  // all before the first store, behind which they would wait where addresses agree in their last bits
#pragma GCC unroll 4
        for (int i = 0; i < OY; i++) added[i] = get(from_added + i * line, i, j);
        from_added += pixel;
      }
      output_line<KY>(e + j, OX, o, 1);
#pragma GCC unroll 4
      for (int i = 0; i < OY; i++) {
        o[i] += add;
        if constexpr (Scaled) o[i] = conv::finished(o[i], scale, shift, added[i], least);
      }
#pragma GCC unroll 4
      for (int i = 0; i < OY; i++) put(to + i * line, o[i], i, j);
    }
    corner += L, m += L, bias += L;
    if constexpr (Scaled) scales += L, shifts += L;
    if constexpr (Residual) corner_added += L;
  };
  int64_t left = c1 - c0;
  if (inside.whole)
    for (; left >= L; left -= L) pass([](float* p, V v, int, int) { store(p, v); }, [](const float* p, int, int) { return load(p); });
  const auto some = [&](float* p, V v, int i, int j) {
    if (!inside.at(i, j)) return;
    if (left >= L) store(p, v);
    else store_some(p, v, left);
  };
  const auto there = [&](const float* p, int i, int j) { return !inside.at(i, j) ? V{} : left >= L ? load(p) : load_some(p, left); };
  for (; left > 0; left -= L) pass(some, there);
}

template <int KY, int KX>
void transform_output(const Pictures& s, float* y, int64_t y0, int64_t x0, const float* m, int64_t plane, int64_t columns,
                      const conv::Finish<float>& f, int64_t c0, int64_t c1) {
  const auto run = !f.scale      ? transform_and_finish<KY, KX, false, false>
                   : !f.residual ? transform_and_finish<KY, KX, true, false>
                                 : transform_and_finish<KY, KX, true, true>;
  run(s, y, y0, x0, m, plane, columns, f, c0, c1);
}

// ---- what becomes of a convolution

// Kernel positions of phase r: r, r + stride ..
inline int taps_of(int64_t kernel, int64_t stride, int64_t r) { return int((kernel - r + stride - 1) / stride); }

// Results of a tile on each axis.
inline int64_t tile_of(const ConvShape& s) { return s.stride[1] == 1 && s.kernel[1] == 4 ? 3 : 4; }

// Rows and columns of phases; of those with more taps on an axis, none is apart from the others.
inline constexpr int kPhases[4][2] = {{1, 0}, {0, 0}, {0, 1}, {1, 1}};

// Forward: tap t = stride * q + r of result o reads stride * (o + q) + r - padding, so phase r is a convolution of every stride-th position.
inline Grid forward_grid(const ConvShape& s) {
  Grid g{};
  const int64_t stride = s.stride[1];
  g.images = s.batch * s.input[0];
  g.tile = tile_of(s), g.tiles_y = conv::ceil_div(s.output[1], g.tile), g.tiles_x = conv::ceil_div(s.output[2], g.tile);
  g.in = {s.input[1], s.input[2], s.group_channels(), s.pixel, stride};
  g.out = {s.output[1], s.output[2], s.group_filters(), s.filters, 1};
  for (const auto& [y, x] : kPhases) {
    if (y >= stride || x >= stride) continue;
    g.sources[g.source_count++] = {taps_of(s.kernel[1], stride, y), taps_of(s.kernel[2], stride, x), y - s.padding[1], x - s.padding[2],
                                   y, x, int(stride)};
  }
  const int most_y = taps_of(s.kernel[1], stride, 0), most_x = taps_of(s.kernel[2], stride, 0);
  g.targets[g.target_count++] = {most_y, most_x, 0, 0, 0, 0, 1};
  g.rows = Phase::points(most_y), g.columns = Phase::points(most_x);
  return g;
}

// Backward: dx at stride * m + r - padding is the sum over q of dy[m - q] w[stride * q + r]: phase r is a convolution with its taps reversed, whose
// window in dy starts at m - taps + 1 for the first m that there is. Phases whose windows agree share the transforms of dy and a grid: f is called
// with each grid.
template <class F> void each_backward_grid(const ConvShape& s, F&& f) {
  const int64_t stride = s.stride[1];
  const auto begin = [&](int axis, int64_t r) { return (s.padding[axis] - r + stride - 1) / stride; };
  const auto window = [&](int axis, int64_t r) { return begin(axis, r) - taps_of(s.kernel[axis], stride, r) + 1; };
  const auto groups = [&](int axis) { return stride == 2 && window(axis, 0) != window(axis, 1) ? 2 : 1; };
  for (int64_t group = 0; group < groups(1) * groups(2); group++) {
    const int64_t group_y = group / groups(2), group_x = group % groups(2);
    Grid g{};
    g.images = s.batch * s.input[0], g.tile = tile_of(s);
    g.in = {s.output[1], s.output[2], s.group_filters(), s.filters, 1};
    g.out = {s.input[1], s.input[2], s.group_channels(), s.channels, stride};
    int most_y = 0, most_x = 0;
    for (const auto& [y, x] : kPhases) {
      if (y >= stride || x >= stride || (groups(1) == 2 && y != group_y) || (groups(2) == 2 && x != group_x)) continue;
      const int ky = taps_of(s.kernel[1], stride, y), kx = taps_of(s.kernel[2], stride, x);
      Phase& p = g.targets[g.target_count++];
      p = {ky, kx, stride * begin(1, y) + y - s.padding[1], stride * begin(2, x) + x - s.padding[2],
           y + stride * (ky - 1), x + stride * (kx - 1), -stride};
      g.tiles_y = std::max(g.tiles_y, conv::ceil_div(s.input[1] - p.shift_y, g.tile * stride));
      g.tiles_x = std::max(g.tiles_x, conv::ceil_div(s.input[2] - p.shift_x, g.tile * stride));
      most_y = std::max(most_y, ky), most_x = std::max(most_x, kx);
    }
    g.sources[g.source_count++] = {most_y, most_x, window(1, group_y), window(2, group_x)};
    g.rows = Phase::points(most_y), g.columns = Phase::points(most_x);
    f(g);
  }
}

}  // namespace dg::winograd
