// What native code beside the library has reported of a device.
#pragma once

namespace dg {

// Fails with what dg_report left for the current device.
void raise_reported();

}  // namespace dg
