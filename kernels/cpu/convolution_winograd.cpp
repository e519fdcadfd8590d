// Convolution of 3x3 and 4x4 kernels with strides 1 and 2 by Winograd's F(4x4, KxK), 4x4 with stride 1 by F(3x3, 4x4). A stride of 2 splits picture
// and kernel into four phases with one or two taps an axis: forward, their products are summed before the output transform; the gradient of the
// input (the transposed convolution) is computed phase by phase from the same transform of dy. Multiplications for a result: 2.25 of 9 (3x3),
// 4 of 16 (4x4), 5.06 of 9 (3x3, stride 2), 6.25 of 16 (4x4, stride 2).
#include <cstring>

#include "convolution.h"
#include "winograd_cost.h"

namespace dg::conv {
namespace {

using namespace winograd;

// The taps of a phase for a panel of filters and `count` channels from c on: taps[tap][channel][P], zeros behind the last channel and filter.
// Memory is read in the order in which it lies.
void read_weights(const Kernel& w, const Phase& p, int64_t filter, int64_t filters, int64_t c, int64_t count, float (*taps)[L][P]) {
  const float* const from = w.data + filter * w.filter + c * w.channel;
  const int n = p.taps_y * p.taps_x;
  const auto tap = [&](int t) { return from + (p.first_y + p.skip * (t / p.taps_x)) * w.row + (p.first_x + p.skip * (t % p.taps_x)) * w.column; };
  if (w.channel == 1 && w.filter != 1) {
    for (int t = 0; t < n; t++) {
      const float* row = tap(t);
      for (int64_t half = 0; half < filters; half += L) {
        V rows[L];
        if (count == L && filters - half >= L) {
#pragma GCC unroll 16
          for (int64_t j = 0; j < L; j++, row += w.filter) rows[j] = load(row);
        } else {
          for (int64_t j = 0; j < L; j++, row += w.filter) rows[j] = half + j >= filters ? V{} : load_some(row, count);
        }
        transpose<float>(rows);
        for (int64_t k = 0; k < L; k++) store(&taps[t][k][half], rows[k]);
      }
    }
    return;
  }
  if (count < L)
    for (int t = 0; t < n; t++) std::memset(taps[t], 0, sizeof taps[t]);
  if (w.filter == 1) {
    for (int t = 0; t < n; t++)
      for (int64_t k = 0; k < count; k++) std::memcpy(taps[t][k], tap(t) + k * w.channel, size_t(filters) * sizeof(float));
  } else {
    for (int64_t k = 0; k < count; k++)
      for (int64_t j = 0; j < filters; j++)
        for (int t = 0; t < n; t++) taps[t][k][j] = tap(t)[j * w.filter + k * w.channel];
  }
}

// What is read together: a panel of filters, a vector of channels from c on, the taps of a phase.
struct Piece {
  const Phase* phase = nullptr;
  int64_t panel = 0, c = 0;
};

// Asks for a piece, as far as it lies in rows, in L calls. Left to itself each line waits for memory: there are far more rows than the hardware
// follows. One piece at a time, for rows that are a power of two apart share their sets of a cache.
class Fetch {
 public:
  Fetch(const Grid& g, const Kernel& w, const Piece& piece) {
    const bool along = w.channel == 1;
    if (!piece.phase || (!along && w.filter != 1)) return;
    const Phase& p = *piece.phase;
    for (int y = 0; y < p.taps_y; y++)
      for (int x = 0; x < p.taps_x; x++) taps_[count_++] = (p.first_y + p.skip * y) * w.row + (p.first_x + p.skip * x) * w.column;
    const int64_t filters = std::min(P, g.out.channels - piece.panel * P), channels = std::min(L, g.in.channels - piece.c);
    row_ = w.data + piece.panel * P * w.filter + piece.c * w.channel;
    step_ = along ? w.filter : w.channel, rows_ = along ? filters : channels, run_ = along ? channels : filters;
    at_once_ = int(ceil_div(rows_ * count_, L));
  }
  // Inlined by force, as GCC takes a call that only fetches for one without effect.
  [[gnu::always_inline]] inline void next() {
    for (int i = 0; i < at_once_ && rows_ > 0; i++) {
      for (int64_t k = 0; k < run_; k += L) __builtin_prefetch(row_ + taps_[tap_] + k, 0, 2);
      if (++tap_ < count_) continue;
      tap_ = 0, rows_--, row_ += step_;
    }
  }

