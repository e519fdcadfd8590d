// Forward and gradient of the input as matrix products: rows are positions, terms the taps and channels that a tile gathers from the source, columns
// the channels of the result. The gradient of the input is one product for each phase of the stride (positions i with the same i mod stride meet the
// same taps), all in one launch; it also is the forward of the transposed convolution. Weights that are channels-last in memory are read as they are,
// others are packed first, a row a term.
#include <algorithm>
#include <numeric>
#include <optional>

#include "columns.h"
#include "convolution.h"
#include "convolution_tile.h"

namespace dg::conv {
namespace {

constexpr int64_t kFlatTerms = 512;  // terms that are looked up one by one, for few channels

template <class T>
struct Gather {
  bool forward;
  int kernel[3], stride[3], padding[3], dilation[3];
  int tap_step[3], phases[3];         // backward: taps of a phase are `tap_step` apart
  int rows[3], limit[3];              // sizes of the result and of the source
  int64_t batch, channels, columns;   // of a group: channels of the source and of the result
  int64_t tiles, column_tiles, phase_count;
  Activation<T> source, result;
  const T* weight;                    // as it is, or packed as [group][tap][channel][padded columns]; its steps:
  int64_t weight_group, weight_tap[3], weight_channel, weight_column;
  int64_t weight_columns;             // columns that may be read
  int64_t terms;                      // taps * channels
  const T* bias;
  int64_t bias_step;
};

// The rows of a phase and the taps that they meet: source position = row + shift + tap * delta, times `row_step` for the row.
struct Phase {
  int rows[3], taps[3], first[3], tap_step[3], row_step[3], shift[3], delta[3];
  int64_t result;  // offset of its first row
};

template <class T>
__device__ Phase phase_of(const Gather<T>& g, int number) {
  Phase p;
  p.result = 0;
#pragma unroll
  for (int i = 2; i >= 0; i--) {
    if (g.forward) {
      p.rows[i] = g.rows[i], p.taps[i] = g.kernel[i], p.first[i] = 0, p.tap_step[i] = 1;
      p.row_step[i] = g.stride[i], p.shift[i] = -g.padding[i], p.delta[i] = g.dilation[i];
      continue;
    }
    const int at = number % g.phases[i], stride = g.stride[i];
    number /= g.phases[i];
    int first = 0;
    while (first < g.kernel[i] && (at + g.padding[i] - first * g.dilation[i]) % stride != 0) first++;
    p.rows[i] = (g.rows[i] - at + stride - 1) / stride;
    p.taps[i] = first < g.kernel[i] ? (g.kernel[i] - 1 - first) / g.tap_step[i] + 1 : 0;
    p.first[i] = first, p.tap_step[i] = g.tap_step[i], p.row_step[i] = 1;
    p.shift[i] = first < g.kernel[i] ? (at + g.padding[i] - first * g.dilation[i]) / stride : 0;
    p.delta[i] = -(g.tap_step[i] * g.dilation[i] / stride);
    p.result += at * g.result.at[i];
  }
  return p;
}

// How a tile of the source is read: 16 bytes of channels at a time; neighbouring positions by neighbouring threads, a channel at a time; or the same
// with terms that run across taps.
enum class Read { packs, positions, flat };

// Along which axis of the weight 16 bytes are read at a time.
enum class Along { columns, channels };

template <class T>
__device__ bool inside(const Gather<T>& g, int z, int y, int x) {
  return unsigned(z) < unsigned(g.limit[0]) && unsigned(y) < unsigned(g.limit[1]) && unsigned(x) < unsigned(g.limit[2]);
}

template <class Tile, Read read, Along along>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks) gather_product(const __grid_constant__ Gather<typename Tile::T> g) {
  using T = typename Tile::T;
  using C = typename Tile::C;
  constexpr int BM = Tile::BM, BN = Tile::BN, BK = Tile::BK, threads = Tile::threads, V = 16 / sizeof(T);
  constexpr bool packs = read == Read::packs;
  constexpr int A = packs ? BM * BK / V / threads : BM * BK / threads, B = BK * BN / V / threads, spots_held = packs ? A : 1;
  static_assert(A > 0 && B > 0 && (packs || threads % BM == 0));
  DG_DYNAMIC_SHARED(unsigned char, shared);
  unsigned char* const tiles = shared + (128 - reinterpret_cast<uintptr_t>(shared) % 128) % 128;
  T *const a = reinterpret_cast<T*>(tiles), *const b = a + 2 * Tile::a_size;
  Spot* const spots = reinterpret_cast<Spot*>(tiles + tile_bytes<Tile>());      // [BM]
  int64_t* const results = reinterpret_cast<int64_t*>(spots + BM);              // [BM]: offsets in the result, -1 beyond the last row
  Spot* const table = reinterpret_cast<Spot*>(results + BM);                      // flat: [terms]
  const int thread = threadIdx.x;

  int64_t job = blockIdx.x;
  const int64_t column0 = job % g.column_tiles * BN;
  job /= g.column_tiles;
  const int64_t row0 = job % g.tiles * BM;
  job /= g.tiles;
  const Phase p = phase_of(g, int(job % g.phase_count));
  const int64_t group = job / g.phase_count, rows = g.batch * p.rows[0] * p.rows[1] * p.rows[2];
  if (row0 >= rows) return;
  const T* const source = g.source.data + group * g.channels * g.source.channel;
  const T* const weight = g.weight + group * g.weight_group + column0 * (along == Along::columns ? 1 : g.weight_column);
  const int columns = int(min(g.weight_columns - column0, int64_t(BN)));

  for (int i = thread; i < BM; i += threads) {
    int64_t row = row0 + i;
    Spot spot{};
    results[i] = -1;
    if (row < rows) {
      int at[3];
#pragma unroll
      for (int k = 2; k >= 0; k--) {
        const int64_t next = rows < INT32_MAX ? int64_t(uint32_t(row) / uint32_t(p.rows[k])) : row / p.rows[k];
        at[k] = int(row - next * p.rows[k]);
        row = next;
      }
      results[i] = p.result + row * g.result.sample;
      int source_at[3];
      spot.offset = row * g.source.sample;
#pragma unroll
      for (int k = 0; k < 3; k++) {
        results[i] += int64_t(at[k]) * (g.forward ? 1 : g.stride[k]) * g.result.at[k];
        source_at[k] = at[k] * p.row_step[k] + p.shift[k];
        spot.offset += source_at[k] * g.source.at[k];
      }
      spot.z = source_at[0], spot.y = source_at[1], spot.x = source_at[2];
    } else {
      spot.z = spot.y = spot.x = INT32_MIN / 2;  // no tap brings it inside
    }
    spots[i] = spot;
  }
  const int taps = p.taps[0] * p.taps[1] * p.taps[2], channels = int(g.channels);
  const int64_t terms = int64_t(taps) * channels;
  if constexpr (read == Read::flat) {
    for (int k = thread; k < terms; k += threads) {
      const int tap = k / channels, c = k - tap * channels, x = tap % p.taps[2], y = tap / p.taps[2] % p.taps[1], z = tap / p.taps[2] / p.taps[1];
      Spot t;
      t.z = z * p.delta[0], t.y = y * p.delta[1], t.x = x * p.delta[2];
      t.offset = t.z * g.source.at[0] + t.y * g.source.at[1] + t.x * g.source.at[2] + c * g.source.channel;
      t.row = (((p.first[0] + z * p.tap_step[0]) * g.kernel[1] + p.first[1] + y * p.tap_step[1]) * g.kernel[2] + p.first[2] + x * p.tap_step[2]) *
                  channels + c;
      table[k] = t;
    }
  }
  __syncthreads();

  Spot mine[spots_held];
  int64_t offset[spots_held];
  bool valid[spots_held];
#pragma unroll
  for (int r = 0; r < spots_held; r++) mine[r] = spots[packs ? (thread + r * threads) / (BK / V) : thread % BM];

  // The step that is loaded next: its tap, and from which channel on; flat: from which term on.
  int tap_z = 0, tap_y = 0, tap_x = 0, channel0 = 0;
  int64_t weight_at = 0;  // offset of the tap
  const auto enter_tap = [&] {
#pragma unroll
    for (int r = 0; r < spots_held; r++) {
      const int z = tap_z * p.delta[0], y = tap_y * p.delta[1], x = tap_x * p.delta[2];
      valid[r] = inside(g, mine[r].z + z, mine[r].y + y, mine[r].x + x);
      offset[r] = mine[r].offset + z * g.source.at[0] + y * g.source.at[1] + x * g.source.at[2];
    }
    weight_at = (p.first[0] + tap_z * p.tap_step[0]) * g.weight_tap[0] + (p.first[1] + tap_y * p.tap_step[1]) * g.weight_tap[1] +
                (p.first[2] + tap_x * p.tap_step[2]) * g.weight_tap[2];
  };
  Pack<T, packs ? V : 1> loaded_a[A];
  Pack<T, V> loaded_b[B];
  const auto load_step = [&] {
#pragma unroll
    for (int r = 0; r < A; r++) {
      if constexpr (packs) {
        const int c = channel0 + (thread + r * threads) % (BK / V) * V;
        loaded_a[r] = {};
        if (valid[r] && c < channels) loaded_a[r] = load<T, V>(source + offset[r] + c);
      } else {
        const int k = channel0 + thread / BM + r * (threads / BM);
        T value = T(0.0f);
        if constexpr (read == Read::flat) {
          if (k < terms) {
            const Spot s = table[k];
            if (inside(g, mine[0].z + s.z, mine[0].y + s.y, mine[0].x + s.x)) value = source[mine[0].offset + s.offset];
          }
        } else {
          if (valid[0] && k < channels) value = source[offset[0] + k * g.source.channel];
        }
        loaded_a[r].at[0] = value;
      }
    }
#pragma unroll
    for (int r = 0; r < B; r++) {
      const int at = thread + r * threads;
      const int k = channel0 + (along == Along::columns ? at / (BN / V) : at % (BK / V) * V);
      const int column = along == Along::columns ? at % (BN / V) * V : at / (BK / V);
      loaded_b[r] = {};
      if (column >= columns || k >= (read == Read::flat ? terms : channels)) continue;
      if constexpr (read == Read::flat) loaded_b[r] = load<T, V>(weight + table[k].row * g.weight_channel + column);
      else if constexpr (along == Along::columns) loaded_b[r] = load<T, V>(weight + (weight_at + k * g.weight_channel + column));
      else loaded_b[r] = load<T, V>(weight + (weight_at + k + column * g.weight_column));
    }
    channel0 += BK;
    if (read != Read::flat && channel0 >= channels) {
      channel0 = 0;
      if (++tap_x == p.taps[2]) {
        tap_x = 0;
        if (++tap_y == p.taps[1]) tap_y = 0, tap_z++;
      }
      enter_tap();
    }
  };
  const auto put = [&](int copy) {
    T *const to_a = a + copy * Tile::a_size, *const to_b = b + copy * Tile::b_size;
#pragma unroll
    for (int r = 0; r < A; r++) {
      const int at = thread + r * threads;
      if constexpr (!packs) {
        to_a[Tile::a_index(thread % BM, thread / BM + r * (threads / BM))] = loaded_a[r].at[0];
      } else if constexpr (Tile::by_terms) {
#pragma unroll
        for (int j = 0; j < V; j++) to_a[Tile::a_index(at / (BK / V), at % (BK / V) * V + j)] = loaded_a[r].at[j];
      } else {
        store(to_a + Tile::a_index(at / (BK / V), at % (BK / V) * V), loaded_a[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < B; r++) {
      const int at = thread + r * threads;
      if constexpr (along == Along::columns) {
        store(to_b + at / (BN / V) * Tile::ldb + at % (BN / V) * V, loaded_b[r]);
      } else {
#pragma unroll
        for (int j = 0; j < V; j++) to_b[(at % (BK / V) * V + j) * Tile::ldb + at / (BK / V)] = loaded_b[r].at[j];
      }
    }
  };

  Tile tile;
  const int64_t steps = read == Read::flat ? (terms + BK - 1) / BK : int64_t(taps) * ((channels + BK - 1) / BK);
  if (steps > 0) {
    if (read != Read::flat) enter_tap();
    load_step();
    put(0);
    __syncthreads();
    for (int64_t step = 0; step < steps; step++) {
      const int now = int(step & 1);
      if (step + 1 < steps) load_step();
      tile.multiply(a + now * Tile::a_size, b + now * Tile::b_size);
      if (step + 1 < steps) put(now ^ 1);
      __syncthreads();
    }
  }

  // Through shared memory, so that neighbouring threads write neighbouring elements in either memory order.
  C* const c = reinterpret_cast<C*>(tiles);
  tile.store(c);
  __syncthreads();
  T* const result = g.result.data + (group * g.columns + column0) * g.result.channel;
  const bool by_channels = g.result.channel == 1;
  const int written = int(min(g.columns - column0, int64_t(BN)));
  for (int i = thread; i < BM * BN; i += threads) {
    const int row = by_channels ? i / BN : i % BM, column = by_channels ? i % BN : i / BM;
    if (results[row] < 0 || column >= written) continue;
    C value = c[row * Tile::ldc + column];
    if (g.bias) value += C(g.bias[(group * g.columns + column0 + column) * g.bias_step]);
    result[results[row] + column * g.result.channel] = T(value);
  }
}

// [group][tap][channel][padded columns], zero beyond the columns. Threads follow the packed order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_weight(T* out, Weight<T> w, int64_t count, int64_t padded, int64_t columns, int64_t channels, int kernel1, int kernel2, int64_t taps,
                int64_t column_step, int64_t channel_step, int64_t group_step) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t column = i % padded, row = i / padded, channel = row % channels, tap = row / channels % taps, group = row / channels / taps;
    const int64_t at = tap / kernel2 / kernel1 * w.tap[0] + tap / kernel2 % kernel1 * w.tap[1] + tap % kernel2 * w.tap[2];
    out[i] = column < columns ? w.data[group * group_step + column * column_step + channel * channel_step + at] : T(0.0f);
  }
}

template <class Tile, Read read, Along along = Along::columns>
void start(const char* name, Gather<typename Tile::T> g, int64_t groups) {
  const int64_t looked_up = read == Read::flat ? g.terms : 0;
  const size_t shared = 128 + tile_bytes<Tile>() + Tile::BM * (sizeof(Spot) + sizeof(int64_t)) + size_t(looked_up) * sizeof(Spot);
  const int64_t blocks = g.tiles * g.column_tiles * g.phase_count * groups;
  if (blocks >= int64_t(1) << 31) fail(DG_SHAPE, "%s: too large for the device", name);
  launch(name, gather_product<Tile, read, along>, unsigned(blocks), Tile::threads, shared, g);
}

template <class T>
void run(const char* name, const ConvShape& s, Gather<T> g, const Weight<T>& w) {
  using Large = typename Tiles<T>::template large<false>;
  using Small = typename Tiles<T>::template small<false>;
  constexpr int V = 16 / sizeof(T);
  int64_t most = g.batch;  // rows of the largest phase
  g.phase_count = 1;
  for (int i = 0; i < 3; i++) {
    g.kernel[i] = int(s.kernel[i]), g.stride[i] = int(s.stride[i]), g.padding[i] = int(s.padding[i]), g.dilation[i] = int(s.dilation[i]);
    g.tap_step[i] = int(s.stride[i] / std::gcd(s.stride[i], s.dilation[i]));
    g.phases[i] = g.forward ? 1 : int(std::min(s.stride[i], s.input[i]));
    g.phase_count *= g.phases[i];
    most *= ceil_div(g.rows[i], g.forward ? 1 : s.stride[i]);
  }
  const auto blocks = [&](int BM, int BN) { return ceil_div(most, BM) * ceil_div(g.columns, BN) * g.phase_count * s.groups; };
  const bool large = g.columns > Small::BN && blocks(Large::BM, Large::BN) >= kFewBlocks;
  const int BM = large ? Large::BM : Small::BM, BN = large ? Large::BN : Small::BN;
  g.tiles = ceil_div(most, BM);
  g.column_tiles = ceil_div(g.columns, BN);
  g.terms = s.taps() * g.channels;
  constexpr auto in_packs = [](const T* data, std::initializer_list<int64_t> steps) {
    bool fit = reinterpret_cast<uintptr_t>(data) % 16 == 0;
    for (int64_t step : steps) fit &= step % V == 0;
    return fit;
  };
  const Activation<T>& x = g.source;
  const bool packs = x.channel == 1 && in_packs(x.data, {g.channels, x.sample, x.at[0], x.at[1], x.at[2]});
  const bool flat = g.channels < (large ? Large::BK : Small::BK) && g.terms <= kFlatTerms;
  const int64_t column_step = g.forward ? w.filter : w.channel, channel_step = g.forward ? w.channel : w.filter;
  const int64_t group_step = s.group_filters() * w.filter;
  const auto plain = [&](int64_t extent, int64_t step) { return !flat && in_packs(w.data, {extent, step, group_step, w.tap[0], w.tap[1], w.tap[2]}); };
  constexpr bool registers = sizeof(T) < 8;  // doubles would take more than there are
  const bool by_channels = registers && packs && channel_step == 1 && plain(g.channels, column_step);
  std::optional<Scratch> memory;
  if (by_channels || (column_step == 1 && plain(g.columns, channel_step))) {
    g.weight = w.data, g.weight_columns = g.columns;
    g.weight_group = group_step, g.weight_channel = channel_step, g.weight_column = column_step;
    std::copy_n(w.tap, 3, g.weight_tap);
  } else {
    const int64_t padded = round_up(g.columns, BN), packed = s.groups * g.terms * padded;
    memory.emplace(std::max<int64_t>(packed, 1) * int64_t(sizeof(T)));
    g.weight = memory->as<T>(), g.weight_columns = padded;
    g.weight_group = g.terms * padded, g.weight_channel = padded, g.weight_column = 1;
    g.weight_tap[2] = g.channels * padded, g.weight_tap[1] = g.kernel[2] * g.weight_tap[2], g.weight_tap[0] = g.kernel[1] * g.weight_tap[1];
    if (packed > 0)
      launch("convolution_pack", pack_weight<T>, blocks_for(packed, kThreads), kThreads, 0, memory->as<T>(), w, packed, padded, g.columns, g.channels,
             g.kernel[1], g.kernel[2], s.taps(), column_step, channel_step, group_step);
  }
  const auto with = [&](auto tile) {
    using Tile = typename decltype(tile)::type;
    if (flat) start<Tile, Read::flat>(name, g, s.groups);
    else if (by_channels) start<Tile, Read::packs, registers ? Along::channels : Along::columns>(name, g, s.groups);
    else if (packs) start<Tile, Read::packs>(name, g, s.groups);
    else start<Tile, Read::positions>(name, g, s.groups);
  };
  if (large) with(tag<Large>{});
  else with(tag<Small>{});
}

}  // namespace

