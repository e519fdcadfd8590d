// The transforms of Winograd's F(4x4, 3x3) (Lavin and Gray 2016): y = A^T [(G g G^T) * (B^T d B)] A over 6x6 tiles, on vectors of channels.
//        | 4  0 -5  0  1  0 |        |  1/4     0     0   |        | 1  1  1  1  1  0 |
//        | 0 -4 -4  1  1  0 |        | -1/6  -1/6  -1/6  |   A^T = | 0  1 -1  2 -2  0 |
//  B^T = | 0  4 -4 -1  1  0 |    G = | -1/6   1/6  -1/6  |        | 0  1  1  4  4  0 |
//        | 0 -2 -1  2  1  0 |        |  1/24  1/12  1/6  |        | 0  1 -1  8 -8  1 |
//        | 0  2 -1 -2  1  0 |        |  1/24 -1/12  1/6  |
//        | 0  4  0 -5  0  1 |        |   0     0     1   |
// The gradient of the weights uses the transposes of G and A^T.
#pragma once
#include "convolution.h"
#include "tile.h"

namespace dg::winograd {

using V = lanes_t<float>;

// Each is a product with the named matrix: in d[0], d[s] .., out o[0], o[t] ..
inline void input_line(const V* d, int s, V* o, int t) {  // B^T, 6 to 6
  const V d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
  const V a = d4 - 4.0f * d2, b = d3 - 4.0f * d1, c = d4 - d2, e = 2.0f * (d3 - d1);
  o[0] = 4.0f * d0 + d4 - 5.0f * d2;
  o[t] = a + b;
  o[2 * t] = a - b;
  o[3 * t] = c + e;
  o[4 * t] = c - e;
  o[5 * t] = 4.0f * d1 + d5 - 5.0f * d3;
}

inline void output_line(const V* m, int s, V* o, int t) {  // A^T, 6 to 4
  const V m0 = m[0], m1 = m[s], m2 = m[2 * s], m3 = m[3 * s], m4 = m[4 * s], m5 = m[5 * s];
  const V a = m1 + m2, b = m1 - m2, c = m3 + m4, d = m3 - m4;
  o[0] = m0 + a + c;
  o[t] = b + 2.0f * d;
  o[2 * t] = a + 4.0f * c;
  o[3 * t] = b + 8.0f * d + m5;
}

inline void gradient_line(const V* y, int s, V* o, int t) {  // A, 4 to 6
  const V y0 = y[0], y1 = y[s], y2 = y[2 * s], y3 = y[3 * s];
  const V a = y0 + y2, b = y1 + y3, c = y0 + 4.0f * y2, d = 2.0f * y1 + 8.0f * y3;
  o[0] = y0;
  o[t] = a + b;
  o[2 * t] = a - b;
  o[3 * t] = c + d;
  o[4 * t] = c - d;
  o[5 * t] = y3;
}

inline void weight_line(const V* g, int s, V* o, int t) {  // G, 3 to 6
  const V g0 = g[0], g1 = g[s], g2 = g[2 * s];
  const V a = (g0 + g2) * (-1.0f / 6), b = g1 * (1.0f / 6), c = g0 * (1.0f / 24) + g2 * (1.0f / 6), d = g1 * (1.0f / 12);
  o[0] = g0 * 0.25f;
  o[t] = a - b;
  o[2 * t] = a + b;
  o[3 * t] = c + d;
  o[4 * t] = c - d;
  o[5 * t] = g2;
}

inline void weight_gradient_line(const V* u, int s, V* o, int t) {  // G^T, 6 to 3
  const V u0 = u[0], u1 = u[s], u2 = u[2 * s], u3 = u[3 * s], u4 = u[4 * s], u5 = u[5 * s];
  const V a = (u1 + u2) * (-1.0f / 6), b = u3 + u4;
  o[0] = 0.25f * u0 + a + b * (1.0f / 24);
  o[t] = (u2 - u1) * (1.0f / 6) + (u3 - u4) * (1.0f / 12);
  o[2 * t] = a + b * (1.0f / 6) + u5;
}

// ---- tiles

inline constexpr int64_t L = Lanes<float>::count, P = kPanel<float>;

struct Grid {
  int64_t images, height, width;          // of the source
  int64_t out_height, out_width;          // of the result
  int64_t top, left;                      // source row of tile row 0 is -top
  int64_t channels, filters;              // of source and result
  int64_t tiles_y() const { return conv::ceil_div(out_height, 4); }
  int64_t tiles_x() const { return conv::ceil_div(out_width, 4); }
  int64_t tiles() const { return images * tiles_y() * tiles_x(); }
};

struct Place {
  int64_t image, y, x;  // of a tile: its image and the result position of its corner
};

inline Place place_of(const Grid& g, int64_t tile) {
  const int64_t across = g.tiles_x(), down = g.tiles_y();
  return {tile / across / down, tile / across % down * 4, tile % across * 4};
}

// B^T d B of one tile: results of a vector of channels are `plane` apart, vectors `chunk`.
inline void transform_input(const Grid& g, const float* x, const Place& at, float* v, int64_t plane, int64_t chunk) {
  const int64_t y0 = at.y - g.top, x0 = at.x - g.left;
  const bool inner = y0 >= 0 && x0 >= 0 && y0 + 6 <= g.height && x0 + 6 <= g.width;
  for (int64_t c = 0; c < g.channels; c += L, v += chunk) {
    const int64_t count = std::min(L, g.channels - c);
    V d[36], e[36];
    for (int i = 0; i < 6; i++) {
      for (int j = 0; j < 6; j++) {
        const int64_t iy = y0 + i, ix = x0 + j;
        const float* from = x + ((at.image * g.height + iy) * g.width + ix) * g.channels + c;
        if (inner && count == L) d[i * 6 + j] = load(from);
        else if (iy < 0 || ix < 0 || iy >= g.height || ix >= g.width) d[i * 6 + j] = V{};
        else d[i * 6 + j] = count == L ? load(from) : load_some(from, count);
      }
    }
    for (int j = 0; j < 6; j++) input_line(d + j, 6, e + j, 6);
    for (int i = 0; i < 6; i++) {
      V o[6];
      input_line(e + i * 6, 1, o, 1);
      for (int j = 0; j < 6; j++) store(v + (i * 6 + j) * plane, o[j]);
    }
  }
}

}  // namespace dg::winograd
