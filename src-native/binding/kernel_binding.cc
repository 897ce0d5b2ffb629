#include "binding/kernel_binding.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "binding/arguments.h"
#include "binding/ublk_binding.h"
#include "kernel/nbd_device.h"

namespace hast::binding {
namespace {

/// Undefined; with an exception pending when there is an error.
Napi::Value ended(const Napi::CallbackInfo& info, const char* what, int error) {
  if (error != 0) throw_system(info.Env(), what, "", error);
  return info.Env().Undefined();
}

Napi::Value nbd_connect_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "nbdConnect");
  const Napi::Object from = arguments.object(0);
  const int socket = arguments.descriptor(1);
  if (arguments.bad()) return info.Env().Undefined();
  kernel::NbdDevice device;
  device.size_bytes = arguments.unsigned64_of(from, "sizeBytes");
  device.block_bytes = static_cast<uint32_t>(arguments.integer_of(from, "blockBytes", 512, 4096));
  device.dead_seconds = static_cast<uint64_t>(arguments.integer_of(from, "deadSeconds", 0, 86400));
  device.backend = arguments.text_of(from, "backend");
  if (arguments.bad()) return info.Env().Undefined();
  uint32_t index = 0;
  const int error = kernel::nbd_connect(device, socket, index);
  if (error != 0) return ended(info, "NBD_CMD_CONNECT", error);
  return Napi::Number::New(info.Env(), index);
}

Napi::Value nbd_reconnect_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "nbdReconnect");
  const auto index = static_cast<uint32_t>(arguments.integer(0, 0, INT32_MAX));
  const std::string backend = arguments.text(1);
  const int socket = arguments.descriptor(2);
  if (arguments.bad()) return info.Env().Undefined();
  return ended(info, "NBD_CMD_RECONFIGURE", kernel::nbd_reconnect(index, backend, socket));
}

Napi::Value nbd_disconnect_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "nbdDisconnect");
  const auto index = static_cast<uint32_t>(arguments.integer(0, 0, INT32_MAX));
  if (arguments.bad()) return info.Env().Undefined();
  return ended(info, "NBD_CMD_DISCONNECT", kernel::nbd_disconnect(index));
}

Napi::Value stream_pair(const Napi::CallbackInfo& info) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return ended(info, "socketpair", errno);
  }
  Napi::Array result = Napi::Array::New(info.Env(), 2);
  for (uint32_t i = 0; i < 2; ++i) result.Set(i, Napi::Number::New(info.Env(), ends[i]));
  return result;
}

Napi::Value hung_up(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "hungUp");
  pollfd one{.fd = arguments.descriptor(0), .events = POLLRDHUP, .revents = 0};
  if (arguments.bad()) return info.Env().Undefined();
  if (poll(&one, 1, 0) < 0) return ended(info, "poll", errno);
  const bool gone = (one.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL)) != 0;
  return Napi::Boolean::New(info.Env(), gone);
}

/// Whether nobody has claimed a block device for itself: a mount, another device, a target.
Napi::Value is_unclaimed(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "isUnclaimed");
  const std::string path = arguments.text(0);
  if (arguments.bad()) return info.Env().Undefined();
  const int fd = open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno != EBUSY) return ended(info, "open", errno);
  if (fd >= 0) close(fd);
  return Napi::Boolean::New(info.Env(), fd >= 0);
}

}  // namespace

void register_kernel(Napi::Env env, Napi::Object exports) {
  Napi::Object group = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    group.Set(name, Napi::Function::New(env, function, name));
  };
  add("nbdConnect", nbd_connect_js);
  add("nbdReconnect", nbd_reconnect_js);
  add("nbdDisconnect", nbd_disconnect_js);
  add("streamPair", stream_pair);
  add("hungUp", hung_up);
  add("isUnclaimed", is_unclaimed);
  register_ublk(env, group);
  exports.Set("kernel", group);
}

}  // namespace hast::binding
