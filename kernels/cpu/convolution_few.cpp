// Convolution with few output positions: the deep layers of a small batch. What a call costs there is reading the weight, so it is read once, where
// it lies: a filter is a row of w[filters][depth], depth = taps * channels, and a[positions][depth] are the gathered positions.
//   forward            y = a * w^T        dot products with vectors along the depth
//   gradient of input  columns = dy * w   rows of w, scaled and added; each pixel then adds up what belongs to it
//   gradient of weight dw = dy^T * a      written in place
// Taps that fall outside the picture at every position are left out.
#include <vector>

#include "convolution.h"
#include "tile.h"

namespace dg::conv {
namespace {

// Registers of a tile of dot products: rows * kFilters sums, a vector of each filter, one of the positions.
constexpr int kFilters = 4, kPositions = kTileRows >= 12 ? 4 : 2;
constexpr int64_t kDots = 512;  // terms of a pass of dot products: the weights stay in the first-level cache for all positions

// Registers of a tile of scaled rows.
constexpr int kHeight = 6, kVectors = kTileRows >= 12 ? 4 : 2;

// Elements of the depth in a job, and filters in a pass of the gradient of the input: what all positions pass over stays in the caches, though rows
// that are a power of two apart share their sets.
int64_t span_of(int64_t positions) { return positions > 32 ? 256 : 512; }
int64_t filters_of(int64_t positions) { return positions > 32 ? 32 : 16; }

// A stretch of a filter: where it begins in w and in a.
struct Stretch {
  int64_t weight, rows, length;
};

struct Tap {
  int64_t at[3];
};

// Taps that meet the picture at some position, in the order of the weight.
struct Taps {
  std::vector<Tap> live;
  std::vector<Stretch> stretches, gaps;

  explicit Taps(const ConvShape& s) {
    std::vector<bool> meets[3];
    for (int i = 0; i < 3; i++) {
      for (int64_t k = 0; k < s.kernel[i]; k++) {
        bool met = false;
        for (int64_t o = 0; o < s.output[i] && !met; o++) {
          const int64_t from = o * s.stride[i] - s.padding[i] + k * s.dilation[i];
          met = from >= 0 && from < s.input[i];
        }
        meets[i].push_back(met);
      }
    }
    int64_t weight = 0;
    for (int64_t z = 0; z < s.kernel[0]; z++)
      for (int64_t y = 0; y < s.kernel[1]; y++)
        for (int64_t x = 0; x < s.kernel[2]; x++, weight += s.channels) {
          const bool met = meets[0][size_t(z)] && meets[1][size_t(y)] && meets[2][size_t(x)];
          append(met ? stretches : gaps, weight, int64_t(live.size()) * s.channels, s.channels);
          if (met) live.push_back({{z, y, x}});
        }
  }

  int64_t depth(const ConvShape& s) const { return int64_t(live.size()) * s.channels; }

  // The stretches in pieces of at most `length`.
  std::vector<Stretch> pieces(int64_t length) const {
    std::vector<Stretch> cut;
    for (const Stretch& part : stretches) {
      const int64_t step = round_up(ceil_div(part.length, ceil_div(part.length, length)), 16);
      for (int64_t k = 0; k < part.length; k += step) cut.push_back({part.weight + k, part.rows + k, std::min(step, part.length - k)});
    }
    return cut;
  }

 private:
  static void append(std::vector<Stretch>& to, int64_t weight, int64_t rows, int64_t length) {
    if (!to.empty() && to.back().weight + to.back().length == weight) to.back().length += length;
    else to.push_back({weight, rows, length});
  }
};

// a[position][live tap][channel], or x itself.
template <class T> class Rows {
 public:
  Rows(const ConvShape& s, const Taps& taps, const T* x)
      : step(pointwise(s) ? s.pixel : round_up(taps.depth(s), 16) + 16),  // no power of two: rows would share the sets of a cache
        memory_(scratch_bytes<T>({pointwise(s) ? 1 : s.output_pixels(), step})),
        data(pointwise(s) ? x : memory_.template as<T>()) {
    if (pointwise(s)) return;
    T* const to = memory_.template as<T>();
    const int64_t count = int64_t(taps.live.size());
    parallel_for(s.output_pixels() * count, std::max<int64_t>(1, kGrain / s.channels), [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const Tap& tap = taps.live[size_t(job % count)];
        int64_t rest = job / count, from = 0, at[3];
        bool inside = true;
        for (int i = 2; i >= 0; i--) {
          at[i] = rest % s.output[i] * s.stride[i] - s.padding[i] + tap.at[i] * s.dilation[i];
          inside &= at[i] >= 0 && at[i] < s.input[i];
          rest /= s.output[i];
        }
        for (int i = 0; i < 3; i++) from = (i == 0 ? rest * s.input[0] : from * s.input[i]) + at[i];
        T* const out = to + job / count * step + job % count * s.channels;
        if (inside) std::copy_n(x + from * s.pixel, s.channels, out);
        else std::fill_n(out, s.channels, T(0));
      }
    });
  }

