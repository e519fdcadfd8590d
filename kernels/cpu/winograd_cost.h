// What a convolution is expected to take by Winograd's products and by the direct ones, in nanoseconds of one core: what each does, in vectors, times what
// it took. Only the comparison counts. It depends on the shape alone, so that a shape always takes the same path.
//
// The constants are least squares of relative errors over shapes of benchmarks/winograd_choice.ts (3x3 and 4x4, strides 1 and 2), 1110 for AVX-512
// and 952 for AVX2, on one core of a server with 1 MB of second-level cache, 2026-11.
#pragma once
#include "winograd.h"

namespace dg::conv {

// The outputs' and the input's gradient have the same products; only reading and packing weights differ, as these lie by filters.
struct ProductCost {
  double product;         // a vector of results and one term of the sum, Winograd
  double weight;          // a vector of transformed weights for each tile of registers, its transform included
  double input, output;   // a vector of a tile at a point: its transform
  double streamed;        // a vector of transformed weights beyond the second-level cache for each block of tiles
  double memory;          // a vector of weights beyond the second-level cache
  double direct_product;  // as product
  double gathered;        // taps in a row, of a position
  double packed;          // a vector of weights
  double direct_memory;   // as memory
};

struct GradientCost {
  double product, sum;   // a vector of products; of their sums, their transform included
  double input, output;  // a vector of a tile at a point: its transform
  double memory;         // a vector of weights beyond the second-level cache
  double direct_product, direct_sum, direct_memory;
};

#if defined(__AVX512F__)
inline constexpr ProductCost kForwardCost{0.223, 1.70, 2.33, 2.67, 0.956, 17.2, 0.329, 8.93, 9.82, 20.5};
inline constexpr ProductCost kInputGradientCost{0.223, 1.70, 2.33, 2.67, 0.956, 9.59, 0.329, 8.93, 0, 9.82};
inline constexpr GradientCost kWeightGradientCost{0.395, 1.11, 1.79, 1.97, 10.7, 0.376, 16.7, 22.6};
#else  // a tile of registers takes as long with fewer rows
inline constexpr ProductCost kForwardCost{0, 1.20, 0.937, 0.780, 0.124, 5.20, 0.167, 8.32, 4.50, 6.53};
inline constexpr ProductCost kInputGradientCost{0, 1.20, 0.937, 0.780, 0.124, 4.67, 0.167, 8.32, 0, 5.05};
inline constexpr GradientCost kWeightGradientCost{0.211, 1.08, 1.22, 0.713, 5.04, 0.205, 6.19, 12.7};
#endif
// A panel with one vector of filters computes its products at this part of two.
inline constexpr double kHalfPanel = 1.3;

// Bytes that stay in the second-level cache: of weights, of transformed weights beside the tiles.
inline constexpr int64_t kNear = int64_t(1) << 20, kNearTransformed = int64_t(512) << 10;

// Vectors that products of so many columns take, in time.
inline double product_width(int64_t columns) {
  const int64_t rest = columns % winograd::P;
  return double(columns / winograd::P * 2) + (rest == 0 ? 0 : rest <= winograd::L ? kHalfPanel : 2);
}

// Vectors of `vectors` behind the first `bytes`.
inline double beyond(double vectors, int64_t bytes) { return std::max(0.0, vectors - double(bytes / kVectorBytes)); }

// What the phases have in common.
struct PhasePoints {
  int64_t source = 0, target = 0, pairs = 0;
  explicit PhasePoints(const winograd::Grid& g) {
    using winograd::Phase;
    const auto points = [](const Phase& p) { return int64_t(Phase::points(p.taps_y)) * Phase::points(p.taps_x); };
    for (int i = 0; i < g.source_count; i++) source += points(g.sources[i]);
    for (int i = 0; i < g.target_count; i++) target += points(g.targets[i]);
    pairs = g.source_count > 1 ? source : target;
  }
};

// The sums of a grid, all weights' traffic with memory left out.
inline double winograd_time(const winograd::Grid& g, const ProductCost& c) {
  using namespace winograd;
  const PhasePoints points(g);
  const double tiles = double(g.tiles()), pairs = double(points.pairs), width = product_width(g.out.channels);
  const double depth = double(round_up(g.in.channels, L)), blocks = double(ceil_div(g.tiles(), kTileRows));
  const double chunks = double(ceil_div(g.in.channels, L)), columns = double(ceil_div(g.out.channels, L));
  double time = pairs * depth * width * (tiles * c.product + blocks * c.weight);
  time += tiles * (double(points.source) * chunks * c.input + double(points.target) * columns * c.output);
  if (!by_filters(g)) time += beyond(pairs * depth * columns, kNearTransformed) * double(ceil_div(g.tiles(), block_of(g))) * c.streamed;
  return time;
}

// Channels and filters from which on few tiles are always faster by Winograd's products; of fewer the model knows better.
inline constexpr double kNarrow = 32;

// For shapes that have both.
inline bool winograd_faster(const ConvShape& s, Pass pass) {
  using namespace winograd;
  const double channels = double(s.group_channels()), filters = double(s.group_filters()), taps = double(s.taps());
  const double far = beyond(taps * channels * filters / double(L), kNear);
  if (pass == Pass::weight) {
    const GradientCost& c = kWeightGradientCost;
    const Grid g = forward_grid(s);
    const PhasePoints points(g);
    const double tiles = double(g.tiles()), pairs = double(points.pairs), width = product_width(s.group_filters());
    const double chunks = double(ceil_div(g.in.channels, L)), columns = double(ceil_div(g.out.channels, L)), depth = chunks * double(L);
    const double winograd = pairs * depth * (tiles * width * c.product + columns * c.sum) +
                            tiles * (pairs * chunks * c.input + double(g.points()) * columns * c.output) + far * c.memory;
    const double direct = taps * channels * (double(s.output_pixels()) * width * c.direct_product + columns * c.direct_sum) + far * c.direct_memory;
    return winograd < direct;
  }
  const bool forward = pass == Pass::forward;
  bool few = false;
  if (forward) few = few_tiles(forward_grid(s));
  else each_backward_grid(s, [&](const Grid& g) { few = few_tiles(g); });
  if (few && channels >= kNarrow && filters >= kNarrow) return true;
  const ProductCost& c = forward ? kForwardCost : kInputGradientCost;
  double winograd = far * c.memory, positions = double(s.output_pixels()), row = double(s.kernel[1]), of_position = taps;
  if (forward) {
    winograd += winograd_time(forward_grid(s), c);
  } else {
    each_backward_grid(s, [&](const Grid& g) { winograd += winograd_time(g, c); });
    // A position meets the taps of its phase.
    const double stride = double(s.stride[1]);
    positions = double(s.input_pixels()), row /= stride, of_position /= stride * stride;
  }
  const double depth = forward ? channels : filters, width = product_width(forward ? s.group_filters() : s.group_channels());
  const double direct = positions * (of_position * depth * width * c.direct_product + row * c.gathered) + taps * depth * width * c.packed +
                        far * c.direct_memory;
  return winograd < direct;
}

}  // namespace dg::conv
