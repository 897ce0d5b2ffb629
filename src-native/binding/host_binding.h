#pragma once

#include <napi.h>

namespace hast::binding {

/// The group `host`: system calls that Node lacks and the shell needs, each one function without
/// state. What they promise is said once, in HostFunctions of src/native.ts. JavaScript thread
/// only.
void register_host(Napi::Env env, Napi::Object exports);

}  // namespace hast::binding
