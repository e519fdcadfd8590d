// 3x3 convolution by Winograd's F(4x4, 3x3), and with stride 2 in phases, of few tiles: the deep layers of a small batch, where the weights are most of
// the work. They are read once, brought into the first-level cache with filters as lanes, and transformed in registers, a row of points at a time, which
// is multiplied with all tiles of a group at once: what is transformed is never stored.
#include "convolution.h"
#include "winograd.h"

namespace dg::winograd {
namespace {

using namespace conv;

constexpr int kTogether = kTileRows >= 12 ? 4 : 2;  // tiles of a group at most
constexpr int64_t kChannels = 32;                   // whose taps, of a vector of filters, take half of the first-level cache

// Stride 1: six points an axis.
struct Plain {
  static constexpr int kSize = 6, kSources = 1, kTaps = 3;
  // The rows in the order of the passes: those that share terms are neighbours.
  static constexpr int kRows[6] = {0, 5, 1, 2, 3, 4};
  // What the rows of G lack here. It is applied to the sums.
  static constexpr float kFactor[6] = {0.25f, -1.0f / 6, -1.0f / 6, 1.0f / 24, 1.0f / 24, 1.0f};
  template <int Row> static V point(V g0, V g1, V g2) {
    if constexpr (Row == 0) return g0;
    else if constexpr (Row == 1) return (g0 + g2) + g1;
    else if constexpr (Row == 2) return (g0 + g2) - g1;
    else if constexpr (Row == 3) return (g0 + 4.0f * g2) + 2.0f * g1;
    else if constexpr (Row == 4) return (g0 + 4.0f * g2) - 2.0f * g1;
    else return g2;
  }

  // Rows of points of a pass: 6 * rows * tiles sums in registers.
  static constexpr int rows_of(int64_t tiles) { return tiles <= kTogether / 2 ? 2 : 1; }
  // A pass multiplies so many transformed positions of a tile; where a position lies in [source][row][column].
  static constexpr int64_t positions(int64_t tiles) { return rows_of(tiles) * 6; }
  static int64_t position(int64_t tiles, int64_t pass, int64_t i) { return kRows[pass * rows_of(tiles) + i / 6] * 6 + i % 6; }

  template <int T, int Pass> static inline void add(const float* taps, const float* v, V (&sum)[rows_of(T)][6][T]) {
    constexpr int R = rows_of(T);
    V e[R][3];
#pragma GCC unroll 3
    for (int x = 0; x < 3; x++) {
      const V g0 = load(taps + x * L), g1 = load(taps + (3 + x) * L), g2 = load(taps + (6 + x) * L);
      e[0][x] = point<kRows[Pass * R]>(g0, g1, g2);
      if constexpr (R == 2) e[1][x] = point<kRows[Pass * R + 1]>(g0, g1, g2);
    }
#pragma GCC unroll 2
    for (int r = 0; r < R; r++) {
      const V g0 = e[r][0], g1 = e[r][1], g2 = e[r][2];
      const V u[6] = {point<0>(g0, g1, g2), point<1>(g0, g1, g2), point<2>(g0, g1, g2),
                      point<3>(g0, g1, g2), point<4>(g0, g1, g2), point<5>(g0, g1, g2)};
#pragma GCC unroll 6
      for (int j = 0; j < 6; j++)
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) sum[r][j][t] += v[(r * 6 + j) * T + t] * u[j];
    }
  }
};

// Stride 2: five points an axis for the phase with two taps, of which the other has all but the last. Without factors a single tap is its own
// transform.
struct Strided {
  static constexpr int kSize = 5, kSources = 4, kTaps = 2;
  static constexpr int kRows[5] = {0, 1, 2, 3, 4};
  static constexpr float kFactor[5] = {0.5f, -0.5f, -1.0f / 6, 1.0f / 6, 1.0f};
  template <int Row> static V point(V g0, V g1) {
    if constexpr (Row == 0) return g0;
    else if constexpr (Row == 1) return g0 + g1;
    else if constexpr (Row == 2) return g0 - g1;
    else if constexpr (Row == 3) return g0 + 2.0f * g1;
    else return g1;
  }

  static constexpr int rows_of(int64_t) { return 1; }
  static constexpr int64_t positions(int64_t) { return 18; }
  // Five columns of the phase with two taps in the row, four of that with one; first those with two taps in the column. None: -1.
  static int64_t position(int64_t, int64_t pass, int64_t i) {
    if (i >= 9 && pass == 4) return -1;
    const int64_t source = i < 5 ? 1 : i < 9 ? 2 : i < 14 ? 0 : 3;
    return (source * 5 + pass) * 5 + (i < 5 ? i : i < 9 ? i - 5 : i < 14 ? i - 9 : i - 14);
  }

