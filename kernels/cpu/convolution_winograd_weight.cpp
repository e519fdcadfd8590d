// Gradient of 3x3 weights by Winograd's F(4x4, 3x3): dw = G^T [sum over tiles of (B^T d B) * (A dy A^T)] G. Tiles go in segments whose transforms
// fit the cache; within a segment the 36 products are shared out by channels and filters, so that every sum has one fixed order.
#include "convolution.h"
#include "winograd.h"

namespace dg::conv {
namespace {

using namespace winograd;

constexpr int64_t kBlock = L * P;  // a vector of channels times a panel of filters

// A dy A^T of one tile into panels: Z[36][panel][tile][P], here at one tile; panels are `chunk` apart.
void transform_gradient(const Grid& g, const float* dy, const Place& at, float* z, int64_t plane, int64_t chunk) {
  const int64_t rows = std::min<int64_t>(4, g.out_height - at.y), columns = std::min<int64_t>(4, g.out_width - at.x);
  for (int64_t c = 0; c < round_up(g.filters, P); c += L) {
    const int64_t count = std::clamp<int64_t>(g.filters - c, 0, L);
    V d[16] = {}, e[24];
    for (int64_t i = 0; i < rows; i++) {
      const float* from = dy + ((at.image * g.out_height + at.y + i) * g.out_width + at.x) * g.filters + c;
      for (int64_t j = 0; j < columns; j++, from += g.filters) d[i * 4 + j] = count == L ? load(from) : count ? load_some(from, count) : V{};
    }
    for (int j = 0; j < 4; j++) gradient_line(d + j, 4, e + j, 4);
    float* to = z + c / P * chunk + c % P;
    for (int i = 0; i < 6; i++) {
      V o[6];
      gradient_line(e + i * 4, 1, o, 1);
      for (int j = 0; j < 6; j++) store(to + (i * 6 + j) * plane, o[j]);
    }
  }
}

// dw of a block of channels and filters from its 36 sums, u[36][L][P].
void transform_block(const Weight<float>& dw, const float* u, int64_t channel, int64_t channels, int64_t filter, int64_t filters) {
  alignas(64) float gradient[L][9][L];  // [channel][position][filter]
  for (int64_t half = 0; half < P && half < filters; half += L) {
    for (int64_t r = 0; r < channels; r++) {
      V e[18], o[9];
      V d[36];
      for (int i = 0; i < 36; i++) d[i] = load(u + i * kBlock + r * P + half);
      for (int j = 0; j < 6; j++) weight_gradient_line(d + j, 6, e + j, 6);
      for (int i = 0; i < 3; i++) weight_gradient_line(e + i * 6, 1, o + i * 3, 1);
      for (int i = 0; i < 9; i++) store(gradient[r][i], o[i]);
    }
    // Written in the order in which the weight lies in memory.
    for (int64_t j = 0; j < std::min(L, filters - half); j++) {
      float* const to = dw.data + (filter + half + j) * dw.filter + channel * dw.channel;
      const auto put = [&](int64_t r, int i) { to[r * dw.channel + i / 3 * dw.tap[1] + i % 3 * dw.tap[2]] = gradient[r][i][j]; };
      if (dw.channel == 1) {
        for (int i = 0; i < 9; i++)
          for (int64_t r = 0; r < channels; r++) put(r, i);
      } else {
        for (int64_t r = 0; r < channels; r++)
          for (int i = 0; i < 9; i++) put(r, i);
      }
    }
  }
}

}  // namespace

void winograd_backward_weight(const ConvShape& s, const Weight<float>& dw, const float* dy, const float* x) {
  const Grid g{s.batch * s.input[0], s.input[1], s.input[2], s.output[1], s.output[2], s.padding[1], s.padding[2], s.channels, s.filters};
  const int64_t tiles = g.tiles(), chunks = ceil_div(g.channels, L), panels = ceil_div(g.filters, P);
  const int64_t tile_bytes = 36 * 4 * (chunks * L + panels * P), budget = int64_t(4) << 20;
  const int64_t segments = ceil_div(std::max<int64_t>(tiles, 1), std::max<int64_t>(32, budget / tile_bytes));
  const int64_t segment = ceil_div(std::max<int64_t>(tiles, 1), segments);
  const int64_t v_plane = chunks * segment * L + L, z_plane = panels * segment * P + P;
  Scratch transforms(scratch_bytes<float>({36, v_plane + z_plane}));
  float *const v = transforms.as<float>(), *const z = v + 36 * v_plane;
  static const float zeros[P] = {};
  const auto product = [&](int64_t i, int64_t chunk, int64_t panel, int64_t count, float* u, bool first) {
    tile_rows<float, true>(L, P, v + i * v_plane + chunk * segment * L, L, z + i * z_plane + panel * segment * P, count, u, P,
                           first ? zeros : u, first ? 0 : P);
  };
  const auto transform = [&](int64_t start, int64_t count) {
    parallel_for(count, 4, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        const Place at = place_of(g, start + t);
        transform_input(g, x, at, v + t * L, v_plane, segment * L);
        transform_gradient(g, dy, at, z + t * P, z_plane, segment * P);
      }
    });
  };
  const auto finish = [&](int64_t chunk, int64_t panel, const float* u) {
    transform_block(dw, u, chunk * L, std::min(L, g.channels - chunk * L), panel * P, std::min(P, g.filters - panel * P));
  };
  constexpr int64_t group = 4;  // chunks of channels that share a pass over Z
  const int64_t groups = ceil_div(chunks, group);
  if (segments == 1) {
    // All sums of a block at once: they never leave the second-level cache.
    transform(0, tiles);
    PerThread<float> sums(group * 36 * kBlock);
    parallel_for(groups * panels, 1, [&](int64_t begin, int64_t end) {
      float* const u = sums.mine();
      for (int64_t job = begin; job < end; job++) {
        const int64_t first = job / panels * group, last = std::min(chunks, first + group), panel = job % panels;
        for (int64_t i = 0; i < 36; i++)
          for (int64_t chunk = first; chunk < last; chunk++) product(i, chunk, panel, tiles, u + ((chunk - first) * 36 + i) * kBlock, true);
        for (int64_t chunk = first; chunk < last; chunk++) finish(chunk, panel, u + (chunk - first) * 36 * kBlock);
      }
    });
    return;
  }
  Scratch sums(scratch_bytes<float>({chunks, panels, 36, kBlock}));
  float* const u = sums.as<float>();
  for (int64_t start = 0; start < tiles; start += segment) {
    const int64_t count = std::min(segment, tiles - start);
    transform(start, count);
    parallel_for(36 * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const int64_t i = job / groups, first = job % groups * group, last = std::min(chunks, first + group);
        for (int64_t panel = 0; panel < panels; panel++)
          for (int64_t chunk = first; chunk < last; chunk++)
            product(i, chunk, panel, count, u + ((chunk * panels + panel) * 36 + i) * kBlock, start == 0);
      }
    });
  }
  parallel_for(chunks * panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) finish(job / panels, job % panels, u + job * 36 * kBlock);
  });
}

}  // namespace dg::conv