  int64_t step;

 private:
  Scratch memory_;

 public:
  const T* data;
};

// total[R][kFilters] += a[R][length] * w[kFilters][length]^T; of the filters `valid` are there. `next` is needed after this.
template <class T, int R, int Ahead>
void dots(const T* a, int64_t lda, const T* w, int64_t ldw, int64_t valid, int64_t length, T* total, const T* next) {
  constexpr int L = Lanes<T>::count, J = kFilters, sums = (R * J + L - 1) / L * L;
  const T* row[J];
  for (int j = 0; j < J; j++) row[j] = w + std::min<int64_t>(j, valid - 1) * ldw;
  const int64_t whole = length / L * L;
  lanes_t<T> sum[sums] = {};
  {
    lanes_t<T> s[R][J] = {};  // not reached by reference, so that they are registers
    for (int64_t k = 0; k < whole; k += L) {
      lanes_t<T> filter[J];
#pragma GCC unroll 4
      for (int j = 0; j < J; j++) {
        filter[j] = load(row[j] + k);
        keep(filter[j]);
        if (j < Ahead) __builtin_prefetch(next + j * ldw + k);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        lanes_t<T> position = load(a + r * lda + k);
        keep(position);
#pragma GCC unroll 4
        for (int j = 0; j < J; j++) s[r][j] += position * filter[j];
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int j = 0; j < J; j++) sum[r * J + j] = s[r][j];
  }
  for (int r = 0; r < R && whole < length; r++) {
    const lanes_t<T> position = load_some(a + r * lda + whole, length - whole);
    for (int j = 0; j < J; j++) sum[r * J + j] += position * load_some(row[j] + whole, length - whole);
  }
#pragma GCC unroll 16
  for (int i = 0; i < sums; i += L) {
    const lanes_t<T> added = lane_sums<T>(sum + i);
    if (i + L <= R * J) store(total + i, load(total + i) + added);
    else store_some(total + i, load_some(total + i, R * J - i) + added, R * J - i);
  }
}

template <class T> using Dots = void (*)(const T*, int64_t, const T*, int64_t, int64_t, int64_t, T*, const T*);
template <class T, int Ahead, int... R> constexpr auto dots_of(std::integer_sequence<int, R...>) {
  return std::array<Dots<T>, sizeof...(R)>{dots<T, R + 1, Ahead>...};
}

// c[R][V vectors] = (add ? c : 0) + sum over p < depth of a[r][p] * b[p]; a is stored [depth][rows] if Transposed. With one vector, `count` elements.
// `ahead` elements behind b[p] is what will be needed: fetched where the bits of p in `every` are `turn`.
template <class T, int R, int V, bool Transposed>
void scaled(const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c, int64_t ldc, bool add, int64_t count, int64_t ahead,
            int64_t every, int64_t turn) {
  constexpr int L = Lanes<T>::count;
  const bool part = V == 1 && count < L;
  lanes_t<T> sum[R][V] = {};
  if (add) {
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) sum[r][v] = part ? load_some(c + r * ldc, count) : load(c + r * ldc + v * L);
  }
  if (!add) {  // c comes into the cache meanwhile
#pragma GCC unroll 6
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) __builtin_prefetch(c + r * ldc + v * L, 1);
  }
  const auto run = [&](auto get) {
    for (int64_t p = 0; p < depth; p++) {
      lanes_t<T> row[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) row[v] = get(b + p * ldb + v * L);
#pragma GCC unroll 6
      for (int r = 0; r < R; r++) {
        const T scale = Transposed ? a[p * lda + r] : a[r * lda + p];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sum[r][v] += scale * row[v];
      }
      if (ahead && (p & every) == turn) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) __builtin_prefetch(b + p * ldb + v * L + ahead);
      }
    }
  };
  if (part) run([&](const T* p) { return load_some(p, count); });
  else run([](const T* p) { return load(p); });
