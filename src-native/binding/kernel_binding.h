#pragma once

#include <napi.h>

namespace hast::binding {

/// The group `kernel`: control of the kernel's block drivers, each one function without state. What
/// they promise is said once, in KernelFunctions of src/native.ts. JavaScript thread only.
void register_kernel(Napi::Env env, Napi::Object exports);

}  // namespace hast::binding
