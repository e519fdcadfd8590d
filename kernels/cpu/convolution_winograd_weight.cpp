// Gradient of the weights by Winograd's F(4x4, KxK), see convolution_winograd.cpp: for each phase dw = G^T [sum over tiles of
// (B^T d B) * (A dy A^T)] G. Every sum has one fixed order, whatever the number of threads.
#include "convolution.h"
#include "winograd.h"

namespace dg::conv {
namespace {

using namespace winograd;

constexpr int64_t kBlock = L * P;  // a vector of channels times a panel of filters
constexpr int64_t kRun = 128;      // tiles that are summed in a row: roundings grow with it, and runs are added up

// A dy A^T of one tile into panels: Z[point][panel][tile][P], here at one tile; panels are `chunk` apart.
template <int KY, int KX>
void transform_gradient(const Pictures& s, const float* dy, int64_t y0, int64_t x0, float* z, int64_t plane, int64_t chunk) {
  constexpr int H = kPoints<KY>, W = kPoints<KX>, OY = kOutputs<KY>, OX = kOutputs<KX>;
  const int64_t rows = std::min<int64_t>(OY, s.height - y0), columns = std::min<int64_t>(OX, s.width - x0), line = s.width * s.pixel;
  const float* corner = dy + (y0 * s.width + x0) * s.pixel;
  const auto pass = [&](int64_t c, auto get) {
    V e[OY * W];
    const float* p = corner;
#pragma GCC unroll 4
    for (int i = 0; i < OY; i++, p += line) {
      V d[OX];
#pragma GCC unroll 4
      for (int j = 0; j < OX; j++) d[j] = get(p + j * s.pixel, i, j);
      gradient_line<KX>(d, 1, e + i * W, 1);
    }
    float* to = z + c / P * chunk + c % P;
#pragma GCC unroll 6
    for (int j = 0; j < W; j++, to += plane) {
      V o[H];
      gradient_line<KY>(e + j, W, o, 1);
#pragma GCC unroll 6
      for (int i = 0; i < H; i++) store(to + i * (W * plane), o[i]);
    }
    corner += L;
  };
  int64_t c = 0;
  if (rows == OY && columns == OX)
    for (; c + L <= s.channels; c += L) pass(c, [](const float* p, int, int) { return load(p); });
  for (; c < s.channels; c += L) {
    const int64_t count = std::min(s.channels - c, L);
    pass(c, [&](const float* p, int i, int j) {
      if (i >= rows || j >= columns) return V{};
      return count == L ? load(p) : load_some(p, count);
    });
  }
}

// dw of a phase for a block of channels and filters from its sums, u[point][L][P].
template <int KY, int KX>
void transform_block(const Weight<float>& dw, const Grid& g, const Phase& p, const float* u, int64_t channel, int64_t channels, int64_t filter,
                     int64_t filters) {
  constexpr int H = kPoints<KY>, W = kPoints<KX>;
  V gradient[KY * KX][L];  // [tap][channel]: vectors of filters
  for (int64_t half = 0; half < P && half < filters; half += L) {
    for (int64_t r = 0; r < L; r++) {
      V e[KY * W];
      for (int j = 0; j < W; j++) {
        V d[H];
        for (int i = 0; i < H; i++) d[i] = load(u + (i * g.columns + j) * kBlock + r * P + half);
        weight_gradient_line<KY>(d, 1, e + j, W);
      }
      for (int i = 0; i < KY; i++) {
        V o[KX];
        weight_gradient_line<KX>(e + i * W, 1, o, 1);
        for (int j = 0; j < KX; j++) gradient[i * KX + j][r] = o[j];
      }
    }
    // Written in the order in which the weight lies in memory.
    float* const to = dw.data + (filter + half) * dw.filter + channel * dw.channel;
    const auto tap = [&](int t) { return to + (p.first_y + p.skip * (t / KX)) * dw.tap[1] + (p.first_x + p.skip * (t % KX)) * dw.tap[2]; };
    const int64_t count = std::min(L, filters - half);
    if (dw.channel == 1) {
      for (int t = 0; t < KY * KX; t++) {
        transpose<float>(gradient[t]);
        for (int64_t j = 0; j < count; j++) {
          if (channels == L) store(tap(t) + j * dw.filter, gradient[t][j]);
          else store_some(tap(t) + j * dw.filter, gradient[t][j], channels);
        }
      }
    } else {
      for (int64_t j = 0; j < count; j++)
        for (int64_t r = 0; r < channels; r++)
          for (int t = 0; t < KY * KX; t++) tap(t)[j * dw.filter + r * dw.channel] = gradient[t][r][j];
    }
  }
}

// The sums of all phases, channels and filters: V holds chunks of L channels, all of the first phase before those of the next.
struct Gradient {
  const Grid g;
  const Weight<float>& dw;
  const float *dy, *x;
  const int64_t points = g.points(), phase_chunks = ceil_div(g.in.channels, L), chunks = g.source_count * phase_chunks;
  const int64_t panels = ceil_div(g.out.channels, P);