#pragma GCC unroll 6
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < V; v++) {
      if (part) store_some(c + r * ldc, sum[r][v], count);
      else store(c + r * ldc + v * L, sum[r][v]);
    }
}

template <class T> using Scaled = void (*)(const T*, int64_t, const T*, int64_t, int64_t, T*, int64_t, bool, int64_t, int64_t, int64_t, int64_t);
template <class T, int V, bool Transposed, int... R> constexpr auto scaled_of(std::integer_sequence<int, R...>) {
  return std::array<Scaled<T>, sizeof...(R)>{scaled<T, R + 1, V, Transposed>...};
}

// The same for any number of rows and columns, whose tiles share the fetching by turns. `ahead`: the row of b that far behind is needed soon.
template <class T, bool Transposed>
void scaled_rows(int64_t rows, int64_t columns, const T* a, int64_t lda, const T* b, int64_t ldb, int64_t depth, T* c, int64_t ldc, bool add,
                 int64_t ahead) {
  static constexpr auto wide = scaled_of<T, kVectors, Transposed>(std::make_integer_sequence<int, kHeight>{});
  static constexpr auto narrow = scaled_of<T, 1, Transposed>(std::make_integer_sequence<int, kHeight>{});
  constexpr int64_t L = Lanes<T>::count;
  int64_t tiles = ceil_div(rows, kHeight), turn = 0;
  const int64_t every = tiles >= 4 ? 3 : tiles >= 2 ? 1 : 0;
  for (int64_t r = 0; r < rows; tiles--, turn++) {
    const int64_t height = ceil_div(rows - r, tiles), here = turn <= every ? ahead : 0;
    const T* const factors = a + (Transposed ? r : r * lda);
    T* const out = c + r * ldc;
    int64_t k = 0;
    for (; k + kVectors * L <= columns; k += kVectors * L)
      wide[size_t(height - 1)](factors, lda, b + k, ldb, depth, out + k, ldc, add, 0, here, every, turn);
    for (; k < columns; k += L)
      narrow[size_t(height - 1)](factors, lda, b + k, ldb, depth, out + k, ldc, add, columns - k, here, every, turn);
    r += height;
  }
}

// The filters as rows [taps][channels]: where they lie, or in memory of their own if their order is another. finish() brings a gradient from there.
template <class T> class Filters {
  using Value = std::remove_const_t<T>;

 public:
  Filters(const ConvShape& s, const Weight<T>& w)
      : step(in_rows(s, w) ? w.filter : s.taps() * s.channels),
        s_(s),
        w_(w),
        memory_(scratch_bytes<T>({in_rows(s, w) ? 1 : s.filters, step})),
        data(in_rows(s, w) ? w.data : memory_.template as<Value>()) {
    if constexpr (std::is_const_v<T>) each([](const Value& from, Value& row) { row = from; });
  }
  void finish() const {
    each([](Value& to, const Value& row) { to = row; });
  }

  int64_t step;

 private:
  static bool in_rows(const ConvShape& s, const Weight<T>& w) {
    int64_t pixel = s.channels;
    for (int i = 2; i >= 0; i--) {
      if (s.kernel[i] > 1 && w.tap[i] != pixel) return false;
      pixel *= s.kernel[i];
    }
    return w.channel == 1 && w.filter >= pixel;
  }

  // Calls f(element of the weight, element of its row).
  template <class F> void each(F&& f) const {
    if (data == w_.data) return;
    Value* const rows = memory_.template as<Value>();
    parallel_for(s_.filters, std::max<int64_t>(1, kGrain / step), [&](int64_t begin, int64_t end) {
      Value* row = rows + begin * step;
      for (int64_t filter = begin; filter < end; filter++)
        for (int64_t z = 0; z < s_.kernel[0]; z++)
          for (int64_t y = 0; y < s_.kernel[1]; y++)
            for (int64_t x = 0; x < s_.kernel[2]; x++) {
              T* const from = w_.data + filter * w_.filter + z * w_.tap[0] + y * w_.tap[1] + x * w_.tap[2];
              for (int64_t c = 0; c < s_.channels; c++) f(from[c * w_.channel], *row++);
            }
    });
  }

  const ConvShape& s_;
  const Weight<T>& w_;
  Scratch memory_;

 public:
  T* data;
};

}  // namespace

