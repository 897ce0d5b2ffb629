#include "wire/errno_map.h"

#include <cerrno>

namespace hast {
namespace {

struct Pair {
  int16_t wire;
  int host;
};

// FreeBSD's numbers (its public errno.h). 1 to 10 and 12 to 34 are the same everywhere.
constexpr Pair kPairs[] = {
    {11, EDEADLK},      {35, EAGAIN},          {36, EINPROGRESS},  {37, EALREADY},
    {38, ENOTSOCK},     {39, EDESTADDRREQ},    {40, EMSGSIZE},     {41, EPROTOTYPE},
    {42, ENOPROTOOPT},  {43, EPROTONOSUPPORT}, {45, EOPNOTSUPP},   {47, EAFNOSUPPORT},
    {48, EADDRINUSE},   {49, EADDRNOTAVAIL},   {50, ENETDOWN},     {51, ENETUNREACH},
    {52, ENETRESET},    {53, ECONNABORTED},    {54, ECONNRESET},   {55, ENOBUFS},
    {56, EISCONN},      {57, ENOTCONN},        {58, ESHUTDOWN},    {60, ETIMEDOUT},
    {61, ECONNREFUSED}, {62, ELOOP},           {63, ENAMETOOLONG}, {64, EHOSTDOWN},
    {65, EHOSTUNREACH}, {66, ENOTEMPTY},       {69, EDQUOT},       {70, ESTALE},
    {77, ENOLCK},       {78, ENOSYS},          {84, EOVERFLOW},    {85, ECANCELED},
    {86, EILSEQ},       {89, EBADMSG},         {92, EPROTO},
};
constexpr int16_t kWireEftype = 79;  // "inappropriate file type": Linux has no such number

bool same_everywhere(int number) { return number >= 0 && number <= 34 && number != 11; }

}  // namespace

int16_t errno_to_wire(int host_errno) {
  if (same_everywhere(host_errno)) return static_cast<int16_t>(host_errno);
  for (const Pair& pair : kPairs) {
    if (pair.host == host_errno) return pair.wire;
  }
  return EIO;
}

int errno_from_wire(int16_t wire_errno) {
  if (same_everywhere(wire_errno)) return wire_errno;
  if (wire_errno == kWireEftype) return EINVAL;
  for (const Pair& pair : kPairs) {
    if (pair.wire == wire_errno) return pair.host;
  }
  return EIO;
}

}  // namespace hast
