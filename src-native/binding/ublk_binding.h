#pragma once

#include <napi.h>

namespace hast::binding {

/// The control side of the kernel's ublk driver, for the addon's group `kernel`.
void register_ublk(Napi::Env env, Napi::Object group);

}  // namespace hast::binding