// The limits are where the other algorithms overtake: Winograd's at about 40 positions, with a stride at 60 or, where they need more products (3x3), at
// 80; where they have few tiles, when these are filled to a half or so; and products of packed weights later the longer the sums are, for each tile of
// dot products ends in sums over lanes.
int64_t winograd_overtakes(const ConvShape& s, Pass pass) {
  const int64_t stride = s.stride[2], usual = stride == 1 ? 40 : s.taps() == 9 ? 81 : 60;
  if (s.taps() != 9 || pass == Pass::weight || (stride == 2 && pass == Pass::input)) return usual;
  const int64_t tiles = s.batch * s.input[0] * ceil_div(s.output[1], 4) * ceil_div(s.output[2], 4);
  return std::min(usual, stride == 1 ? 9 + 9 * tiles / 2 : 6 + 7 * tiles);
}

template <class T> bool few_fits(const ConvShape& s, Pass pass) {
  constexpr int64_t narrow = 32, most = 256, most_taps = 4096;
  const int64_t positions = s.output_pixels();
  if (s.groups > 1 || s.channels < narrow || s.filters < narrow || positions < 1 || positions > most || s.taps() > most_taps) return false;
  if (pass != Pass::weight && positions * 4 > s.taps() * s.channels) return false;
  if (sizeof(T) > sizeof(float) || !winograd_chosen(s, pass)) return true;
  return winograd_mode() != Winograd::where_possible && positions <= winograd_overtakes(s, pass);
}

template <class T> void few_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  constexpr auto rows = std::make_integer_sequence<int, kPositions>{};
  static constexpr std::array<std::array<Dots<T>, kPositions>, 5> tile = {dots_of<T, 0>(rows), dots_of<T, 1>(rows), dots_of<T, 2>(rows), {},
                                                                                  dots_of<T, 4>(rows)};
  const int64_t positions = s.output_pixels(), tiles = ceil_div(positions, kPositions), blocks = ceil_div(s.filters, kFilters);
  const Taps taps(s);
  const Rows<T> a(s, taps, x);
  const Filters<const T> filters(s, w);
  const std::vector<Stretch> pieces = taps.pieces(kDots);
  const int64_t ahead = tiles == 1 ? 4 : tiles < 4 ? 2 : 1;  // filters of the next piece that a tile fetches: memory and products overlap
  PerThread<T> totals(tiles * kPositions * kFilters);
  // Threads write lines of y of their own where there are filters enough.
  parallel_for(blocks, std::clamp<int64_t>(blocks / 16, 1, 64 / kFilters), [&](int64_t begin, int64_t end) {
    T* const total = totals.mine();
    for (int64_t block = begin; block < end; block++) {
      const int64_t filter = block * kFilters, valid = std::min<int64_t>(kFilters, s.filters - filter);
      const T* const from = filters.data + filter * filters.step;
      std::fill_n(total, tiles * kPositions * kFilters, T(0));
      for (size_t i = 0; i < pieces.size(); i++) {
        const Stretch& piece = pieces[i];
        const T* const next =
            i + 1 < pieces.size() ? from + pieces[i + 1].weight : from + kFilters * filters.step + pieces[0].weight;
        for (int64_t t = 0; t < tiles; t++) {
          const int64_t first = t * kPositions, count = std::min<int64_t>(kPositions, positions - first);
          const Dots<T> sums = tile[size_t(t * ahead < kFilters ? ahead : 0)][size_t(count - 1)];
          sums(a.data + first * a.step + piece.rows, a.step, from + piece.weight, filters.step, valid, piece.length, total + first * kFilters,
               next + t * ahead * filters.step);
        }
      }
      T bias[kFilters] = {};
      if (f.bias) std::copy_n(f.bias + filter, valid, bias);
      T* out = y + filter;
      for (int64_t r = 0; r < positions; r++, out += s.filters) {
        T sum[kFilters];  // apart from y, so that it is a vector
        for (int j = 0; j < kFilters; j++) sum[j] = total[r * kFilters + j] + bias[j];
        if (valid == kFilters) std::copy_n(sum, kFilters, out);
        else std::copy_n(sum, valid, out);
      }
    }
  });
  // Not by blocks of filters, whose rows may lie a power of two apart.
  parallel_for(f.scale ? positions : 0, std::max<int64_t>(1, kGrain / s.filters), [&](int64_t begin, int64_t end) {
    finish_rows(f, end - begin, s.filters, y + begin * s.filters, s.filters, 0);
  });
}