 private:
  const float* row_ = nullptr;
  int64_t step_ = 0, rows_ = 0, run_ = 0, taps_[16];
  int count_ = 0, tap_ = 0, at_once_ = 0;
};

// G g G^T of a piece with the channels up to c1: U[point][channel][P], points `plane` apart. `next` is needed after this.
void transform_weights(const Grid& g, const Kernel& w, const Piece& piece, int64_t c1, float* u, int64_t plane, const Piece& next) {
  alignas(64) float taps[16][L][P] = {};
  const int64_t filters = std::min(P, g.out.channels - piece.panel * P), row = g.columns * plane;
  for (int64_t c = piece.c; c < c1; c += L) {
    read_weights(w, *piece.phase, piece.panel * P, filters, c, std::min(L, c1 - c), taps);
    Fetch fetch(g, w, c + L < c1 ? Piece{piece.phase, piece.panel, c + L} : next);
    with_taps(*piece.phase, [&](auto ky, auto kx) {
      constexpr int KY = decltype(ky)::value, KX = decltype(kx)::value, H = kPoints<KY>, W = kPoints<KX>;
      for (int64_t k = 0; k < L; k++, u += P) {
        fetch.next();
        for (int64_t half = 0; half < filters; half += L) {
          V e[H * KX];
#pragma GCC unroll 4
          for (int x = 0; x < KX; x++) {
            V d[KY];
#pragma GCC unroll 4
            for (int i = 0; i < KY; i++) d[i] = load(&taps[i * KX + x][k][half]);
            weight_line<KY>(d, 1, e + x, KX);
          }
          float* to = u + half;
#pragma GCC unroll 6
          for (int i = 0; i < H; i++, to += row) {
            V o[W];
            weight_line<KX>(e + i * KX, 1, o, 1);
#pragma GCC unroll 6
            for (int j = 0; j < W; j++) store(to + j * plane, o[j]);
          }
        }
      }
    });
  }
}

const Phase& phase_of(const Grid& g, int64_t source, int64_t target) { return g.source_count > 1 ? g.sources[source] : g.targets[target]; }

void transform_sources(const Grid& g, const float* x, int64_t tile, float* v, int64_t plane, int64_t depth) {
  const Place at = place_of(g, tile);
  for (int s = 0; s < g.source_count; s++) {
    const Phase& p = g.sources[s];
    const int64_t y0 = g.in.step * at.y + p.shift_y, x0 = g.in.step * at.x + p.shift_x;
    with_taps(p, [&](auto ky, auto kx) {
      transform_input<decltype(ky)::value, decltype(kx)::value>(g.in, x + at.image * g.in.image(), y0, x0, v + s * depth, plane, g.columns, L);
    });
  }
}

void transform_target(const Grid& g, const Phase& p, float* y, int64_t tile, const float* m, int64_t plane, const Finish<float>& f, int64_t c0,
                      int64_t c1) {
  const Place at = place_of(g, tile);
  const int64_t y0 = g.out.step * at.y + p.shift_y, x0 = g.out.step * at.x + p.shift_x;
  with_taps(p, [&](auto ky, auto kx) {
    transform_output<decltype(ky)::value, decltype(kx)::value>(g.out, y + at.image * g.out.image(), y0, x0, m, plane, g.columns, f.from(c0), c0, c1);
  });
}

// The moments of what `count` tiles have written, while it is in the second-level cache: about their mean, as batch_norm_stats takes them of a block.
// `sums` has room for three rows of filters.
void tile_moments(const Grid& g, const float* y, int64_t first, int64_t count, float* sums, int64_t width, int64_t& number, double* means,
                  float* squares) {
  float *const mean = sums, *const rest = mean + width, *const square = rest + width;
  const auto pass = [&](auto second) {
    for (int64_t tile = first; tile < first + count; tile++) {
      const Place at = place_of(g, tile);
      const int64_t height = std::min(g.tile, g.out.height - at.y), across = std::min(g.tile, g.out.width - at.x), line = g.out.width * g.out.pixel;
      const float* const corner = y + at.image * g.out.image() + at.y * line + at.x * g.out.pixel;
      for (int64_t c = 0; c < g.out.channels; c += L) {
        const int64_t lanes = std::min(L, g.out.channels - c);
        V one{}, two{};
        const V about = load(mean + c);
        const auto add = [&](V v) {
          if (second) v -= about, two += v * v;
          one += v;
        };
        const float* p = corner + c;
        if (lanes == L && height == 4 && across == 4) {
          for (int i = 0; i < 4; i++, p += line)
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) add(load(p + j * g.out.pixel));
        } else {
          for (int64_t i = 0; i < height; i++, p += line)
            for (int64_t j = 0; j < across; j++) add(lanes == L ? load(p + j * g.out.pixel) : load_some(p + j * g.out.pixel, lanes));
        }
        if (second) {
          store(rest + c, load(rest + c) + one);
          store(square + c, load(square + c) + two);
        } else {
          store(mean + c, about + one);
        }
      }
    }
  };
  number = 0;
  for (int64_t tile = first; tile < first + count; tile++) {
    const Place at = place_of(g, tile);
    number += std::min(g.tile, g.out.height - at.y) * std::min(g.tile, g.out.width - at.x);
  }
  const float n = float(number);
  std::fill_n(sums, 3 * width, 0.0f);
  pass(std::false_type{});
  for (int64_t c = 0; c < g.out.channels; c++) mean[c] /= n;
  pass(std::true_type{});
  for (int64_t c = 0; c < g.out.channels; c++) {
    means[c] = double(mean[c]) + double(rest[c] / n);
    squares[c] = std::max(0.0f, square[c] - rest[c] * rest[c] / n);
  }
}

const float zeros[P] = {};

// Many tiles: all weights are transformed first, then blocks of tiles pass through everything.
void run_by_tiles(const Grid& g, float* y, const float* x, const Kernel& w, const Finish<float>& f, const JobMoments* moments) {
  const int64_t tiles = g.tiles(), points = g.points(), panels = ceil_div(g.out.channels, P), channels = round_up(g.in.channels, L);
  const int64_t depth = g.source_count * channels, u_plane = g.target_count * panels * depth * P + 2 * P;
  Scratch memory(scratch_bytes<float>({points, u_plane}));
  float* const u = memory.as<float>();
  constexpr int64_t some = 64;  // channels
  const int64_t parts = ceil_div(g.in.channels, some);
  parallel_for(g.source_count * g.target_count * panels * parts, 1, [&](int64_t begin, int64_t end) {
    const auto source_of = [&](int64_t job) { return job / parts / panels % g.source_count; };
    const auto target_of = [&](int64_t job) { return job / parts / panels / g.source_count; };
    const auto piece_of = [&](int64_t job) {
      return job < end ? Piece{&phase_of(g, source_of(job), target_of(job)), job / parts % panels, job % parts * some} : Piece{};
    };
    for (int64_t job = begin; job < end; job++) {
      const Piece piece = piece_of(job);
      float* const to = u + ((target_of(job) * panels + piece.panel) * depth + source_of(job) * channels + piece.c) * P;
      transform_weights(g, w, piece, std::min(g.in.channels, piece.c + some), to, u_plane, piece_of(job + 1));
    }
  });
  const int64_t m_row = panels * P, block = block_of(g);
  const int64_t v_plane = block * depth + L, m_plane = block * m_row + L;
  PerThread<float> work(points * (v_plane + m_plane) + (moments ? 3 * m_row : 0));
  parallel_for(ceil_div(tiles, block), 1, [&](int64_t begin, int64_t end) {
    float *const v = work.mine(), *const m = v + points * v_plane;
    for (int64_t job = begin; job < end; job++) {
      const int64_t first = job * block, count = std::min(block, tiles - first);
      for (int64_t i = 0; i < count; i++) transform_sources(g, x, first + i, v + i * depth, v_plane, channels);
      for (int64_t target = 0; target < g.target_count; target++) {
        const Phase& phase = g.targets[target];
        for (int64_t i = 0; i < points; i++) {
          if (!phase.at(i / g.columns, i % g.columns)) continue;
          const Range sources = phases_at(g.sources, g.source_count, g, i);
          for (int64_t panel = 0; panel < panels; panel++) {
            tile_rows<float, false>(count, g.out.channels - panel * P, v + i * v_plane + sources.begin * channels, depth,
                                    u + i * u_plane + ((target * panels + panel) * depth + sources.begin * channels) * P,
                                    (sources.end - sources.begin) * channels, m + i * m_plane + panel * P, m_row, zeros, 0);
          }
        }
        for (int64_t i = 0; i < count; i++) transform_target(g, phase, y, first + i, m + i * m_row, m_plane, f, 0, g.out.channels);
      }
      if (!moments) continue;
      const int64_t at = job * g.out.channels;
      tile_moments(g, y, first, count, m + points * m_plane, m_row, moments->counts[job], moments->means + at, moments->squares + at);
    }
  });
}

// Few tiles and many channels: the transformed weights would be far larger than the caches, so one or two panels of filters at a time transform
// their own, some channels at a time, and multiply all tiles by them.
void run_by_filters(const Grid& g, float* y, const float* x, const Kernel& w, const Finish<float>& f) {
  const int64_t tiles = g.tiles(), points = g.points(), panels = ceil_div(g.out.channels, P), channels = round_up(g.in.channels, L);
  const int64_t depth = g.source_count * channels, v_plane = tiles * depth + L;
  const int64_t width = panels * g.target_count >= 16 && tiles <= 64 ? 2 : 1, jobs = ceil_div(panels, width);
  const int64_t some = 128 / width;  // channels: their transformed weights are half of the second-level cache
  const int64_t u_panel = some * P, u_plane = width * u_panel + L, m_row = width * P, m_plane = tiles * m_row + L;
  Scratch memory(scratch_bytes<float>({points, v_plane}));
  float* const v = memory.as<float>();
  parallel_for(tiles, 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) transform_sources(g, x, i, v + i * depth, v_plane, channels);
  });
  const int64_t chunks = ceil_div(channels, some), steps = g.source_count * chunks;
  PerThread<float> work(points * (u_plane + m_plane));
  parallel_for(g.target_count * jobs, 1, [&](int64_t begin, int64_t end) {
    float *const u = work.mine(), *const m = u + points * u_plane;
    for (int64_t job = begin; job < end; job++) {
      const int64_t target = job / jobs, first = job % jobs * width, last = std::min(panels, first + width);
      for (int64_t step = 0; step < steps; step++) {
        const int64_t source = step / chunks, c = step % chunks * some, count = std::min(some, channels - c);
        const int64_t next = job * steps + step + 1;
        const Phase& phase = phase_of(g, source, target);
        for (int64_t panel = first; panel < last; panel++) {
          Piece then;
          if (panel + 1 < last) then = {&phase, panel + 1, c};
          else if (next < end * steps) then = {&phase_of(g, next % steps / chunks, next / steps / jobs), next / steps % jobs * width, next % chunks * some};
          transform_weights(g, w, {&phase, panel, c}, std::min(g.in.channels, c + some), u + (panel - first) * u_panel, u_plane, then);
        }
        for (int64_t i = 0; i < points; i++) {
          if (!phase.at(i / g.columns, i % g.columns)) continue;
          const bool begins = c == 0 && source == phases_at(g.sources, g.source_count, g, i).begin;
          for (int64_t panel = 0; panel < last - first; panel++) {
            float* const to = m + i * m_plane + panel * P;
            tile_rows<float, false>(tiles, g.out.channels - (first + panel) * P, v + i * v_plane + source * channels + c, depth,
                                    u + i * u_plane + panel * u_panel, count, to, m_row, begins ? zeros : to, begins ? 0 : m_row);
          }
        }
      }
      for (int64_t i = 0; i < tiles; i++)
        transform_target(g, g.targets[target], y, i, m + i * m_row, m_plane, f, first * P, std::min(g.out.channels, last * P));
    }
  });
}

