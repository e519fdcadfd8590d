// Recording the calls of a thread into a program that makes them again. Every exported function that takes a frame is a wrapper
// (recorded_calls.inc, which CMake makes of abi.h) around the function of that name in entry/, which is compiled as entry_<name>.
#pragma once
#include <bit>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "tensor.h"

namespace dg {

// Makes a call with other headers and arguments; an argument is a double or a whole number of 32 bits, in the bits of `word`.
using Repeat = int32_t (*)(const dg_tensor* t, const uint64_t* words);

// What a recorded call is: how to repeat it, its arguments, and which of them are doubles.
struct CallRecord {
  Repeat repeat;
  const uint64_t* words;
  uint32_t count, doubles;
};

// True while this thread records.
bool recording();
// Around a call: what it is called is kept before, the rest when it has succeeded.
void before_recorded_call();
void after_recorded_call(const CallRecord& call, const dg_tensor* t) noexcept;

template <class A>
uint64_t word_of(A value) {
  if constexpr (std::is_same_v<A, double>) return std::bit_cast<uint64_t>(value);
  else return uint64_t(value);
}

template <class A>
A argument_of(uint64_t word) {
  if constexpr (std::is_same_v<A, double>) return std::bit_cast<double>(word);
  else return A(word);
}

template <auto entry, class... A>
int32_t repeat_call(const dg_tensor* t, const uint64_t* words) {
  return [&]<size_t... i>(std::index_sequence<i...>) { return entry(t, argument_of<A>(words[i])...); }(std::index_sequence_for<A...>{});
}

template <auto entry, class... A>
int32_t make_call(const dg_tensor* t, A... arguments) {
  if (!recording()) [[likely]] return entry(t, arguments...);
  before_recorded_call();
  const int32_t status = entry(t, arguments...);
  if (status != DG_OK) return status;
  const uint64_t words[] = {word_of(arguments)...};
  uint32_t doubles = 0, bit = 0;
  ((doubles |= uint32_t(std::is_same_v<A, double>) << bit++), ...);
  after_recorded_call({&repeat_call<entry, A...>, words, uint32_t(sizeof...(A)), doubles}, t);
  return status;
}

}  // namespace dg
