// Convolution in small groups (single channels where they are fewer than a vector, or have several filters each): vectors run over the filters of
// neighbouring groups, y[f] = sum over taps and the channels c of a group of x[group of f][c] * w[tap][c][f]. Rows of x are spread first, so that lane
// f holds the channel that it needs, with zeros around them; what follows is a product of lanes, and every lane is used. The gradient of the input is
// the same with source and result exchanged.
#include <vector>

#include "convolution.h"
#include "tile.h"

namespace dg::conv {
namespace {

constexpr int64_t kRows = 8;  // result rows of a job

// One direction: result row and column positions that a tap reads in the source.
template <class T> struct Lane {
  using V = lanes_t<T>;
  static constexpr int64_t L = Lanes<T>::count;
  using Index = decltype(V{} < V{});

  const ConvShape& s;
  const bool backward;
  const int64_t *source_size, *result_size;
  const int64_t source_channels, result_channels;  // elements of a source pixel; channels of the result
  const int64_t per, group;                        // channels of a group in source and result
  const int64_t phases, step;  // of result columns: those of a phase meet the same taps; between two of them in the spread row
  const int64_t left, width;   // positions of the spread row before the source's first, and all
  const int64_t slots = s.kernel[0] * s.kernel[1], pixel = per * L, blocks = ceil_div(result_channels, L);

  Lane(const ConvShape& s, bool backward)
      : s(s), backward(backward), source_size(backward ? s.output : s.input), result_size(backward ? s.input : s.output),
        source_channels(backward ? s.filters : s.pixel), result_channels(backward ? s.channels : s.filters),
        per(backward ? s.group_filters() : s.group_channels()), group(backward ? s.group_channels() : s.group_filters()),
        phases(backward ? std::min(s.stride[2], std::max<int64_t>(s.input[2], 1)) : 1), step(backward ? 1 : s.stride[2]),
        left(backward ? ceil_div((s.kernel[2] - 1) * s.dilation[2], s.stride[2]) : s.padding[2]),
        width(s.output[2] == 0 ? 1 : backward ? (s.input[2] - 1 + s.padding[2]) / s.stride[2] + left + 1
                       : (s.output[2] - 1) * step + (s.kernel[2] - 1) * s.dilation[2] + 1) {}

  // The taps of the kernel's last axis that a phase meets, and where in the spread row they are for its first result.
  struct Tap {
    int64_t tap, offset;
  };
  std::vector<Tap> taps_of(int64_t phase) const {
    std::vector<Tap> taps;
    for (int64_t k = 0; k < s.kernel[2]; k++) {
      const int64_t reach = phase + s.padding[2] - k * s.dilation[2];
      if (!backward) taps.push_back({k, k * s.dilation[2]});
      else if (reach % s.stride[2] == 0) taps.push_back({k, reach / s.stride[2] + left});
    }
    return taps;
  }
  int64_t row_elements() const { return width * pixel; }
  // Blocks whose rows stay in the second-level cache together: a row of the source is read once for all of them.
  int64_t blocks_at_once() const { return std::clamp<int64_t>(65536 / (slots * row_elements()), 1, blocks); }

  // The channel of the source for each lane of a block, from `base` on.
  struct Spread {
    int64_t base = 0, count = 0;
    bool alike = false, near = false;  // lanes are the channels themselves; all within a vector
    std::vector<int64_t> lane;         // [c][L]
    std::vector<T> index;              // the same in the bits of shuffles
  };
  Spread spread_of(int64_t block) const {
    Spread r;
    r.base = block * L / group * per;
    r.count = std::min(L, result_channels - block * L);
    r.alike = per == 1 && group == 1;
    int64_t furthest = 0;
    for (int64_t c = 0; c < per; c++) {
      for (int64_t l = 0; l < L; l++) {
        const int64_t f = std::min(block * L + l, result_channels - 1), at = f / group * per + c - r.base;
        furthest = std::max(furthest, at);
        r.lane.push_back(at);
      }
    }
    r.near = furthest < L && r.base + L <= (backward ? s.filters : s.channels);
    for (int64_t at : r.lane) {
      std::conditional_t<sizeof(T) == 4, int32_t, int64_t> bits(at);
      r.index.emplace_back();
      std::memcpy(&r.index.back(), &bits, sizeof bits);
    }
    return r;
  }

  // A row of the source, from its first pixel, spread for neighbouring blocks: out[block][place][c][L].
  void spread(const std::vector<Spread>& spreads, int64_t first, int64_t last, const T* row, T* out) const {
    for (int64_t place = 0; place < width; place++) {
      const int64_t at = place - left;
      const T* const source_pixel = at < 0 || at >= source_size[2] ? nullptr : row + at * source_channels;
      T* to = out + place * pixel;
      for (int64_t block = first; block < last; block++, to += row_elements()) {
        const Spread& r = spreads[size_t(block)];
        if (!source_pixel) {
          for (int64_t c = 0; c < per; c++) store(to + c * L, V{});
          continue;
        }
        const T* const from = source_pixel + r.base;
        if (r.alike) {
          store(to, r.count == L ? load(from) : load_some(from, r.count));
        } else if (r.near) {
          const V v = load(from);
          for (int64_t c = 0; c < per; c++) store(to + c * L, __builtin_shuffle(v, Index(load(r.index.data() + c * L))));
        } else {
          for (int64_t i = 0; i < pixel; i++) to[i] = from[r.lane[size_t(i)]];
        }
      }
    }
  }

  // Spread rows of one image for some blocks: those that a result row needs, kept for the next one.
  class Rows {
   public:
    Rows(const Lane& lane, const std::vector<Spread>& spreads, T* memory)
        : lane_(lane), spreads_(spreads), memory_(memory), tags_(size_t(lane.slots)) {}
    void start(const T* image, int64_t first, int64_t last) {
      image_ = image, first_ = first, last_ = last;
      std::fill(tags_.begin(), tags_.end(), -1);
    }
    // The row that tap (kz, ky) of result row (z, y) reads, for the first block, or null.
    const T* at(int64_t z, int64_t y, int64_t kz, int64_t ky) {
      const ConvShape& s = lane_.s;
      const int64_t sz = tap_source(s, lane_.backward, 0, z, kz), sy = tap_source(s, lane_.backward, 1, y, ky);
      if (sz < 0 || sy < 0) return nullptr;
      const bool consecutive = s.kernel[0] == 1 && s.dilation[1] == 1;
      const int64_t slot = consecutive ? sy % s.kernel[1] : kz * s.kernel[1] + ky, row = sz * lane_.source_size[1] + sy;
      T* const out = memory_ + slot * lane_.row_elements() * lane_.blocks_at_once();
      if (tags_[size_t(slot)] != row) {
        tags_[size_t(slot)] = row;
        lane_.spread(spreads_, first_, last_, image_ + row * lane_.source_size[2] * lane_.source_channels, out);
      }
      return out;
    }

   private:
    const Lane& lane_;
    const std::vector<Spread>& spreads_;
    T* const memory_;
    std::vector<int64_t> tags_;
    const T* image_ = nullptr;
    int64_t first_ = 0, last_ = 0;
  };
  std::vector<Spread> spreads() const {
    std::vector<Spread> all;
    for (int64_t block = 0; block < blocks; block++) all.push_back(spread_of(block));
    return all;
  }
};

// R results of a row, `stride` apart: sums over the kernel's rows (null where outside), taps of a phase and the channels of a group.
template <class T, int R>
__attribute__((noinline)) void results(const Lane<T>& l, const T* const* rows, const std::vector<typename Lane<T>::Tap>& taps, const T* w,
                                       lanes_t<T> bias, int64_t x, T* y, int64_t stride, int64_t count) {
  constexpr int64_t L = Lane<T>::L;
  lanes_t<T> sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) sum[r] = bias;
  const int64_t next = l.step * l.pixel, row_weights = l.s.kernel[2] * l.pixel;
  for (int64_t k = 0; k < l.slots; k++) {
    if (!rows[k]) continue;
    for (const auto& tap : taps) {
      const T* from = rows[k] + (x * l.step + tap.offset) * l.pixel;
      const T* weight = w + k * row_weights + tap.tap * l.pixel;
      for (int64_t c = 0; c < l.per; c++, from += L, weight += L) {
        const lanes_t<T> scale = load(weight);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sum[r] += scale * load(from + r * next);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    if (count == L) store(y + r * stride, sum[r]);
    else store_some(y + r * stride, sum[r], count);
  }
}

// The weight as [block][tap][c][L], zeros behind the last lane.
template <class T> void pack(const Lane<T>& l, T* out, const Weight<const T>& w) {
  constexpr int64_t L = Lane<T>::L;
  const ConvShape& s = l.s;
  for (int64_t block = 0; block < l.blocks; block++)
    for (int64_t z = 0; z < s.kernel[0]; z++)
      for (int64_t y = 0; y < s.kernel[1]; y++)
        for (int64_t x = 0; x < s.kernel[2]; x++)
          for (int64_t c = 0; c < l.per; c++)
            for (int64_t lane = 0; lane < L; lane++) {
              const int64_t f = block * L + lane, g = f / l.group;
              const int64_t filter = l.backward ? g * l.per + c : f, channel = l.backward ? f % l.group : c;
              *out++ = f < l.result_channels ? w.data[filter * w.filter + channel * w.channel + z * w.tap[0] + y * w.tap[1] + x * w.tap[2]] : T(0);
            }
}

template <class T> void run(const Lane<T>& l, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  constexpr int64_t L = Lane<T>::L;
  const int64_t weights = l.slots * l.s.kernel[2] * l.pixel;
  Scratch packed(scratch_bytes<T>({l.blocks, weights}));
  pack(l, packed.as<T>(), w);
  const auto spreads = l.spreads();
  std::vector<std::vector<typename Lane<T>::Tap>> met_by;
  for (int64_t phase = 0; phase < l.phases; phase++) met_by.push_back(l.taps_of(phase));
  const int64_t depth = l.result_size[0], height = l.result_size[1], across = l.result_size[2], chunks = ceil_div(height, kRows);
  const int64_t source_image = l.source_size[0] * l.source_size[1] * l.source_size[2] * l.source_channels, stride = l.result_channels;
  const int64_t some = l.blocks_at_once();
  PerThread<T> memory(l.slots * l.row_elements() * some);
  parallel_for(l.s.batch * depth * chunks, 1, [&](int64_t begin, int64_t end) {
    typename Lane<T>::Rows rows(l, spreads, memory.mine());
    std::vector<const T*> first_rows(size_t(l.slots)), taps(size_t(l.slots));
    for (int64_t job = begin; job < end; job++) {
      const int64_t n = job / chunks / depth, z = job / chunks % depth, y0 = job % chunks * kRows, y1 = std::min(height, y0 + kRows);
      for (int64_t first = 0; first < l.blocks; first += some) {
        const int64_t last = std::min(l.blocks, first + some);
        rows.start(x + n * source_image, first, last);
        for (int64_t at = y0; at < y1; at++) {
          for (int64_t k = 0; k < l.slots; k++) first_rows[size_t(k)] = rows.at(z, at, k / l.s.kernel[1], k % l.s.kernel[1]);
          for (int64_t block = first; block < last; block++) {
            const int64_t count = std::min(L, l.result_channels - block * L);
            const lanes_t<T> start = f.bias ? load_some(f.bias + block * L, count) : lanes_t<T>{};
            const T* const weight = packed.as<T>() + block * weights;
            for (int64_t k = 0; k < l.slots; k++)
              taps[size_t(k)] = first_rows[size_t(k)] ? first_rows[size_t(k)] + (block - first) * l.row_elements() : nullptr;
            T* const out = y + ((n * depth + z) * height + at) * across * stride + block * L;
            for (int64_t phase = 0; phase < l.phases; phase++) {
              const int64_t columns = ceil_div(across - phase, l.phases), apart = l.phases * stride;
              const auto& met = met_by[size_t(phase)];
              int64_t i = 0;
              for (; i + 8 <= columns; i += 8) results<T, 8>(l, taps.data(), met, weight, start, i, out + phase * stride + i * apart, apart, count);
              for (; i + 2 <= columns; i += 2) results<T, 2>(l, taps.data(), met, weight, start, i, out + phase * stride + i * apart, apart, count);
              for (; i < columns; i++) results<T, 1>(l, taps.data(), met, weight, start, i, out + phase * stride + i * apart, apart, count);
            }
            if (f.scale) finish_rows(f, across, count, out, stride, block * L);
          }
        }
      }
    }
  });
}

// sum[i] += the products of a spread row from from[i] on with a row of gradients, for I taps and channels.
template <class T, int I> __attribute__((noinline)) void row_products(T* sum, const T* const* from, int64_t next, const T* g, int64_t across) {
  constexpr int64_t L = Lane<T>::L;
  lanes_t<T> acc[I];
#pragma GCC unroll 8
  for (int i = 0; i < I; i++) acc[i] = load(sum + i * L);
  for (int64_t x = 0; x < across; x++) {
    const lanes_t<T> scale = load(g + x * L);
#pragma GCC unroll 8
    for (int i = 0; i < I; i++) acc[i] += scale * load(from[i] + x * next);
  }
#pragma GCC unroll 8
  for (int i = 0; i < I; i++) store(sum + i * L, acc[i]);
}

}  // namespace

// Vectors are filled better than one group would fill them, and spread rows stay small.
bool grouped_fits(const ConvShape& s, bool backward) {
  if (s.groups == 1) return false;
  const int64_t group = backward ? s.group_channels() : s.group_filters(), per = backward ? s.group_filters() : s.group_channels();
  const int64_t wide = s.input[2] + s.output[2];
  return group < Lanes<float>::count && per <= 32 && s.taps() <= 256 && (s.kernel[2] - 1) * s.dilation[2] <= 4 * wide && s.padding[2] <= 4 * wide &&
         wide * per <= 65536 && s.output[2] * s.stride[2] <= 8 * wide;
}

template <class T> void grouped_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  run<T>(Lane<T>(s, false), y, x, w, f);
}

template <class T> void grouped_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias) {
  Finish<T> f;
  f.bias = bias;
  run<T>(Lane<T>(s, true), dx, dy, w, f);
}