template <class T> void few_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  const int64_t positions = s.output_pixels();
  const Taps taps(s);
  const Rows<T> a(s, taps, x);
  const Filters<T> filters(s, dw);
  const std::vector<Stretch> pieces = taps.pieces(span_of(positions));
  constexpr int64_t part = 4 * kHeight;
  const int64_t parts = ceil_div(s.filters, part), count = int64_t(pieces.size());
  parallel_for(count * parts, std::max<int64_t>(1, kGrain / (span_of(positions) * part)), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const Stretch& piece = pieces[size_t(job % count)];
      const int64_t filter = job / count * part;
      scaled_rows<T, true>(std::min(part, s.filters - filter), piece.length, dy + filter, s.filters, a.data + piece.rows, a.step, positions,
                           filters.data + filter * filters.step + piece.weight, filters.step, false, 0);
    }
  });
  parallel_for(taps.gaps.empty() ? 0 : s.filters, std::max<int64_t>(1, kGrain / (s.taps() * s.channels)), [&](int64_t begin, int64_t end) {
    for (int64_t filter = begin; filter < end; filter++)
      for (const Stretch& gap : taps.gaps) std::fill_n(filters.data + filter * filters.step + gap.weight, gap.length, T(0));
  });
  filters.finish();
}

template <class T> void few_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias) {
  const int64_t positions = s.output_pixels(), pixels = s.input_pixels(), pass = filters_of(positions);
  const Taps taps(s);
  const bool in_place = pointwise(s);
  const int64_t step = in_place ? s.channels : round_up(taps.depth(s), 16) + 16;
  const Filters<const T> filters(s, w);
  Scratch memory(scratch_bytes<T>({in_place ? 1 : positions, step}));
  T* const columns = in_place ? dx : memory.as<T>();
  // Jobs enough for several threads.
  const std::vector<Stretch> pieces = taps.pieces(std::clamp(round_up(taps.depth(s) / 16, 64), int64_t(64), span_of(positions)));
  parallel_for(int64_t(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const Stretch& piece = pieces[size_t(job)];
      T* const out = columns + piece.rows;
      for (int64_t r = 0; in_place && bias && r < positions; r++) std::copy_n(bias + piece.rows, piece.length, out + r * step);
      for (int64_t filter = 0; filter < s.filters; filter += pass)
        scaled_rows<T, false>(positions, piece.length, dy + filter, s.filters, filters.data + filter * filters.step + piece.weight, filters.step,
                              std::min(pass, s.filters - filter), out, step, filter > 0 || (in_place && bias), pass * filters.step);
    }
  });
  if (in_place) return;
  const int64_t live = int64_t(taps.live.size());
  parallel_for(pixels, std::max<int64_t>(1, kGrain / (s.channels * std::max<int64_t>(live, 1))), [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin; pixel < end; pixel++) {
      T* const out = dx + pixel * s.channels;
      if (bias) std::copy_n(bias, s.channels, out);
      else std::fill_n(out, s.channels, T(0));
      int64_t at[3], sample = pixel;
      for (int i = 2; i >= 0; i--) {
        at[i] = sample % s.input[i];
        sample /= s.input[i];
      }
      for (int64_t t = 0; t < live; t++) {
        int64_t position = sample;
        bool met = true;
        for (int i = 0; i < 3; i++) {
          const int64_t reach = at[i] + s.padding[i] - taps.live[size_t(t)].at[i] * s.dilation[i], o = reach / s.stride[i];
          met &= reach >= 0 && o * s.stride[i] == reach && o < s.output[i];
          position = position * s.output[i] + o;
        }
        if (!met) continue;
        const T* const from = columns + position * step + t * s.channels;
#pragma omp simd
        for (int64_t c = 0; c < s.channels; c++) out[c] += from[c];
      }
    }
  });
}

#define DG_FEW(T)                                                                                                            \
  template bool few_fits<T>(const ConvShape&, Pass);                                                                         \
  template void few_forward<T>(const ConvShape&, T*, const T*, const Weight<const T>&, const Finish<T>&);                           \
  template void few_backward_input<T>(const ConvShape&, T*, const T*, const Weight<const T>&, const T*);                     \
  template void few_backward_weight<T>(const ConvShape&, const Weight<T>&, const T*, const T*);
DG_FEW(float)
DG_FEW(double)
#undef DG_FEW

}  // namespace dg::conv
