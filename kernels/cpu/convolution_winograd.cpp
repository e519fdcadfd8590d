// 3x3 convolution with stride 1 by Winograd's F(4x4, 3x3): a quarter of the multiplications. Blocks of tiles go through input transform, 36 products
// and output transform while they sit in the cache. The gradient of the input is the same with the weights rotated and transposed.
#include <cstring>

#include "convolution.h"
#include "winograd.h"

namespace dg::conv {
namespace {

using namespace winograd;

// The weight of a convolution as the tiles see it: filter and channel strides, and those of the 3x3 positions (negative when rotated).
struct Kernel {
  const float* data;
  int64_t filter, channel, row, column;
};

// The 3x3 positions of a panel of filters and `count` channels from c on: taps[position][channel][P]. Memory is read in the order in which it lies.
void read_weights(const Kernel& w, int64_t filter, int64_t filters, int64_t c, int64_t count, float (*taps)[L][P]) {
  const float* const from = w.data + filter * w.filter + c * w.channel;
  const auto tap = [&](int t) { return from + t / 3 * w.row + t % 3 * w.column; };
  if (w.filter == 1) {
    for (int t = 0; t < 9; t++)
      for (int64_t k = 0; k < count; k++) std::memcpy(taps[t][k], tap(t) + k * w.channel, size_t(filters) * sizeof(float));
  } else if (w.channel == 1) {
    for (int64_t j = 0; j < filters; j++)
      for (int t = 0; t < 9; t++)
        for (int64_t k = 0; k < count; k++) taps[t][k][j] = tap(t)[j * w.filter + k];
  } else {
    for (int64_t k = 0; k < count; k++)
      for (int64_t j = 0; j < filters; j++)
        for (int t = 0; t < 9; t++) taps[t][k][j] = tap(t)[j * w.filter + k * w.channel];
  }
}

// G g G^T for a panel of filters and channels [c0, c1): U[36][channel][P], planes `plane` apart.
void transform_weights(const Grid& g, const Kernel& w, int64_t panel, int64_t c0, int64_t c1, float* u, int64_t plane) {
  alignas(64) float taps[9][L][P] = {};
  for (int64_t c = c0; c < c1; c += L) {
    const int64_t count = std::min(L, c1 - c);
    read_weights(w, panel * P, std::min(P, g.filters - panel * P), c, count, taps);
    for (int64_t k = 0; k < count; k++, u += P) {
      for (int64_t half = 0; half < P; half += L) {
        V d[9], e[18], o[36];
        for (int t = 0; t < 9; t++) d[t] = load(&taps[t][k][half]);
        for (int x = 0; x < 3; x++) weight_line(d + x, 3, e + x, 3);
        for (int y = 0; y < 6; y++) weight_line(e + y * 3, 1, o + y * 6, 1);
        for (int i = 0; i < 36; i++) store(u + i * plane + half, o[i]);
      }
    }
  }
}

// A^T m A and the bias for filters [c0, c1) of one tile; m is at c0.
void transform_output(const Grid& g, float* y, const Place& at, const float* m, int64_t plane, const float* bias, int64_t c0, int64_t c1) {
  const int64_t rows = std::min<int64_t>(4, g.out_height - at.y), columns = std::min<int64_t>(4, g.out_width - at.x);
  for (int64_t c = c0; c < c1; c += L, m += L) {
    const int64_t count = std::min(L, c1 - c);
    V d[36], e[24];
    for (int i = 0; i < 36; i++) d[i] = load(m + i * plane);
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

const float zeros[P] = {};

// Many tiles: all weights are transformed first, then blocks of tiles pass through everything.
void run_by_tiles(const Grid& g, float* y, const float* x, const Kernel& w, const float* bias) {
  const int64_t tiles = g.tiles(), panels = ceil_div(g.filters, P), u_plane = panels * g.channels * P + 2 * P;
  Scratch memory(scratch_bytes<float>({36, u_plane}));
  float* const u = memory.as<float>();
  constexpr int64_t some = 64;  // channels
  const int64_t parts = ceil_div(g.channels, some);
  parallel_for(panels * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t panel = job / parts, c0 = job % parts * some, c1 = std::min(g.channels, c0 + some);
      transform_weights(g, w, panel, c0, c1, u + (panel * g.channels + c0) * P, u_plane);
    }
  });
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
      for (int64_t i = 0; i < count; i++) transform_input(g, x, place_of(g, first + i), v + i * v_row, v_plane, L);
      for (int64_t i = 0; i < 36; i++) {
        for (int64_t panel = 0; panel < panels; panel++) {
          tile_rows<float, false>(count, P, v + i * v_plane, v_row, u + i * u_plane + panel * g.channels * P, g.channels,
                                  m + i * m_plane + panel * P, m_row, zeros, 0);
        }
      }
      for (int64_t i = 0; i < count; i++) transform_output(g, y, place_of(g, first + i), m + i * m_row, m_plane, bias, 0, g.filters);
    }
  });
}