template <class T> void grouped_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  constexpr int64_t L = Lane<T>::L, most = 8;
  const Lane<T> l(s, false);
  const int64_t rows = s.batch * s.output[0] * s.output[1], across = s.output[2], terms = s.kernel[2] * l.per, size = l.slots * terms * L;
  // Slices by the shape alone; their sums are added in order.
  const int64_t slices = std::clamp<int64_t>(rows * across / 256, 1, std::min<int64_t>(64, std::max<int64_t>(rows, 1)));
  const int64_t slice = ceil_div(std::max<int64_t>(rows, 1), slices);
  const int64_t image = s.input[0] * s.input[1] * s.input[2] * s.pixel;
  Scratch memory(scratch_bytes<T>({slices, l.blocks, size}));
  T* const sums = memory.as<T>();
  const int64_t some = l.blocks_at_once();
  PerThread<T> work(l.slots * l.row_elements() * some + across * L);
  const auto spreads = l.spreads();
  std::vector<int64_t> offsets;
  for (const auto& tap : l.taps_of(0))
    for (int64_t c = 0; c < l.per; c++) offsets.push_back(tap.offset * l.pixel + c * L);
  // One block: its products with the gradients g[across][L] of a result row.
  const auto multiply = [&](T* sum, const T* from, const T* g) {
    for (int64_t t = 0; t < terms; t += most) {
      const T* at[most];
      const int64_t count = std::min(most, terms - t), next = l.step * l.pixel;
      for (int64_t i = 0; i < count; i++) at[i] = from + offsets[size_t(t + i)];
      T* const to = sum + t * L;
      if (count == most) {
        row_products<T, most>(to, at, next, g, across);
        continue;
      }
      int64_t i = 0;
      for (; i + 3 <= count; i += 3) row_products<T, 3>(to + i * L, at + i, next, g, across);
      for (; i < count; i++) row_products<T, 1>(to + i * L, at + i, next, g, across);
    }
  };
  parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
    T *const spread_rows = work.mine(), *const g = spread_rows + l.slots * l.row_elements() * some;
    typename Lane<T>::Rows source(l, spreads, spread_rows);
    std::vector<const T*> taps(size_t(l.slots));
    for (int64_t job = begin; job < end; job++) {
      const int64_t start = job * slice, stop = std::min(rows, start + slice);
      T* const sum = sums + job * l.blocks * size;
      std::fill_n(sum, l.blocks * size, T(0));
      for (int64_t first = 0; first < l.blocks; first += some) {
        const int64_t last = std::min(l.blocks, first + some);
        for (int64_t row = start; row < stop; row++) {
          const int64_t y = row % s.output[1], z = row / s.output[1] % s.output[0], n = row / s.output[1] / s.output[0];
          if (row == start || (y == 0 && z == 0)) source.start(x + n * image, first, last);
          for (int64_t k = 0; k < l.slots; k++) taps[size_t(k)] = source.at(z, y, k / s.kernel[1], k % s.kernel[1]);
          for (int64_t block = first; block < last; block++) {
            const T* const from = dy + row * across * s.filters + block * L;
            for (int64_t i = 0; i < across; i++) store(g + i * L, load_some(from + i * s.filters, spreads[size_t(block)].count));
            for (int64_t k = 0; k < l.slots; k++)
              if (taps[size_t(k)]) multiply(sum + block * size + k * terms * L, taps[size_t(k)] + (block - first) * l.row_elements(), g);
          }
        }
      }
    }
  });
  for (int64_t f = 0; f < s.filters; f++) {
    const T* const from = sums + f / L * size + f % L;
    for (int64_t k = 0; k < l.slots; k++)
      for (int64_t t = 0; t < s.kernel[2]; t++)
        for (int64_t c = 0; c < l.per; c++) {
          T total = T(0);
          for (int64_t i = 0; i < slices; i++) total += from[i * l.blocks * size + (k * terms + t * l.per + c) * L];
          dw.data[f * dw.filter + c * dw.channel + k / s.kernel[1] * dw.tap[0] + k % s.kernel[1] * dw.tap[1] + t * dw.tap[2]] = total;
        }
  }
}

template void grouped_forward<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const Finish<float>&);
template void grouped_forward<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const Finish<double>&);
template void grouped_backward_input<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const float*);
template void grouped_backward_input<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const double*);
template void grouped_backward_weight<float>(const ConvShape&, const Weight<float>&, const float*, const float*);
template void grouped_backward_weight<double>(const ConvShape&, const Weight<double>&, const double*, const double*);

}  // namespace dg::conv
