// What the passes of batch normalisation share: layouts, blocks of them, and per-channel values spread over columns.
#pragma once
#include "../common/batch_norm.h"

#include "allocator.h"
#include "elementwise.h"

namespace dg::batch_norm {

inline constexpr int64_t kBlock = 16384;   // elements of a block: twice through it stays in the cache
inline constexpr int64_t kColumns = 1024;  // columns of a block at most

// Short rows are taken `group` at a time, as rows of `width` = group * C columns.
struct Layout : Shape {
  int64_t group = 1, width = 1;
  int64_t block_rows = 1, blocks = 0;  // blocks of a channel: rows of a block, or positions of a plane
  int64_t tiles = 1;                   // rows: column tiles of a block

  explicit Layout(const Shape& shape) : Shape(shape) {
    if (outer == 0) return;
    if (rows) {
      if (channels < 64) group = (64 + channels - 1) / channels;
      width = group * channels;
      block_rows = (std::max<int64_t>(32, kBlock / channels) + group - 1) / group * group;
      blocks = (outer + block_rows - 1) / block_rows;
      if (group == 1) tiles = (channels + kColumns - 1) / kColumns;
    } else {
      block_rows = std::min(inner, kBlock);
      blocks = outer * ((inner + block_rows - 1) / block_rows);
    }
  }
  int64_t segments() const { return blocks / outer; }                 // planes: blocks of one plane
  int64_t block_count(int64_t block) const {                          // elements of a channel in a block
    const int64_t at = rows ? block : block % segments();
    return std::min(block_rows, (rows ? outer : inner) - at * block_rows);
  }
};

// Calls f(block, channel): a block of rows of the tile of columns that begins at the channel, or a block of one plane.
template <class F>
void for_blocks(const Layout& l, F&& f) {
  if (l.rows) {
    parallel_for(l.blocks * l.tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) f(job / l.tiles, job % l.tiles * kColumns);
    });
  } else {
    const int64_t jobs = l.blocks * l.channels;
    parallel_for(jobs, std::max<int64_t>(1, kBlock / l.block_rows), [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const int64_t segment = job % l.segments(), plane = job / l.segments();
        f(plane / l.channels * l.segments() + segment, plane % l.channels);
      }
    });
  }
}

// Where a block of planes starts.
inline int64_t plane_start(const Layout& l, int64_t block, int64_t channel) {
  return (block / l.segments() * l.channels + channel) * l.inner + block % l.segments() * l.block_rows;
}

// Calls f(start, columns) for the rows of a block of the rows layout; columns fold onto channels channel0 + column % C.
template <class F>
void block_rows(const Layout& l, int64_t block, int64_t channel0, F&& f) {
  const int64_t first = block * l.block_rows, last = std::min(l.outer, first + l.block_rows);
  if (l.group > 1) {
    const int64_t end = last * l.channels;
    for (int64_t at = first * l.channels; at < end; at += l.width) f(at, std::min(l.width, end - at));
  } else {
    const int64_t columns = std::min(kColumns, l.channels - channel0);
    for (int64_t row = first; row < last; row++) f(row * l.channels + channel0, columns);
  }
}

// Folds columns onto channels (acc[0 .. C) is the sum) and spreads channel values over columns.
template <class C>
void fold(const Layout& l, C* acc) {
  for (int64_t g = 1; g < l.group; g++)
    for (int64_t c = 0; c < l.channels; c++) acc[c] += acc[g * l.channels + c];
}
template <class C>
void spread(const Layout& l, C* values) {
  for (int64_t g = 1; g < l.group; g++) std::copy(values, values + l.channels, values + g * l.channels);
}
inline int64_t tile_channels(const Layout& l, int64_t channel0) { return std::min(kColumns, l.channels - channel0); }

// Sum of f(i) for i in [0, n) with 64 partial sums.
template <class C, class F>
C lane_sum(int64_t n, F f) {
  constexpr int64_t lanes = 64;
  if (n < lanes) {
    C sum = 0;
    for (int64_t i = 0; i < n; i++) sum += f(i);
    return sum;
  }
  C acc[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
#pragma omp simd
    for (int64_t k = 0; k < lanes; k++) acc[k] += f(i + k);
  for (int64_t k = 0; i + k < n; k++) acc[k] += f(i + k);
  for (int64_t half = lanes / 2; half > 0; half /= 2)
    for (int64_t k = 0; k < half; k++) acc[k] += acc[k + half];
  return acc[0];
}

// Calls f(at, count, channel) over all elements: rows of columns from `channel` on, or values of one channel.
template <class F>
void for_elements(const Layout& l, F&& f) {
  for_blocks(l, [&](int64_t block, int64_t channel0) {
    if (l.rows) block_rows(l, block, channel0, [&](int64_t at, int64_t columns) { f(at, columns, channel0); });
    else f(plane_start(l, block, channel0), l.block_count(block), channel0);
  });
}

// K per-channel arrays, spread to the width of a row. Absent ones hold `missing`.
template <class C, int K>
class Columns {
 public:
  Columns(const Layout& l, const Tensor* const (&sources)[K], const C (&missing)[K])
      : stride_(l.rows ? std::max(l.width, l.channels) : l.channels), memory_(int64_t(sizeof(C)) * K * std::max<int64_t>(stride_, 1)) {
    for (int k = 0; k < K; k++) {
      if (sources[k]) std::copy_n(sources[k]->template data<C>(), l.channels, at(k));
      else std::fill(at(k), at(k) + l.channels, missing[k]);
      if (l.rows) spread(l, at(k));
    }
  }
  C* at(int k) const { return memory_.as<C>() + k * stride_; }
  int64_t stride() const { return stride_; }

 private:
  int64_t stride_;
  Scratch memory_;
};

// Mean and variance of each channel from those of blocks of `count(block)` values: means and sums of squared deviations [block][channel].
// var = (sum of squares + sum of n_b (mean_b - mean)^2) / n.
template <class C, class Count>
void merge_moments(int64_t all, int64_t blocks, Count&& count, const double* means, const C* squares, C* mean, C* var) {
  double n = 0;
  for (int64_t b = 0; b < blocks; b++) n += double(count(b));
  parallel_for(all, 64, [&](int64_t begin, int64_t end) {
    double total[64], square[64];
    const int64_t channels = end - begin;
    std::fill(total, total + channels, 0.0);
    for (int64_t b = 0; b < blocks; b++) {
      const double values = double(count(b));
      for (int64_t c = 0; c < channels; c++) total[c] += values * means[b * all + begin + c];
    }
    for (int64_t c = 0; c < channels; c++) total[c] /= n;
    std::fill(square, square + channels, 0.0);
    for (int64_t b = 0; b < blocks; b++) {
      const double values = double(count(b));
      for (int64_t c = 0; c < channels; c++) {
        const double d = means[b * all + begin + c] - total[c];
        square[c] += double(squares[b * all + begin + c]) + values * d * d;
      }
    }
    for (int64_t c = 0; c < channels; c++) {
      mean[begin + c] = C(total[c]);
      var[begin + c] = C(square[c] / n);
    }
  });
}

// scale = invstd * weight, in place of weight.
template <class C, int K>
void scale_columns(const Columns<C, K>& columns, int weight, int invstd) {
  for (int64_t i = 0; i < columns.stride(); i++) columns.at(weight)[i] *= columns.at(invstd)[i];
}

}  // namespace dg::batch_norm