  // The transforms of `count` tiles from `start` on into V[point][chunk][room][L] and Z[point][panel][room][P].
  struct Transforms {
    float *v, *z;
    int64_t room, v_plane, z_plane;
  };
  Transforms within(float* memory, int64_t room) const {
    const int64_t v_plane = chunks * room * L + L, z_plane = panels * room * P + P;
    return {memory, memory + points * v_plane, room, v_plane, z_plane};
  }
  int64_t elements(int64_t room) const { return points * (chunks * room * L + L + panels * room * P + P); }

  void transform(const Transforms& t, int64_t tile, int64_t slot) const {
    const Place at = place_of(g, tile);
    for (int s = 0; s < g.source_count; s++) {
      const Phase& p = g.sources[s];
      const int64_t y0 = g.in.step * at.y + p.shift_y, x0 = g.in.step * at.x + p.shift_x;
      float* const v = t.v + s * phase_chunks * t.room * L + slot * L;
      with_taps(p, [&](auto ky, auto kx) {
        transform_input<decltype(ky)::value, decltype(kx)::value>(g.in, x + at.image * g.in.image(), y0, x0, v, t.v_plane, g.columns, t.room * L);
      });
    }
    with_taps(g.targets[0], [&](auto ky, auto kx) {
      transform_gradient<decltype(ky)::value, decltype(kx)::value>(g.out, dy + at.image * g.out.image(), at.y, at.x, t.z + slot * P, t.z_plane,
                                                                   t.room * P);
    });
  }
  void product(const Transforms& t, int64_t point, int64_t chunk, int64_t panel, int64_t count, float* u, bool first) const {
    static const float zeros[P] = {};
    const float *const v = t.v + point * t.v_plane + chunk * t.room * L, *const z = t.z + point * t.z_plane + panel * t.room * P;
    for (int64_t start = 0; start < count; start += kRun) {
      const bool begins = first && start == 0;
      tile_rows<float, true>(L, g.out.channels - panel * P, v + start * L, L, z + start * P, std::min(kRun, count - start), u, P, begins ? zeros : u,
                             begins ? 0 : P);
    }
  }
  // The chunks that have a point.
  Range chunks_at(int64_t point) const {
    const Range phases = phases_at(g.sources, g.source_count, g, point);
    return {phases.begin * phase_chunks, phases.end * phase_chunks};
  }
  void finish(int64_t chunk, int64_t panel, const float* u) const {
    const Phase& p = g.sources[chunk / phase_chunks];
    const int64_t c = chunk % phase_chunks * L;
    with_taps(p, [&](auto ky, auto kx) {
      transform_block<decltype(ky)::value, decltype(kx)::value>(dw, g, p, u, c, std::min(L, g.in.channels - c), panel * P,
                                                                std::min(P, g.out.channels - panel * P));
    });
  }
};

// Few tiles: all are transformed; then each block of channels and filters has all its sums at once, which never leave the second-level cache.
void run_by_blocks(const Gradient& d, int64_t tiles) {
  constexpr int64_t group = 4;  // chunks of channels that share a pass over Z
  Scratch transforms(scratch_bytes<float>({d.elements(tiles)}));
  const auto t = d.within(transforms.as<float>(), tiles);
  parallel_for(tiles, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) d.transform(t, i, i);
  });
  const int64_t groups = ceil_div(d.chunks, group), sums_of_chunk = d.points * kBlock;
  PerThread<float> sums(group * sums_of_chunk);
  parallel_for(groups * d.panels, 1, [&](int64_t begin, int64_t end) {
    float* const u = sums.mine();
    for (int64_t job = begin; job < end; job++) {
      const int64_t first = job / d.panels * group, last = std::min(d.chunks, first + group), panel = job % d.panels;
      for (int64_t i = 0; i < d.points; i++) {
        const Range active = d.chunks_at(i);
        for (int64_t chunk = std::max(first, active.begin); chunk < std::min(last, active.end); chunk++)
          d.product(t, i, chunk, panel, tiles, u + (chunk - first) * sums_of_chunk + i * kBlock, true);
      }
      for (int64_t chunk = first; chunk < last; chunk++) d.finish(chunk, panel, u + (chunk - first) * sums_of_chunk);
    }
  });
}