// Few tiles and many channels: the transformed weights would be far larger than the caches, so each panel of filters transforms its own, some
// channels at a time, and multiplies all tiles by them.
void run_by_filters(const Grid& g, float* y, const float* x, const Kernel& w, const float* bias) {
  const int64_t tiles = g.tiles(), panels = ceil_div(g.filters, P), v_row = round_up(g.channels, L), v_plane = tiles * v_row + L;
  constexpr int64_t some = 32;  // channels
  const int64_t u_plane = some * P + L, m_plane = tiles * P + L;
  Scratch memory(scratch_bytes<float>({36, v_plane}));
  float* const v = memory.as<float>();
  parallel_for(tiles, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) transform_input(g, x, place_of(g, i), v + i * v_row, v_plane, L);
  });
  PerThread<float> work(36 * (u_plane + m_plane));
  parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
    float *const u = work.mine(), *const m = u + 36 * u_plane;
    for (int64_t panel = begin; panel < end; panel++) {
      for (int64_t c = 0; c < g.channels; c += some) {
        const int64_t count = std::min(some, g.channels - c);
        transform_weights(g, w, panel, c, c + count, u, u_plane);
        for (int64_t i = 0; i < 36; i++) {
          float* const to = m + i * m_plane;
          tile_rows<float, false>(tiles, P, v + i * v_plane + c, v_row, u + i * u_plane, count, to, P, c == 0 ? zeros : to, c == 0 ? 0 : P);
        }
      }
      for (int64_t i = 0; i < tiles; i++)
        transform_output(g, y, place_of(g, i), m + i * P, m_plane, bias, panel * P, std::min(g.filters, (panel + 1) * P));
    }
  });
}

void convolve(const Grid& g, float* y, const float* x, const Kernel& w, const float* bias) {
  const int64_t width = round_up(g.filters, P);
  Scratch padded(scratch_bytes<float>({width}));
  std::fill_n(padded.as<float>(), width, 0.0f);
  if (bias) std::copy_n(bias, g.filters, padded.as<float>());
  if (g.tiles() <= 64 && width >= 4 * P) run_by_filters(g, y, x, w, padded.as<float>());
  else run_by_tiles(g, y, x, w, padded.as<float>());
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
  convolve(g, y, x, {w.data, w.filter, w.channel, w.tap[1], w.tap[2]}, bias);
}

void winograd_backward_input(const ConvShape& s, float* dx, const float* dy, const Weight<const float>& w, const float* bias) {
  const Grid g{s.batch * s.input[0], s.output[1], s.output[2], s.input[1], s.input[2], 2 - s.padding[1], 2 - s.padding[2], s.filters, s.channels};
  convolve(g, dx, dy, {w.data + 2 * (w.tap[1] + w.tap[2]), w.channel, w.filter, -w.tap[1], -w.tap[2]}, bias);
}

}  // namespace dg::conv
