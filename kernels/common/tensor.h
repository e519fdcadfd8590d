// Decoding and validating the tensor headers of a call.
#pragma once
#include <algorithm>
#include <cmath>

#include "dtype.h"
#include "status.h"

namespace dg {

// Address and size of a live storage; fails with DG_DISPOSED otherwise. From the table of entry/memory.cpp.
struct Region {
  char* data;
  int64_t bytes;
  uint32_t device = 0, stream = 0;  // stream: the one that it was allocated for
};
Region storage_region(uint32_t storage, const char* op);

// A validated header: every element that its sizes and strides reach lies inside its storage.
struct Tensor {
  char* storage_data = nullptr;
  int64_t offset = 0;
  int64_t numel = 0;
  uint32_t dtype = 0;
  int rank = 0;
  int64_t sizes[DG_MAX_RANK] = {};
  int64_t strides[DG_MAX_RANK] = {};
  uint32_t storage = 0;

  template <class T> T* data() const { return reinterpret_cast<T*>(storage_data) + offset; }
  int64_t size(int axis) const { return sizes[axis < 0 ? axis + rank : axis]; }
  int64_t stride(int axis) const { return strides[axis < 0 ? axis + rank : axis]; }

  // Row-major without gaps; without elements always.
  bool contiguous() const {
    if (numel == 0) return true;
    int64_t expected = 1;
    for (int i = rank - 1; i >= 0; i--) {
      if (sizes[i] != 1 && strides[i] != expected) return false;
      expected *= sizes[i];
    }
    return true;
  }

  // Axis 1 innermost and the others row-major around it: [N, spatial..., C] in memory, without gaps.
  bool channels_last() const {
    if (rank < 3) return contiguous();
    if (sizes[1] != 1 && strides[1] != 1) return false;
    int64_t expected = sizes[1];
    for (int i = rank - 1; i >= 2; i--) {
      if (sizes[i] != 1 && strides[i] != expected) return false;
      expected *= sizes[i];
    }
    return sizes[0] == 1 || strides[0] == expected;
  }

