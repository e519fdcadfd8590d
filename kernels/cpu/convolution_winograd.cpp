// 3x3 convolution with stride 1 by Winograd's F(4x4, 3x3): a quarter of the multiplications. Blocks of tiles go through input transform, 36 products
// and output transform while they sit in the cache. The gradient of the input is the same with the weights rotated and transposed.
#include "convolution.h"
#include "winograd.h"

namespace dg::conv {
namespace {

using namespace winograd;

constexpr int64_t L = Lanes<float>::count, P = kPanel<float>;

struct Grid {
  int64_t images, height, width;          // of the source
  int64_t out_height, out_width;          // of the result
  int64_t top, left;                      // source row of tile row 0 is -top
  int64_t channels, filters;              // of source and result
  int64_t tiles_y() const { return ceil_div(out_height, 4); }
  int64_t tiles_x() const { return ceil_div(out_width, 4); }
  int64_t tiles() const { return images * tiles_y() * tiles_x(); }
};

struct Place {
  int64_t image, y, x;  // of a tile: its image and the result position of its corner
};

Place place_of(const Grid& g, int64_t tile) {
  const int64_t across = g.tiles_x(), down = g.tiles_y();
  return {tile / across / down, tile / across % down * 4, tile % across * 4};
}

// U[36][panel][channel][P] from w(filter, channel, 3, 3); planes are `plane` apart.
void transform_weights(float* u, int64_t plane, const float* w, int64_t filters, int64_t filter_stride, int64_t channels, int64_t channel_stride,
                       int64_t row_stride, int64_t column_stride) {
  const int64_t panels = ceil_div(filters, P);
  parallel_for(panels * channels, 64, [&](int64_t begin, int64_t end) {
    alignas(64) float taps[9][P];
    for (int64_t job = begin; job < end; job++) {
      const int64_t panel = job / channels, c = job % channels, valid = std::min(P, filters - panel * P);
      for (int64_t j = 0; j < P; j++) {
        const float* from = w + (panel * P + j) * filter_stride + c * channel_stride;
        for (int t = 0; t < 9; t++) taps[t][j] = j < valid ? from[t / 3 * row_stride + t % 3 * column_stride] : 0.0f;
      }
      for (int64_t half = 0; half < P; half += L) {
        V g[9], e[18], o[36];
        for (int t = 0; t < 9; t++) g[t] = load(&taps[t][half]);
        for (int x = 0; x < 3; x++) weight_line(g + x, 3, e + x, 3);
        for (int y = 0; y < 6; y++) weight_line(e + y * 3, 1, o + y * 6, 1);
        for (int i = 0; i < 36; i++) store(u + i * plane + job * P + half, o[i]);
      }
    }
  });
}

// V[36][tile][channels] of one tile; planes are `plane` apart.
void transform_input(const Grid& g, const float* x, const Place& at, float* v, int64_t plane) {
  const int64_t y0 = at.y - g.top, x0 = at.x - g.left;
  const bool inner = y0 >= 0 && x0 >= 0 && y0 + 6 <= g.height && x0 + 6 <= g.width;
  for (int64_t c = 0; c < g.channels; c += L) {
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
      for (int j = 0; j < 6; j++) store(v + (i * 6 + j) * plane + c, o[j]);
    }
  }
}

void transform_output(const Grid& g, float* y, const Place& at, const float* m, int64_t plane, const float* bias) {
  const int64_t rows = std::min<int64_t>(4, g.out_height - at.y), columns = std::min<int64_t>(4, g.out_width - at.x);
  for (int64_t c = 0; c < g.filters; c += L) {
    const int64_t count = std::min(L, g.filters - c);
    V d[36], e[24];
    for (int i = 0; i < 36; i++) d[i] = load(m + i * plane + c);
    for (int j = 0; j < 6; j++) output_line(d + j, 6, e + j, 6);
    const V add = load(bias + c);
    for (int64_t i = 0; i < rows; i++) {
      V o[4];
      output_line(e + i * 6, 1, o, 1);
      float* to = y + ((at.image * g.out_height + at.y + i) * g.out_width + at.x) * g.filters + c;
      for (int64_t j = 0; j < columns; j++, to += g.filters) {
        if (count == L) store(to, o[j] + add);
        else store_some(to, o[j] + add, count);
      }
    }
  }
}

void run(const Grid& g, float* y, const float* x, const float* u, int64_t u_plane, const float* bias) {
  const int64_t tiles = g.tiles(), panels = ceil_div(g.filters, P);
  const int64_t v_row = round_up(g.channels, L), m_row = panels * P;
  // As many tiles at a time as keep V and M in the second-level cache, in whole register tiles; at least 16 blocks for the threads.
  int64_t block = std::clamp<int64_t>((int64_t(640) << 10) / (36 * 4 * (v_row + m_row)), 1, 112);
  block = std::min(block, ceil_div(tiles, 8));
  block = std::max<int64_t>(block / kTileRows, 1) * kTileRows;
  const int64_t v_plane = block * v_row + L, m_plane = block * m_row + L;
  PerThread<float> work(36 * (v_plane + m_plane));
  parallel_for(ceil_div(tiles, block), 1, [&](int64_t begin, int64_t end) {
    float *const v = work.mine(), *const m = v + 36 * v_plane;
    for (int64_t job = begin; job < end; job++) {
      const int64_t first = job * block, count = std::min(block, tiles - first);
      for (int64_t i = 0; i < count; i++) transform_input(g, x, place_of(g, first + i), v + i * v_row, v_plane);
      for (int64_t i = 0; i < 36; i++) {
        for (int64_t panel = 0; panel < panels; panel++) {
          static const float zeros[P] = {};
          tile_rows<float, false>(count, P, v + i * v_plane, v_row, u + i * u_plane + panel * g.channels * P, g.channels,
                                  m + i * m_plane + panel * P, m_row, zeros, 0);
        }
      }
      for (int64_t i = 0; i < count; i++) transform_output(g, y, place_of(g, first + i), m + i * m_row, m_plane, bias);
    }
  });
}

void convolve(const Grid& g, float* y, const float* x, const Weight<const float>& w, bool backward, const float* bias) {
  const int64_t panels = ceil_div(g.filters, P), plane = panels * g.channels * P + 2 * P;
  Scratch memory(scratch_bytes<float>({36, plane}));
  float* const u = memory.as<float>();
  if (backward)
    transform_weights(u, plane, w.data + 2 * (w.tap[1] + w.tap[2]), g.filters, w.channel, g.channels, w.filter, -w.tap[1], -w.tap[2]);
  else
    transform_weights(u, plane, w.data, g.filters, w.filter, g.channels, w.channel, w.tap[1], w.tap[2]);
  Scratch padded(scratch_bytes<float>({panels * P}));
  std::fill_n(padded.as<float>(), panels * P, 0.0f);
  if (bias) std::copy_n(bias, g.filters, padded.as<float>());
  run(g, y, x, u, plane, padded.as<float>());
}

}  // namespace

