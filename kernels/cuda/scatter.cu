// Writing through indices, in place. Every index is checked before the first write. Where an element is written to more than once the order is that of
// the index: either a thread walks all that may meet, or the sources are sorted by target (stably) and each target takes its stretch of them.
#include "../common/scatter.h"

#include "scatter.h"
#include "select.h"
#include "sort.h"

namespace dg {
namespace {

// Sources in `lanes` that never meet, `length` in each; the indices give the number of the target of a source in its lane.
struct Problem {
  void* out;
  const void* src;    // null: the constant, in its bytes
  uint64_t constant, lanes, length;
  Nest<3, uint64_t> lane;            // offsets of a lane in out, src and index
  Nest<1, uint64_t> target, source;  // offset of a target by number, of a source by position in its lane
  Indices indices;
  bool shared;  // every lane has the same indices
  ScatterOp op;
  bool include_self;
};

template <class T>
struct Values {
  T* out;
  const T* src;
  T constant;
  __device__ Values(const Problem& p, const uint64_t (&lane)[3])
      : out(static_cast<T*>(p.out) + lane[0]), src(p.src ? static_cast<const T*>(p.src) + lane[1] : nullptr) {
    memcpy(&constant, &p.constant, sizeof constant);
  }
  __device__ T* target(const Problem& p, uint64_t number) const {
    uint64_t offset[1];
    p.target.offsets(number, offset);
    return out + offset[0];
  }
  __device__ T source(const Problem& p, uint64_t position) const {
    if (!src) return constant;
    uint64_t offset[1];
    p.source.offsets(position, offset);
    return src[offset[0]];
  }
};

// What an op makes of the old element and a source; for elements that are only moved (as unsigned integers), the source.
template <class T, bool moves>
__device__ T fold(ScatterOp op, T old, T v) {
  if constexpr (!moves) {
    T result = v;
    select<ScatterOp, ScatterOp::count>(op, [&](auto code) { result = scatter_value<code(), T>(old, v); });
    return result;
  }
  return v;
}

// Leaves in *refused whether an index is outside its axis. The last block reports the first such index.
__global__ void check_all(IndexCheck check, int* refused, uint64_t* found, unsigned* counter) {
  const auto least = [](uint64_t a, uint64_t b) { return a < b ? a : b; };
  uint64_t first = check.find(uint64_t(blockIdx.x) * blockDim.x + threadIdx.x, uint64_t(gridDim.x) * blockDim.x);
  if (gridDim.x > 1) {
    first = block_reduce(first, uint64_t(UINT64_MAX), least);
    if (threadIdx.x == 0) found[blockIdx.x] = first;
    if (!last_block(counter, gridDim.x)) return;
    first = UINT64_MAX;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) first = least(first, found[i]);
  }
  const bool bad = check.refuse(first);
  if (threadIdx.x == 0) *refused = bad;
}

// Whether nothing may be written. A grid of one block finds out itself (refused null).
__device__ bool stopped(const IndexCheck& check, const int* refused) {
  if (refused) return *refused != 0;
  return check.refuse(check.find(threadIdx.x, blockDim.x));
}

// One thread a lane: all its sources in order.
template <class T, bool moves>
__global__ void walk_lanes(Problem p, IndexCheck check, const int* refused) {
  if (stopped(check, refused)) return;
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.lanes; i += stride) {
    uint64_t lane[3];
    p.lane.offsets(i, lane);
    const Values<T> values(p, lane);
    if (!moves && !p.include_self) {
      const T identity = scatter_identity<T>(p.op);
      for (uint64_t a = 0; a < p.length; a++) *values.target(p, p.indices.number(a, lane[2])) = identity;
    }
    for (uint64_t a = 0; a < p.length; a++) {
      T* const to = values.target(p, p.indices.number(a, lane[2]));
      const T value = fold<T, moves>(p.op, moves ? T{} : *to, values.source(p, a));
      *to = value;
    }
  }
}

// One thread a source, where their order does not matter: no target has two sources, or all sources are the same.
template <class T, bool moves>
__global__ void write_each(Problem p, IndexCheck check, const int* refused) {
  if (stopped(check, refused)) return;
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.lanes * p.length; i += stride) {
    const uint64_t a = i / p.lanes;
    uint64_t lane[3];
    p.lane.offsets(i - a * p.lanes, lane);
    const Values<T> values(p, lane);
    T* const to = values.target(p, p.indices.number(a, lane[2]));
    const T value = moves ? values.source(p, a) : fold<T, moves>(p.op, p.include_self ? *to : scatter_identity<T>(p.op), values.source(p, a));
    *to = value;
  }
}

