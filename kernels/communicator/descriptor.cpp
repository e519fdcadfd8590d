// What calls are called in messages.
#include "group.h"

namespace dg::comm {

std::string content_text(int64_t numel, uint32_t dtype) { return std::string(dtype_name(dtype)) + "[" + std::to_string(numel) + "]"; }

std::string text_of(const Descriptor& d) {
  static const char* const kinds[] = {"allReduce", "reduce", "broadcast", "allGather", "reduceScatter", "gather", "scatter", "allToAll", "barrier"};
  static const char* const ops[] = {"sum", "average", "product", "min", "max"};
  std::string text = d.kind <= Kind::barrier ? kinds[uint32_t(d.kind)] : "an unknown collective";
  text += " #" + std::to_string(d.sequence);
  if (d.kind == Kind::barrier) return text;
  text += " of " + content_text(d.numel, d.dtype);
  std::string details;
  if (d.op <= DG_MAX) details = ops[d.op];
  if (d.root != DG_NONE) details += (details.empty() ? "root " : ", root ") + std::to_string(d.root);
  return details.empty() ? text : text + " (" + details + ")";
}

}  // namespace dg::comm