  template <int T> static inline void add_row(V g0, V g1, V g2, const float* v, V (&sum)[1][5][T]) {
    const V u[5] = {point<0>(g0, g2), point<1>(g0, g2), point<2>(g0, g2), point<3>(g0, g2), point<4>(g0, g2)};
#pragma GCC unroll 5
    for (int j = 0; j < 5; j++)
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) sum[0][j][t] += v[j * T + t] * u[j];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) sum[0][j][t] += v[(5 + j) * T + t] * g1;
  }
  template <int T, int Pass> static inline void add(const float* taps, const float* v, V (&sum)[1][5][T]) {
    V g[9];
#pragma GCC unroll 9
    for (int i = 0; i < 9; i++) g[i] = load(taps + i * L);
    add_row<T>(point<Pass>(g[0], g[6]), point<Pass>(g[1], g[7]), point<Pass>(g[2], g[8]), v, sum);
    if constexpr (Pass < 4) add_row<T>(g[3], g[4], g[5], v + 9 * T, sum);
  }
};

// Tiles in groups of nearly the same size.
struct Groups {
  int64_t tiles, count;
  explicit Groups(int64_t tiles) : tiles(tiles), count(ceil_div(tiles, kTogether)) {}
  int64_t begin(int64_t group) const { return tiles * group / count; }
  int64_t size(int64_t group) const { return begin(group + 1) - begin(group); }
};
template <class Kind> constexpr int64_t passes_of(int64_t tiles) { return Kind::kSize / Kind::rows_of(tiles); }
template <class Kind> constexpr int64_t width_of(int64_t tiles) { return round_up(Kind::positions(tiles) * tiles, L); }

// The transformed tiles of a group: v[pass][channel][position][tile], a pass and a channel in `width` elements.
template <class Kind> class Tiles {
 public:
  Tiles(const Grid& g, const Groups& groups, const float* x) : depth_(round_up(g.in.channels, L)), memory_(bytes(groups)) {
    constexpr int64_t square = Kind::kSize * Kind::kSize;
    const int64_t tiles = groups.tiles, plane = tiles * kPart + L;
    const PerThread<float> work(Kind::kSources * square * plane);
    parallel_for(ceil_div(depth_, kPart), 1, [&](int64_t begin, int64_t end) {
      float* const points = work.mine();
      for (int64_t part = begin; part < end; part++) {
        const int64_t first = part * kPart, count = std::min(kPart, depth_ - first);
        Pictures in = g.in;
        in.channels = std::min(count, g.in.channels - first);
        for (int64_t i = 0; i < tiles; i++) {
          const Place at = place_of(g, i);
          const float* const image = x + at.image * in.image() + first;
          for (int s = 0; s < Kind::kSources; s++) {
            const Phase& p = g.sources[s];
            with_taps(p, [&](auto ky, auto kx) {
              transform_input<decltype(ky)::value, decltype(kx)::value>(in, image, in.step * at.y + p.shift_y, in.step * at.x + p.shift_x,
                                                                        points + s * square * plane + i * kPart, plane, Kind::kSize, L);
            });
          }
        }
        for (int64_t group = 0; group < groups.count; group++) {
          const int64_t size = groups.size(group);
          for (int64_t pass = 0; pass < passes_of<Kind>(size); pass++)
            spread(points + groups.begin(group) * kPart, plane, pass, size, count, pass_of(group, pass, size) + first * width_of<Kind>(size));
        }
      }
    });
  }
  const float* at(int64_t group, int64_t size, int64_t channel) const { return pass_of(group, 0, size) + channel * width_of<Kind>(size); }
  int64_t pass(int64_t size) const { return depth_ * width_of<Kind>(size); }

 private:
  static constexpr int64_t kPart = 64;  // channels of a job
  static constexpr int64_t group_width() {
    int64_t most = 0;
    for (int64_t size = 1; size <= kTogether; size++) most = std::max(most, passes_of<Kind>(size) * width_of<Kind>(size));
    return most;
  }
  int64_t bytes(const Groups& groups) const { return scratch_bytes<float>({groups.count, depth_, group_width()}); }
  float* pass_of(int64_t group, int64_t pass, int64_t size) const {
    return memory_.as<float>() + group * depth_ * group_width() + pass * this->pass(size);
  }

  // Channels become rows.
  static void spread(const float* points, int64_t plane, int64_t pass, int64_t size, int64_t channels, float* to) {
    const int64_t width = width_of<Kind>(size);
    for (int64_t c = 0; c < channels; c += L)
      for (int64_t n = 0; n < width; n += L) {
        V rows[L];
        for (int64_t k = 0; k < L; k++) {
          const int64_t i = (n + k) / size, position = i < Kind::positions(size) ? Kind::position(size, pass, i) : -1;
          rows[k] = position < 0 ? V{} : load(points + position * plane + (n + k) % size * kPart + c);
        }
        transpose<float>(rows);
        for (int64_t k = 0; k < L; k++) store(to + (c + k) * width + n, rows[k]);
      }
  }

  int64_t depth_;
  Scratch memory_;
};

