// Sorting rows by merging: tiles in shared memory, then runs of them along merge paths. The order of entries is total (a key, then a position), so
// that the result is that of a stable sort.
#pragma once
#include "block.h"
#include "map.h"

namespace dg {

// A key of up to 32 bits goes above its position in one number; longer keys stand beside it.
using Packed = uint64_t;
struct Wide {
  uint64_t key, index;
  friend __device__ bool operator<(const Wide& a, const Wide& b) { return a.key != b.key ? a.key < b.key : a.index < b.index; }
};

template <class Entry>
__device__ Entry last_entry() {
  if constexpr (std::is_same_v<Entry, Wide>) return {~uint64_t(0), ~uint64_t(0)};
  else return ~uint64_t(0);
}

inline constexpr int kSortItems = 8, kSortTile = kThreads * kSortItems;

// Entries in shared memory, with a gap after each 128 bytes so that threads with neighbouring stretches do not meet in one bank.
template <class Entry>
struct Tile {
  static constexpr int kGap = 128 / int(sizeof(Entry)), kSlots = kSortTile + kSortTile / kGap;
  Entry* slots;
  __device__ Entry& operator[](int i) const { return slots[i + i / kGap]; }
};

// How many of the first `diagonal` entries of two sorted runs, merged, come from the first run.
template <class I, class A, class B>
__device__ I merge_split(I diagonal, I count_a, I count_b, A a, B b) {
  I low = diagonal > count_b ? diagonal - count_b : 0, high = diagonal < count_a ? diagonal : count_a;
  while (low < high) {
    const I middle = (low + high) / 2;
    if (b(diagonal - 1 - middle) < a(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

// The thread's entries number `diagonal` and up of the merged runs [a, a + count_a) and [b, b + count_b) of a tile.
template <class Entry>
__device__ void merge_items(const Tile<Entry>& tile, int a, int count_a, int b, int count_b, int diagonal, Entry (&items)[kSortItems]) {
  int i = merge_split(
      diagonal, count_a, count_b, [&](int at) { return tile[a + at]; }, [&](int at) { return tile[b + at]; });
  int j = diagonal - i;
  Entry x = i < count_a ? tile[a + i] : last_entry<Entry>(), y = j < count_b ? tile[b + j] : last_entry<Entry>();
#pragma unroll
  for (int k = 0; k < kSortItems; k++) {
    const bool first = j >= count_b || (i < count_a && !(y < x));
    items[k] = first ? x : y;
    if (first) {
      i++;
      x = i < count_a ? tile[a + i] : last_entry<Entry>();
    } else {
      j++;
      y = j < count_b ? tile[b + j] : last_entry<Entry>();
    }
  }
}

// Sorts each aligned stretch of `width` entries (a power of two from kSortItems on) of a tile that holds kSortItems entries a thread. All threads of
// the block must call it, after a barrier; there is one at its end.
template <class Entry>
__device__ void sort_tile(const Tile<Entry>& tile, int width) {
  const int start = int(threadIdx.x) * kSortItems;
  Entry items[kSortItems];
#pragma unroll
  for (int k = 0; k < kSortItems; k++) items[k] = tile[start + k];
#pragma unroll
  for (int pass = 0; pass < kSortItems; pass++) {
#pragma unroll
    for (int k = pass & 1; k + 1 < kSortItems; k += 2) {
      if (items[k + 1] < items[k]) {
        const Entry other = items[k];
        items[k] = items[k + 1];
        items[k + 1] = other;
      }
    }
  }
  for (int run = kSortItems;; run *= 2) {
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSortItems; k++) tile[start + k] = items[k];
    __syncthreads();
    if (run >= width) return;
    const int pair = start & ~(2 * run - 1);
    merge_items(tile, pair, run, pair + run, run, start - pair, items);
  }
}

// Sorts rows of up to `width` entries, or pieces of `width` entries of longer ones: source(row, position) makes an entry, sink(row, position,
// entry) takes it, in the order within its piece. With `across`, neighbouring threads read neighbouring rows.
template <class Entry, class Source, class Sink>
__global__ void sort_tiles(int64_t rows, int64_t count, int64_t pieces, int width, bool across, Source source, Sink sink) {
  DG_SHARED(Entry[Tile<Entry>::kSlots], slots);
  const Tile<Entry> tile{slots};
  const int size = int(blockDim.x) * kSortItems, units = size / width;
  const int64_t total = rows * pieces;
  for (int64_t first = int64_t(blockIdx.x) * units; first < total; first += int64_t(gridDim.x) * units) {
    auto each = [&](auto&& f) {
      for (int e = threadIdx.x; e < size; e += blockDim.x) {
        const int unit = across ? e % units : e / width, at = across ? e / units : e % width;
        const int64_t which = first + unit, row = pieces == 1 ? which : which / pieces, position = (which - row * pieces) * width + at;
        f(unit * width + at, row, position, which < total && position < count);
      }
    };
    each([&](int at, int64_t row, int64_t position, bool exists) { tile[at] = exists ? source(row, position) : last_entry<Entry>(); });
    __syncthreads();
    sort_tile(tile, width);
    each([&](int at, int64_t row, int64_t position, bool exists) {
      if (exists) sink(row, position, tile[at]);
    });
    __syncthreads();
  }
}

// Merges runs of `width` entries in pairs, of which the first `keep` entries each are there and wanted: a tile of the result a block.
template <class Entry, class Sink>
__global__ void merge_runs(const Entry* from, int64_t rows, int64_t count, int64_t width, int64_t keep, int64_t pairs, int64_t tiles, Sink sink) {
  DG_SHARED(Entry[Tile<Entry>::kSlots], slots);
  DG_SHARED(int64_t[2], splits);
  const Tile<Entry> tile{slots};
  for (int64_t job = blockIdx.x; job < rows * pairs * tiles; job += gridDim.x) {
    const int64_t row = job / (pairs * tiles), pair = job / tiles % pairs, begin = pair * 2 * width, rest = count - begin;
    const int64_t count_a = min(keep, min(width, rest)), count_b = max(int64_t(0), min(keep, min(width, rest - width)));
    const int64_t start = job % tiles * kSortTile, end = min(start + kSortTile, min(keep, count_a + count_b));
    if (start >= end) continue;
    const Entry *const a = from + row * count + begin, *const b = a + width;
    if (threadIdx.x < 2)
      splits[threadIdx.x] = merge_split(
          threadIdx.x == 0 ? start : end, count_a, count_b, [&](int64_t i) { return a[i]; }, [&](int64_t i) { return b[i]; });
    __syncthreads();
    const int64_t from_a = splits[0], from_b = start - from_a;
    const int size = int(end - start), size_a = int(splits[1] - from_a);
    for (int e = threadIdx.x; e < size; e += blockDim.x) tile[e] = e < size_a ? a[from_a + e] : b[from_b + e - size_a];
    __syncthreads();
    Entry items[kSortItems];
    const int diagonal = min(int(threadIdx.x) * kSortItems, size);
    merge_items(tile, 0, size_a, size_a, size - size_a, diagonal, items);
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kSortItems; k++)
      if (diagonal + k < size) tile[diagonal + k] = items[k];
    __syncthreads();
    for (int e = threadIdx.x; e < size; e += blockDim.x) sink(row, begin + start + e, tile[e]);
    __syncthreads();
  }
}

// Entries of rows of `count` in work space, as source and as sink.
template <class Entry>
struct EntryBuffer {
  Entry* entries;
  int64_t count;
  __device__ Entry operator()(int64_t row, int64_t position) const { return entries[row * count + position]; }
  __device__ void operator()(int64_t row, int64_t position, const Entry& entry) const { entries[row * count + position] = entry; }
};

// Takes the first `keep` entries of each tile.
template <class Entry>
struct FirstOfTiles {
  EntryBuffer<Entry> to;
  int64_t keep;
  __device__ void operator()(int64_t row, int64_t position, const Entry& entry) const {
    const int64_t tile = position / kSortTile, rank = position - tile * kSortTile;
    if (rank < keep) to(row, tile * keep + rank, entry);
  }
};

template <class Entry, class Source, class Sink>
void launch_sort_tiles(const char* name, int64_t rows, int64_t count, bool across, const Source& source, const Sink& sink) {
  int width = kSortItems;
  while (width < kSortTile && width < count) width *= 2;
  const int64_t pieces = (count + width - 1) / width;
  int threads = std::max(32, width / kSortItems);
  while (threads < kThreads && int64_t(threads) * kSortItems / width < rows) threads *= 2;
  launch(name, sort_tiles<Entry, Source, Sink>, blocks_for(rows * pieces, threads * kSortItems / width), threads, 0, rows, count, pieces, width, across,
         source, sink);
}

// Gives sink(row, rank, entry) at least the first `keep` entries of each row in ascending order, of `count` made by source(row, position). The sink
// must pass over ranks from `keep` on.
template <class Entry, class Source, class Sink>
void sort_rows(const char* name, int64_t rows, int64_t count, int64_t keep, bool across, const Source& source, const Sink& sink) {
  if (rows == 0 || keep == 0) return;
  if (count <= kSortTile) return launch_sort_tiles<Entry>(name, rows, count, across, source, sink);
  const int64_t tiles = (count + kSortTile - 1) / kSortTile, bytes = int64_t(sizeof(Entry));
  if (keep <= kSortTile / 4) {  // few of many: the first of each tile, and so on with them
    const int64_t left = (tiles - 1) * keep + std::min(keep, count - (tiles - 1) * kSortTile);
    const Scratch scratch(rows * left * bytes);
    const EntryBuffer<Entry> buffer{scratch.as<Entry>(), left};
    launch_sort_tiles<Entry>(name, rows, count, across, source, FirstOfTiles<Entry>{buffer, keep});
    return sort_rows<Entry>(name, rows, left, keep, false, buffer, sink);
  }
  const Scratch scratch(2 * rows * count * bytes);
  EntryBuffer<Entry> from{scratch.as<Entry>(), count}, to{from.entries + rows * count, count};
  launch_sort_tiles<Entry>(name, rows, count, across, source, from);
  for (int64_t width = kSortTile; width < count; width *= 2) {
    const int64_t pairs = (count + 2 * width - 1) / (2 * width), parts = (std::min(keep, 2 * width) + kSortTile - 1) / kSortTile;
    const unsigned blocks = blocks_for(rows * pairs * parts, 1);
    if (pairs == 1) launch("merge_runs", merge_runs<Entry, Sink>, blocks, kThreads, 0, from.entries, rows, count, width, keep, pairs, parts, sink);
    else launch("merge_runs", merge_runs<Entry, EntryBuffer<Entry>>, blocks, kThreads, 0, from.entries, rows, count, width, keep, pairs, parts, to);
    std::swap(from, to);
  }
}

}  // namespace dg