  // Some axis order in which it is row-major without gaps.
  bool dense() const {
    int order[DG_MAX_RANK], count = 0;
    for (int i = 0; i < rank; i++)
      if (sizes[i] != 1) order[count++] = i;
    for (int i = 1; i < count; i++)
      for (int j = i; j > 0 && strides[order[j]] < strides[order[j - 1]]; j--) std::swap(order[j], order[j - 1]);
    int64_t expected = 1;
    for (int i = 0; i < count; i++) {
      if (strides[order[i]] != expected) return false;
      expected *= sizes[order[i]];
    }
    return true;
  }
};

inline bool same_sizes(const Tensor& a, const Tensor& b) {
  return a.rank == b.rank && std::equal(a.sizes, a.sizes + a.rank, b.sizes);
}

inline bool same_strides(const Tensor& a, const Tensor& b) {
  for (int i = 0; i < a.rank; i++)
    if (a.sizes[i] != 1 && a.strides[i] != b.strides[i]) return false;
  return true;
}

inline std::string shape_text(const Tensor& t) {
  std::string text = "[";
  for (int i = 0; i < t.rank; i++) text += (i ? ", " : "") + std::to_string(t.sizes[i]);
  return text + "]";
}

enum class Access { read, write };

// Provided by each library (device.cpp, device.cu): the device type that it serves (0 cpu, 1 cuda), and what makes a device of an index the one that the
// current call works on; fails with DG_DEVICE if there is none.
uint32_t library_device_type();
void require_device(uint32_t index, const char* op);

// How many headers the frame of the running call has, and how many of them calls of this thread have come to.
struct FrameUse {
  uint32_t slots = DG_MAX_SLOTS, reach = 0;
};
inline thread_local FrameUse frame_use;

// Validates header `slot` of a call.
inline Tensor tensor_at(const dg_tensor* frame, uint32_t slot, const char* op, Access access = Access::read) {
  if (!frame || slot >= frame_use.slots) fail(DG_RANGE, "%s: header slot %u does not exist", op, slot);
  frame_use.reach = std::max(frame_use.reach, slot + 1);
  const dg_tensor& header = frame[slot];
  if (header.device_type != library_device_type()) fail(DG_DEVICE, "%s: tensor of another device", op);
  if (call_device < 0) {
    require_device(header.device_index, op);
    call_device = header.device_index;
  } else if (call_device != header.device_index) {
    fail(DG_DEVICE, "%s: tensors on devices %d and %d of one kind", op, call_device, int(header.device_index));
  }
  if (header.dtype > DG_BOOL) fail(DG_DTYPE, "%s: dtype code %u does not exist", op, header.dtype);
  if (header.rank > DG_MAX_RANK) fail(DG_SHAPE, "%s: rank %u exceeds %d", op, header.rank, DG_MAX_RANK);
  const double limit = 9007199254740992.0;
  auto integer = [&](double v, const char* what) {
    if (!(v >= 0 && v <= limit) || v != std::floor(v)) fail(DG_SHAPE, "%s: %s %g is not a whole number >= 0", op, what, v);
    return int64_t(v);
  };
  Tensor t;
  t.dtype = header.dtype;
  t.rank = header.rank;
  t.storage = header.storage;
  t.offset = integer(header.offset, "offset");
  t.numel = 1;
  int64_t last = 0;  // offset of the furthest element
  bool overlap = false, overflow = false;
  for (int i = 0; i < t.rank; i++) {
    t.sizes[i] = integer(header.sizes[i], "size");
    t.strides[i] = integer(header.strides[i], "stride");
    if (t.sizes[i] > 1 && t.strides[i] == 0) overlap = true;
    overflow |= __builtin_mul_overflow(t.numel, t.sizes[i], &t.numel);
    int64_t span;
    overflow |= __builtin_mul_overflow(std::max<int64_t>(t.sizes[i] - 1, 0), t.strides[i], &span);
    overflow |= __builtin_add_overflow(last, span, &last);
  }
  for (int i = 0; i < t.rank; i++)
    if (t.sizes[i] == 0) { t.numel = 0; overflow = false; }
  Region region = storage_region(t.storage, op);
  if (region.device != header.device_index) fail(DG_DEVICE, "%s: a header names device %d, its memory is on device %u", op, call_device, region.device);
  t.storage_data = region.data;
  int64_t end;
  overflow |= __builtin_add_overflow(last, t.offset, &end);
  if (t.numel > 0 && (overflow || end >= region.bytes / dtype_size(t.dtype)))
    fail(DG_SHAPE, "%s: a tensor reaches past its storage of %lld bytes", op, static_cast<long long>(region.bytes));
  if (t.numel == 0) t.offset = 0;
  if (access == Access::write && overlap && t.numel > 0)
    fail(DG_SHAPE, "%s: more than one element of the written-to tensor refers to a single memory location, clone() first", op);
  return t;
}

inline bool present(uint32_t slot) { return slot != DG_NONE; }

inline void require_dtype(const Tensor& t, uint32_t dtype, const char* op, const char* what) {
  if (t.dtype != dtype) fail(DG_DTYPE, "%s: %s must be %s, got %s", op, what, dtype_name(dtype), dtype_name(t.dtype));
}

inline void require_float(const Tensor& t, const char* op) {
  if (!is_float_dtype(t.dtype)) fail(DG_DTYPE, "%s: takes a floating point dtype, got %s", op, dtype_name(t.dtype));
}

inline void require_numbers(const Tensor& t, const char* op) {
  if (t.dtype == DG_BOOL) fail(DG_DTYPE, "%s: takes a numeric dtype, got bool", op);
}

inline void require_same_sizes(const Tensor& a, const Tensor& b, const char* op) {
  if (!same_sizes(a, b)) fail(DG_SHAPE, "%s: sizes differ: %s and %s", op, shape_text(a).c_str(), shape_text(b).c_str());
}

// Refuses to read a broadcast input so often that the call would not end in reasonable time.
inline void require_finite_work(const Tensor& x, const char* op) {
  if (x.numel <= int64_t(1) << 36) return;
  for (int i = 0; i < x.rank; i++)
    if (x.sizes[i] > 1 && x.strides[i] == 0)
      fail(DG_SHAPE, "%s: a broadcast input of %lld elements is too large to read one by one", op, static_cast<long long>(x.numel));
}

}  // namespace dg