// Asks for the taps of `channels` and `filters`, as far as they lie in rows, in at least `turns` calls.
class Ahead {
 public:
  Ahead(const Kernel& w, const float* from, int64_t filters, int64_t channels, int64_t turns) : w_(w), at_(from) {
    const bool along = w.channel == 1;
    if (!along && w.filter != 1) return;
    step_ = along ? w.filter : w.channel, rows_ = along ? filters : channels, run_ = along ? channels : filters;
    at_once_ = ceil_div(9 * rows_, turns);
  }
  // Inlined by force, as GCC takes a call that only fetches for one without effect.
  [[gnu::always_inline]] inline void next() {
    for (int64_t i = 0; i < at_once_ && rows_ > 0; i++) {
      const float* const tap = at_ + tap_ / 3 * w_.row + tap_ % 3 * w_.column;
      for (int64_t k = 0; k < run_; k += 64 / int64_t(sizeof(float))) __builtin_prefetch(tap + k, 0, 2);
      if (++tap_ < 9) continue;
      tap_ = 0, rows_--, at_ += step_;
    }
  }

 private:
  const Kernel& w_;
  const float* at_;
  int64_t step_ = 0, rows_ = 0, run_ = 0, at_once_ = 0, tap_ = 0;
};

// taps[channel][9][L filters], zeros behind the last filter.
void read_taps(const Kernel& w, const float* from, int64_t filters, int64_t channels, float* taps) {
  for (int tap = 0; tap < 9; tap++, taps += L) {
    const float* const first = from + tap / 3 * w.row + tap % 3 * w.column;
    if (w.channel == 1 && w.filter != 1) {
      for (int64_t c = 0; c < channels; c += L) {
        const int64_t count = std::min(L, channels - c);
        const float* row = first + c;
        V rows[L];
        if (count == L && filters == L) {
#pragma GCC unroll 16
          for (int64_t j = 0; j < L; j++, row += w.filter) rows[j] = load(row);
        } else {
          for (int64_t j = 0; j < L; j++, row += w.filter) rows[j] = j < filters ? load_some(row, count) : V{};
        }
        transpose<float>(rows);
        for (int64_t k = 0; k < count; k++) store(taps + (c + k) * 9 * L, rows[k]);
      }
    } else if (w.filter == 1) {
      for (int64_t c = 0; c < channels; c++) {
        const float* const row = first + c * w.channel;
        store(taps + c * 9 * L, filters == L ? load(row) : load_some(row, filters));
      }
    } else {
      for (int64_t c = 0; c < channels; c++)
        for (int64_t j = 0; j < L; j++) taps[c * 9 * L + j] = j < filters ? first[c * w.channel + j * w.filter] : 0.0f;
    }
  }
}

// sums[row][column][T] += over `channels`: points of the weights times v[channel][position][T].
template <class Kind, int T, int Pass> void add_pass(const float* taps, const float* v, int64_t channels, float* sums, Ahead& ahead) {
  constexpr int R = Kind::rows_of(T), C = Kind::kSize;
  V sum[R][C][T] = {};
  for (int64_t c = 0; c < channels; c++, taps += 9 * L, v += width_of<Kind>(T)) {
    ahead.next();
    Kind::template add<T, Pass>(taps, v, sum);
  }
#pragma GCC unroll 2
  for (int r = 0; r < R; r++)
#pragma GCC unroll 6
    for (int j = 0; j < C; j++)
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) {
        float* const to = sums + ((r * C + j) * T + t) * L;
        store(to, load(to) + sum[r][j][t]);
      }
}