// The sources of a lane by target: the number of the target above the position, which has `bits` bits.
struct TargetSource {
  Problem p;
  int bits;
  __device__ Packed operator()(int64_t row, int64_t position) const {
    uint64_t lane[3];
    p.lane.offsets(uint64_t(row), lane);
    return p.indices.number(uint64_t(position), lane[2]) << bits | uint64_t(position);
  }
};

// One thread a source of the sorted lists; that of a target's first (or, for moves, last) source writes.
template <class T, bool moves>
__global__ void write_sorted(Problem p, const Packed* sorted, int bits, IndexCheck check, const int* refused) {
  if (stopped(check, refused)) return;
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.lanes * p.length; i += stride) {
    const uint64_t line = p.shared ? i / p.lanes : i / p.length, rest = i - line * (p.shared ? p.lanes : p.length);
    const uint64_t own_lane = p.shared ? rest : line, rank = p.shared ? line : rest;
    const Packed* const list = sorted + (p.shared ? 0 : own_lane * p.length);
    const uint64_t number = list[rank] >> bits, mask = (uint64_t(1) << bits) - 1;
    if (moves ? rank + 1 < p.length && list[rank + 1] >> bits == number : rank > 0 && list[rank - 1] >> bits == number) continue;
    uint64_t lane[3];
    p.lane.offsets(own_lane, lane);
    const Values<T> values(p, lane);
    T* const to = values.target(p, number);
    if constexpr (moves) {
      *to = values.source(p, list[rank] & mask);
    } else {
      T value = p.include_self ? *to : scatter_identity<T>(p.op);
      constexpr int ahead = 4;  // sources under way at a time
      for (uint64_t at = rank;; at += ahead) {
        T sources[ahead];
        int count = 0;
#pragma unroll
        for (int k = 0; k < ahead; k++) {
          const Packed entry = at + k < p.length ? list[at + k] : ~number << bits;
          if (count == k && entry >> bits == number) {
            sources[k] = values.source(p, entry & mask);
            count++;
          }
        }
#pragma unroll
        for (int k = 0; k < ahead; k++)
          if (k < count) value = fold<T, moves>(p.op, value, sources[k]);
        if (count < ahead) break;
      }
      *to = value;
    }
  }
}

template <class F>
void dispatch_values(uint32_t dtype, ScatterOp op, const char* name, F&& f) {
  if (op == ScatterOp::assign) dispatch_width(dtype, [&](auto kind) { f(kind, std::true_type{}); });
  else dispatch_numbers(dtype, name, [&](auto kind) { f(kind, std::false_type{}); });
}

int bits_for(uint64_t count) {
  int bits = 1;
  while (bits < 63 && (uint64_t(1) << bits) < count) bits++;
  return bits;
}

// `targets`: how many numbers there are; `apart`: the indices lie in other memory than the elements that are written.
void run(const char* name, const Problem& p, const IndexCheck& check, uint32_t dtype, uint64_t targets, bool apart) {
  const int64_t work = int64_t(p.lanes * p.length), indices = int64_t(check.numel) * check.indices.count;
  const bool ordered = p.length > 1 && !(p.op == ScatterOp::assign && !p.src);
  const bool each = !ordered && apart, walks = !each && apart && (p.length <= 16 || (!p.shared && p.lanes >= 16384));
  const bool alone = work > 0 && work <= 4096 && indices <= 4096;  // one block, which then needs no check before
  constexpr unsigned check_blocks = 1024;
  const Scratch scratch(16 + check_blocks * 8);
  int* const refused = alone ? nullptr : scratch.as<int>();
  const int block = work <= 256 ? 64 : kThreads;
  if (!alone)
    launch("check_indices", check_all, std::min(blocks_for(indices, kThreads * 2), check_blocks), kThreads, 0, check, refused, scratch.as<uint64_t>() + 2,
           counters());
  if (work == 0) return;
  auto grid = [&](int64_t threads) { return alone ? 1u : blocks_for(threads, block); };
  if (each || walks)
    return dispatch_values(dtype, p.op, name, [&](auto kind, auto moves) {
      using T = typename decltype(kind)::type;
      if (each) launch(name, write_each<T, moves()>, grid(work), block, 0, p, check, refused);
      else launch(name, walk_lanes<T, moves()>, grid(int64_t(p.lanes)), block, 0, p, check, refused);
    });
  const int bits = bits_for(p.length);
  if (bits + bits_for(targets) > 64) fail(DG_OUT_OF_MEMORY, "%s: more indices and elements than 64 bits tell apart", name);
  const int64_t lists = p.shared ? 1 : int64_t(p.lanes), length = int64_t(p.length);
  const Scratch list(lists * length * 8);
  const EntryBuffer<Packed> sorted{list.as<Packed>(), length};
  sort_rows<Packed>("sort_targets", lists, length, length, false, TargetSource{p, bits}, sorted);
  dispatch_values(dtype, p.op, name, [&](auto kind, auto moves) {
    using T = typename decltype(kind)::type;
    launch(name, write_sorted<T, moves()>, grid(work), block, 0, p, sorted.entries, bits, check, refused);
  });
}

