// max(), min(), argmax() and argmin() along an axis.
#include "../common/extremum.h"
#include "optional.h"

using namespace dg;

int32_t dg_extremum(const dg_tensor* t, uint32_t values_slot, uint32_t indices_slot, uint32_t x_slot, uint32_t axis, uint32_t smallest) {
  return guard([&] {
    const char* const name = "extremum";
    const Tensor indices = tensor_at(t, indices_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Optional values(t, values_slot, name, Access::write);
    require_axis(x, axis, name);
    require_picks(indices, values, x, name);
    const Plan plan(indices, x, 1u << axis, name);
    if (plan.outputs == 0) return;
    if (plan.count == 0) fail(DG_SHAPE, "%s: no largest or smallest of no elements", name);
    extremum(values, indices, x, plan, int(axis), smallest != 0);
  });
}