template <class Kind, int T, int... Pass>
void add_passes(const float* taps, const float* v, int64_t pass, int64_t channels, float* sums, Ahead& ahead, std::integer_sequence<int, Pass...>) {
  (add_pass<Kind, T, Pass>(taps, v + Pass * pass, channels, sums + Pass * Kind::rows_of(T) * Kind::kSize * T * L, ahead), ...);
}

// All points of a group of tiles: sums[row][column][size], rows in the order of kRows.
template <class Kind> void add_products(const float* taps, const float* v, int64_t pass, int64_t size, int64_t channels, float* sums, Ahead& ahead) {
  const auto add = [&](auto n) {
    constexpr int T = decltype(n)::value;
    add_passes<Kind, T>(taps, v, pass, channels, sums, ahead, std::make_integer_sequence<int, passes_of<Kind>(T)>{});
  };
  if (size == 1) add(std::integral_constant<int, 1>{});
  else if (size == 2) add(std::integral_constant<int, 2>{});
  if constexpr (kTogether > 2) {
    if (size == 3) add(std::integral_constant<int, 3>{});
    else if (size == 4) add(std::integral_constant<int, 4>{});
  }
}

template <class Kind> void run(const Grid& g, float* y, const float* x, const Kernel& kernel, const conv::Finish<float>& f) {
  constexpr int K = Kind::kTaps;
  constexpr int64_t size_of_axis = Kind::kSize, square = size_of_axis * size_of_axis, taps_size = kChannels * 9 * L;
  const int64_t tiles = g.tiles(), channels = g.in.channels, jobs = ceil_div(g.out.channels, L);
  const Groups groups(tiles);
  const Tiles<Kind> v(g, groups, x);
  const Phase& p = g.targets[0];
  const Kernel w{kernel.data + p.first_y * kernel.row + p.first_x * kernel.column, kernel.filter, kernel.channel, p.skip * kernel.row,
                 p.skip * kernel.column};
  int64_t turns = 0;
  for (int64_t group = 0; group < groups.count; group++) turns += passes_of<Kind>(groups.size(group));
  const int64_t sums_size = tiles * square * L;
  PerThread<float> work(taps_size + 2 * sums_size);
  parallel_for(jobs, 1, [&](int64_t begin, int64_t end) {
    float *const taps = work.mine(), *const sums = taps + taps_size, *const m = sums + sums_size;
    for (int64_t job = begin; job < end; job++) {
      const int64_t first = job * L, filters = std::min(g.out.channels - first, L);
      std::fill_n(sums, sums_size, 0.0f);
      for (int64_t c = 0; c < channels; c += kChannels) {
        const float* const from = w.data + first * w.filter + c * w.channel;
        const int64_t count = std::min(kChannels, channels - c), rest = channels - c - count;
        read_taps(w, from, filters, count, taps);
        // The next channels of these filters or the first ones of the next.
        const int64_t next_filters = rest > 0 ? filters : std::min(g.out.channels - first - filters, L);
        Ahead ahead(w, rest > 0 ? from + count * w.channel : w.data + (first + L) * w.filter, next_filters,
                    std::min(rest > 0 ? rest : channels, kChannels), turns * count);
        for (int64_t group = 0; group < groups.count; group++) {
          const int64_t size = groups.size(group);
          add_products<Kind>(taps, v.at(group, size, c), v.pass(size), size, count, sums + groups.begin(group) * square * L, ahead);
        }
      }
      for (int64_t group = 0; group < groups.count; group++) {
        const int64_t tile = groups.begin(group), size = groups.size(group);
        const float* from = sums + tile * square * L;
        for (const int row : Kind::kRows)
          for (int column = 0; column < size_of_axis; column++)
            for (int64_t t = 0; t < size; t++, from += L)
              store(m + ((row * size_of_axis + column) * tiles + tile + t) * L, load(from) * (Kind::kFactor[row] * Kind::kFactor[column]));
      }
      for (int64_t i = 0; i < tiles; i++) {
        const Place at = place_of(g, i);
        transform_output<K, K>(g.out, y + at.image * g.out.image(), at.y + p.shift_y, at.x + p.shift_x, m + i * L, tiles * L, size_of_axis,
                               f.from(first), first, first + filters);
      }
    }
  });
}

}  // namespace

void run_few_tiles(const Grid& g, float* y, const float* x, const Kernel& w, const conv::Finish<float>& f) {
  if (g.source_count == 1) run<Plain>(g, y, x, w, f);
  else run<Strided>(g, y, x, w, f);
}

}  // namespace dg::winograd
