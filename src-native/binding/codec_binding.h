#pragma once

#include <napi.h>

namespace hast::binding {

/// The group `codec`: pure functions of codec/ for `create`, the check at load and the benches.
/// JavaScript thread only.
void register_codec(Napi::Env env, Napi::Object exports);

}  // namespace hast::binding