void convolve(const Grid& g, float* y, const float* x, const Kernel& w, Finish<float> f, const JobMoments* moments = nullptr) {
  const int64_t width = round_up(g.out.channels, P);
  Scratch padded(scratch_bytes<float>({width}));
  std::fill_n(padded.as<float>(), width, 0.0f);
  if (f.bias) std::copy_n(f.bias, g.out.channels, padded.as<float>());
  f.bias = padded.as<float>();
  if (few_tiles(g)) run_few_tiles(g, y, x, w, f);
  else if (by_filters(g)) run_by_filters(g, y, x, w, f);
  else run_by_tiles(g, y, x, w, f, moments);
}

bool winograd_fits(const ConvShape& s) {
  if (s.kernel[0] != 1 || s.stride[0] != 1 || s.padding[0] != 0 || s.input[0] != s.output[0]) return false;
  const int64_t stride = s.stride[1];
  if (s.stride[2] != stride || s.dilation[1] != 1 || s.dilation[2] != 1) return false;
  if (stride > 2 || s.kernel[1] < 3 || s.kernel[1] > 4 || s.kernel[2] < 3 || s.kernel[2] > 4) return false;
  if (stride == 1 && s.kernel[1] != s.kernel[2]) return false;
  return s.group_channels() >= 16 && s.group_filters() >= 16;
}

}  // namespace