template <class T>
void gather_forward(const ConvShape& s, const Activation<T>& y, const Activation<T>& x, const Weight<T>& w, const T* bias, int64_t bias_step) {
  Gather<T> g{};
  g.forward = true;
  for (int i = 0; i < 3; i++) g.rows[i] = int(s.output[i]), g.limit[i] = int(s.input[i]);
  g.batch = s.batch, g.channels = s.group_channels(), g.columns = s.group_filters();
  g.source = x, g.result = y, g.bias = bias, g.bias_step = bias_step;
  run("convolution", s, g, w);
}

template <class T>
void gather_backward_input(const ConvShape& s, const Activation<T>& dx, const Activation<T>& dy, const Weight<T>& w, const T* bias,
                           int64_t bias_step) {
  Gather<T> g{};
  g.forward = false;
  for (int i = 0; i < 3; i++) g.rows[i] = int(s.input[i]), g.limit[i] = int(s.output[i]);
  g.batch = s.batch, g.channels = s.group_filters(), g.columns = s.group_channels();
  g.source = dy, g.result = dx, g.bias = bias, g.bias_step = bias_step;
  run("convolution_input", s, g, w);
}

#define DG_CONV_INSTANCES(T)                                                                                                                      \
  template void gather_forward(const ConvShape&, const Activation<T>&, const Activation<T>&, const Weight<T>&, const T*, int64_t);                \
  template void gather_backward_input(const ConvShape&, const Activation<T>&, const Activation<T>&, const Weight<T>&, const T*, int64_t)
DG_CONV_INSTANCES(float);
DG_CONV_INSTANCES(double);
DG_CONV_INSTANCES(f16);
DG_CONV_INSTANCES(bf16);
#undef DG_CONV_INSTANCES

}  // namespace dg::conv