char* address(const Tensor& x) { return x.storage_data + x.offset * dtype_size(x.dtype); }

// Where the elements of a source begin (null for a constant), and the bytes of a constant's element.
void set_source(Problem& p, const ScatterSource& src) {
  p.src = src.constant ? nullptr : address(src.tensor);
  if (!src.constant) return;
  dispatch_all(src.tensor.dtype, "scatter", [&](auto kind) {
    const auto v = convert<typename decltype(kind)::type>(src.value);
    std::memcpy(&p.constant, &v, sizeof v);
  });
}

void scatter_along(const char* name, const Tensor& out, const Tensor& index, const ScatterSource& source, int axis, ScatterOp op,
                   bool include_self, const Report& bad) {
  const Tensor& src = source.tensor;
  Tensor lanes[3] = {out, src, index};
  bool shared = true;
  for (int i = 0; i < index.rank; i++) shared &= i == axis || index.sizes[i] == 1 || index.strides[i] == 0;
  for (Tensor& lane : lanes) {
    std::copy(index.sizes, index.sizes + index.rank, lane.sizes);
    lane.sizes[axis] = 1;
    lane.numel = index.numel / index.sizes[axis];
  }
  Tensor line = src, whole = out;  // the axis alone: of the sources, and of the targets
  line.rank = whole.rank = 1;
  line.numel = line.sizes[0] = index.sizes[axis];
  line.strides[0] = src.strides[axis];
  whole.numel = whole.sizes[0] = out.sizes[axis];
  whole.strides[0] = out.strides[axis];
  const Loop<3> nest({&lanes[0], &lanes[1], &lanes[2]});
  Indices own = {};
  own.count = own.rank = 1;
  own.sizes[0] = uint64_t(index.sizes[axis]);
  own.axes[0] = index_axis(index, out.sizes[axis], 1);
  own.axes[0].strides[0] = uint64_t(index.strides[axis]);
  Problem p{address(out), nullptr, 0, uint64_t(nest.numel), uint64_t(line.numel), Nest<3, uint64_t>(nest),
            Nest<1, uint64_t>(Loop<1>({&whole})), Nest<1, uint64_t>(Loop<1>({&line})), own, shared, op, include_self};
  set_source(p, source);
  IndexCheck check{own, {{bad}}, uint64_t(index.numel)};
  const Tensor order = row_major(index);
  set_places(check.indices, Loop<2>({&order, &index}), 1);
  if (shared) {
    check.indices = own;
    check.numel = own.sizes[0];
  }
  run(name, p, check, out.dtype, uint64_t(out.sizes[axis]), !overlaps(index, out));
}

}  // namespace

void add_in_order(const Tensor& out, const Tensor& index, const Tensor& src, const Report& bad) {
  scatter_along("add_in_order", out, index, {src}, 0, ScatterOp::sum, true, bad);
}

void scatter(const Tensor& out, const Tensor& index, const ScatterSource& src, int axis, ScatterOp op, bool include_self) {
  scatter_along("scatter", out, index, src, axis, op, include_self, bad_index(out.sizes[axis], axis, false));
}

void index_put(const Tensor& x, const ScatterSource& source, const RowIndices& given, ScatterOp op) {
  const Tensor& src = source.tensor;
  NamedRows rows(given, x, false);
  const int lead = rows.shape.rank, count = rows.count();
  const Tensor x_row = trailing_axes(x, count), src_row = trailing_axes(src, lead), targets = leading_axes(x, count);
  const Tensor order = row_major(targets);
  const Loop<10> places = rows.loop(leading_axes(src, lead));
  set_places(rows.indices, places, 2);
  bool apart = true;
  for (int k = 0; k < count; k++) apart &= !overlaps(rows.tensors[k], x);
  const Loop<3> row({&x_row, &src_row, &x_row});
  Problem p{address(x), nullptr, 0, uint64_t(x_row.numel), uint64_t(rows.shape.numel), Nest<3, uint64_t>(row),
            operand(Loop<2>({&order, &targets}), 1), operand(places, 1), rows.indices, true, op, true};
  set_source(p, source);
  for (int i = 0; i < p.lane.rank; i++) p.lane.strides[2][i] = 0;  // the indices are the same for all of a row
  run("index_put", p, {rows.indices, rows.reports, uint64_t(rows.shape.numel)}, x.dtype, uint64_t(targets.numel), apart);
}

}  // namespace dg