bool winograd_chosen(const ConvShape& s, Pass pass) {
  const Winograd mode = winograd_mode();
  return mode != Winograd::never && winograd_fits(s) && (mode == Winograd::where_possible || winograd_faster(s, pass));
}

int64_t winograd_moment_jobs(const ConvShape& s) {
  const Grid g = forward_grid(s);
  return s.groups > 1 || few_tiles(g) || by_filters(g) ? 0 : ceil_div(g.tiles(), block_of(g));
}

void winograd_forward(const ConvShape& s, float* y, const float* x, const Weight<const float>& w, const Finish<float>& f,
                      const JobMoments* moments) {
  const Grid grid = forward_grid(s);
  const int64_t channels = s.group_channels(), filters = s.group_filters();
  for (int64_t group = 0; group < s.groups; group++) {
    const Kernel kernel{w.data + group * filters * w.filter, w.filter, w.channel, w.tap[1], w.tap[2]};
    convolve(grid, y + group * filters, x + group * channels, kernel, f.from(group * filters), moments);
  }
}

void winograd_backward_input(const ConvShape& s, float* dx, const float* dy, const Weight<const float>& w, const float* bias) {
  const int64_t channels = s.group_channels(), filters = s.group_filters();
  Finish<float> f;
  f.bias = bias;
  each_backward_grid(s, [&](const Grid& grid) {
    for (int64_t group = 0; group < s.groups; group++) {
      const Kernel kernel{w.data + group * filters * w.filter, w.channel, w.filter, w.tap[1], w.tap[2]};
      convolve(grid, dx + group * channels, dy + group * filters, kernel, f.from(group * channels));
    }
  });
}

}  // namespace dg::conv
