// The part of nvcuda::wmma that dinograd uses, for the emulated build: products of 16 x 16 matrices that a warp holds together. Names and behaviour
// follow NVIDIA's CUDA C++ programming guide; nothing here is NVIDIA's code.
#pragma once
#include "emulation.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

// Lane l of the warp holds the elements 8 l to 8 l + 8 of the matrix, row by row.
template <class Use, int m, int n, int k, class T, class Layout = void>
struct fragment {
  static_assert(m == 16 && n == 16 && k == 16);
  static constexpr int num_elements = 8;
  T x[num_elements];
};

template <class Fragment, class T>
void fill_fragment(Fragment& f, const T& value) {
  for (auto& x : f.x) x = value;
}

inline int first_element() { return int(emulation::lane()) * 8; }
inline void require_alignment(const void* p, unsigned leading, unsigned multiple) {
  if (reinterpret_cast<uintptr_t>(p) % 32 != 0 || leading % multiple != 0) emulation::fail_kernel("a matrix for the tensor cores is misaligned");
}

template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* p, unsigned leading) {
  require_alignment(p, leading, 16 / sizeof(T));
  for (int i = 0; i < 8; i++) {
    const unsigned e = unsigned(first_element() + i), row = e / 16, column = e % 16;
    f.x[i] = std::is_same_v<Layout, row_major> ? p[row * leading + column] : p[column * leading + row];
  }
}

template <class T>
void store_matrix_sync(T* p, const fragment<accumulator, 16, 16, 16, T>& f, unsigned leading, layout_t layout) {
  require_alignment(p, leading, 16 / sizeof(T));
  for (int i = 0; i < 8; i++) {
    const unsigned e = unsigned(first_element() + i), row = e / 16, column = e % 16;
    p[layout == mem_row_major ? row * leading + column : column * leading + row] = f.x[i];
  }
}

// The lanes show each other their fragments, which live on their stacks.
template <class A, class B, class C>
__attribute__((noinline, no_sanitize("thread"))) void mma_lane(float* d, const uint64_t* a, const uint64_t* b, const C& c) {
  float rows[16], columns[16][8];
  const int e = first_element(), row = e / 16, column = e % 16;
  for (int k = 0; k < 16; k++) rows[k] = float(reinterpret_cast<const A*>(a[row * 2 + k / 8])->x[k % 8]);
  for (int k = 0; k < 16; k++)
    for (int i = 0; i < 8; i++) columns[k][i] = float(reinterpret_cast<const B*>(b[k * 2 + column / 8])->x[i]);
  for (int i = 0; i < 8; i++) d[i] = c.x[i];
  for (int k = 0; k < 16; k++)
    for (int i = 0; i < 8; i++) d[i] += rows[k] * columns[k][i];
}
template <class T, class LA, class LB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& d, const fragment<matrix_a, 16, 16, 16, T, LA>& a,
              const fragment<matrix_b, 16, 16, 16, T, LB>& b, const fragment<accumulator, 16, 16, 16, float>& c) {
  using A = fragment<matrix_a, 16, 16, 16, T, LA>;
  using B = fragment<matrix_b, 16, 16, 16, T, LB>;
  uint64_t lanes[2][32];
  std::memcpy(lanes[0], emulation::exchange(0xffffffffu, reinterpret_cast<uintptr_t>(&a), "mma_sync"), sizeof lanes[0]);
  std::memcpy(lanes[1], emulation::exchange(0xffffffffu, reinterpret_cast<uintptr_t>(&b), "mma_sync"), sizeof lanes[1]);
  float sums[8];
  mma_lane<A, B>(sums, lanes[0], lanes[1], c);
  emulation::exchange(0xffffffffu, 0, "mma_sync");  // nobody changes a fragment that another lane still reads
  for (int i = 0; i < 8; i++) d.x[i] = sums[i];
}

}  // namespace nvcuda::wmma