bool winograd_fits(const ConvShape& s) {
  if (s.groups != 1 || s.kernel[0] != 1 || s.kernel[1] != 3 || s.kernel[2] != 3) return false;
  if (s.stride[0] != 1 || s.padding[0] != 0 || s.input[0] != s.output[0]) return false;
  for (int i = 1; i < 3; i++)
    if (s.stride[i] != 1 || s.dilation[i] != 1) return false;
  if (s.channels < 16 || s.filters < 16) return false;
  // Tiles that hang over the border cost as much as whole ones.
  return s.output[1] * s.output[2] * 9 > ceil_div(s.output[1], 4) * ceil_div(s.output[2], 4) * 48;
}

void winograd_forward(const ConvShape& s, float* y, const float* x, const Weight<const float>& w, const float* bias) {
  const Grid g{s.batch * s.input[0], s.input[1], s.input[2], s.output[1], s.output[2], s.padding[1], s.padding[2], s.channels, s.filters};
  convolve(g, y, x, w, false, bias);
}

void winograd_backward_input(const ConvShape& s, float* dx, const float* dy, const Weight<const float>& w, const float* bias) {
  const Grid g{s.batch * s.input[0], s.output[1], s.output[2], s.input[1], s.input[2], 2 - s.padding[1], 2 - s.padding[2], s.filters, s.channels};
  convolve(g, dx, dy, w, true, bias);
}

void winograd_backward_weight(const ConvShape& s, const Weight<float>& dw, const float* dy, const float* x) {
  gemm_backward_weight<float>(s, dw, dy, x);
}

}  // namespace dg::conv