// Many tiles and many sums: segments of tiles whose transforms fit the last-level cache; within one the products are shared out by points and
// channels.
void run_by_segments(const Gradient& d, int64_t tiles, int64_t segment) {
  constexpr int64_t group = 4;
  const int64_t groups = ceil_div(d.chunks, group), sums_of_chunk = d.points * kBlock;
  Scratch transforms(scratch_bytes<float>({d.elements(segment)})), sums(scratch_bytes<float>({d.chunks, d.panels, sums_of_chunk}));
  float* const u = sums.as<float>();
  const auto t = d.within(transforms.as<float>(), segment);
  for (int64_t start = 0; start < tiles; start += segment) {
    const int64_t count = std::min(segment, tiles - start);
    parallel_for(count, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) d.transform(t, start + i, i);
    });
    parallel_for(d.points * groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const int64_t i = job / groups, first = job % groups * group, last = std::min(d.chunks, first + group);
        const Range active = d.chunks_at(i);
        for (int64_t panel = 0; panel < d.panels; panel++)
          for (int64_t chunk = std::max(first, active.begin); chunk < std::min(last, active.end); chunk++)
            d.product(t, i, chunk, panel, count, u + ((chunk * d.panels + panel) * d.points + i) * kBlock, start == 0);
      }
    });
  }
  parallel_for(d.chunks * d.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) d.finish(job / d.panels, job % d.panels, u + job * sums_of_chunk);
  });
}

// Many tiles and few sums: a slice of the tiles is one thread's, in blocks whose transforms stay in the second-level cache with the slice's sums.
// The slices' sums are added in their order.
void run_by_slices(const Gradient& d, int64_t tiles) {
  constexpr int64_t most = 8;
  const int64_t block = std::clamp<int64_t>((int64_t(384) << 10) / (d.elements(1) * 4), 8, 64);
  const int64_t slices = std::min(most, ceil_div(tiles, block)), slice = ceil_div(tiles, slices);
  const int64_t size = d.chunks * d.panels * d.points * kBlock;
  Scratch sums(scratch_bytes<float>({slices, size}));
  PerThread<float> work(d.elements(block));
  parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
    const auto t = d.within(work.mine(), block);
    for (int64_t job = begin; job < end; job++) {
      float* const u = sums.as<float>() + job * size;
      const int64_t stop = std::min(tiles, (job + 1) * slice);
      for (int64_t start = job * slice; start < stop; start += block) {
        const int64_t count = std::min(block, stop - start);
        for (int64_t i = 0; i < count; i++) d.transform(t, start + i, i);
        for (int64_t i = 0; i < d.points; i++) {
          const Range active = d.chunks_at(i);
          for (int64_t panel = 0; panel < d.panels; panel++)
            for (int64_t chunk = active.begin; chunk < active.end; chunk++)
              d.product(t, i, chunk, panel, count, u + ((chunk * d.panels + panel) * d.points + i) * kBlock, start == job * slice);
        }
      }
    }
  });
  const int64_t used = ceil_div(tiles, slice);
  parallel_for(d.chunks * d.panels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      float* const u = sums.as<float>() + job * d.points * kBlock;
      for (int64_t other = 1; other < used; other++)
#pragma omp simd
        for (int64_t i = 0; i < d.points * kBlock; i++) u[i] += u[other * size + i];
      d.finish(job / d.panels, job % d.panels, u);
    }
  });
}

}  // namespace

void winograd_backward_weight(const ConvShape& s, const Weight<float>& dw, const float* dy, const float* x) {
  const Grid grid = forward_grid(s);
  for (int64_t group = 0; group < s.groups; group++) {
    Weight<float> part = dw;
    part.data += group * s.group_filters() * dw.filter;
    const Gradient d{grid, part, dy + group * s.group_filters(), x + group * s.group_channels()};
    const int64_t tiles = std::max<int64_t>(grid.tiles(), 1), tile_bytes = d.elements(1) * 4, budget = int64_t(4) << 20;
    const int64_t segments = ceil_div(tiles, std::max<int64_t>(32, budget / tile_bytes));
    if (segments == 1) run_by_blocks(d, grid.tiles());
    else if (d.chunks * d.panels * d.points * kBlock * 4 <= int64_t(600) << 10) run_by_slices(d, tiles);
    else run_by_segments(d, tiles, ceil_div(tiles, segments));
  }
}

}  // namespace dg::conv
