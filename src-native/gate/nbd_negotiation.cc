#include "gate/nbd_negotiation.h"

#include <sys/uio.h>

#include <array>
#include <memory>
#include <optional>

#include "base/bytes.h"
#include "gate/nbd_format.h"

namespace hast::nbd {

namespace {

constexpr std::size_t kOptionBytesMax = 8192;       // a name, and queries or kinds of information
constexpr std::size_t kOptionBytesSkipped = 65536;  // longer than this is not worth an answer
constexpr std::size_t kReplyBytesMax = kNameBytesMax + 64;
constexpr uint32_t kKnownClientFlags = kFixedNewstyle | kNoZeroes;

constexpr std::array kInfos = {Info::kExport, Info::kBlockSize, Info::kName};

/// What one handshake needs; lives as long as it.
struct Handshake {
  Handshake(Stream& s, const Export& e) : stream(s), offered(e) {}

  Stream& stream;
  const Export& offered;
  Session session;
  bool no_zeroes = false;
  bool wants_block_status = false;
  std::array<std::byte, kOptionBytesMax> data;
  std::array<std::byte, kReplyBytesMax> reply;

  bool names_export(std::string_view name) const { return name.empty() || name == offered.name; }
};

/// What to do after an option.
enum class Then { kNextOption, kClose, kTransmit };

Task<int> send_bytes(Stream& stream, ConstBytes bytes) {
  iovec part = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  const int error = co_await send_all(stream, std::span<iovec>(&part, 1));
  co_return error;
}

/// Replies with the `size` bytes that stand behind the header's place in `h.reply`.
Task<Then> answer(Handshake& h, uint32_t option, OptionReply type, std::size_t size) {
  const std::size_t header =
      encode_option_reply(h.reply.data(), option, type, static_cast<uint32_t>(size));
  const int error = co_await send_bytes(h.stream, ConstBytes(h.reply).first(header + size));
  co_return error == 0 ? Then::kNextOption : Then::kClose;
}

Task<Then> answer(Handshake& h, uint32_t option, OptionReply type) {
  const Then then = co_await answer(h, option, type, 0);
  co_return then;
}

std::byte* reply_data(Handshake& h) { return h.reply.data() + kOptionReplyHeaderBytes; }

std::size_t put_text(std::byte* to, std::string_view text) {
  std::memcpy(to, text.data(), text.size());
  return text.size();
}

uint16_t transmission_flags(const Handshake& h) {
  uint16_t flags =
      kHasFlags | kSendFlush | kSendFua | kSendWriteZeroes | kCanMultiConn | kSendCache;
  if (h.offered.can_trim) flags |= kSendTrim;
  if (h.session.structured_replies) flags |= kSendDontFragment;
  return flags;
}

Then agree(Handshake& h) {
  h.session.agreed = true;
  h.session.block_status = h.wants_block_status && h.session.structured_replies;
  return Then::kTransmit;
}

Task<Then> export_name(Handshake& h, ConstBytes data) {
  const std::string_view name(reinterpret_cast<const char*>(data.data()), data.size());
  if (!h.names_export(name)) co_return Then::kClose;  // this option knows no error
  std::size_t size =
      encode_export_name_reply(h.reply.data(), h.offered.size_bytes, transmission_flags(h));
  if (!h.no_zeroes) {
    std::memset(h.reply.data() + size, 0, kExportNameZeroes);
    size += kExportNameZeroes;
  }
  const int error = co_await send_bytes(h.stream, ConstBytes(h.reply).first(size));
  if (error != 0) co_return Then::kClose;
  co_return agree(h);
}

Task<Then> list(Handshake& h, uint32_t option, ConstBytes data) {
  if (!data.empty()) {
    const Then then = co_await answer(h, option, OptionReply::kErrInvalid);
    co_return then;
  }
  std::byte* to = reply_data(h);
  store_be32(to, static_cast<uint32_t>(h.offered.name.size()));
  const std::size_t size = 4 + put_text(to + 4, h.offered.name);
  const Then then = co_await answer(h, option, OptionReply::kServer, size);
  if (then == Then::kClose) co_return then;
  const Then last = co_await answer(h, option, OptionReply::kAck);
  co_return last;
}

Task<Then> answer_info(Handshake& h, uint32_t option, Info kind) {
  std::byte* to = reply_data(h);
  store_be16(to, static_cast<uint16_t>(kind));
  std::size_t size = 2;
  switch (kind) {
    case Info::kExport:
      store_be64(to + 2, h.offered.size_bytes);
      store_be16(to + 10, transmission_flags(h));
      size += 10;
      break;
    case Info::kName:
      size += put_text(to + 2, h.offered.name);
      break;
    case Info::kBlockSize:
      store_be32(to + 2, h.offered.block_bytes);
      store_be32(to + 6, kPreferredBlockBytes);
      store_be32(to + 10, kPayloadBytesMax);
      size += 12;
      break;
  }
  const Then then = co_await answer(h, option, OptionReply::kInfo, size);
  co_return then;
}

/// INFO and GO.
Task<Then> info(Handshake& h, uint32_t option, ConstBytes data) {
  const std::optional<InfoRequest> request = decode_info_request(data);
  if (!request || !h.names_export(request->name)) {
    const OptionReply error = request ? OptionReply::kErrUnknown : OptionReply::kErrInvalid;
    const Then then = co_await answer(h, option, error);
    co_return then;
  }
  for (const Info kind : kInfos) {
    if (kind == Info::kName && !request->wants_name) continue;
    const Then then = co_await answer_info(h, option, kind);
    if (then == Then::kClose) co_return then;
  }
  const Then then = co_await answer(h, option, OptionReply::kAck);
  if (then == Then::kClose || option == static_cast<uint32_t>(Option::kInfo)) co_return then;
  co_return agree(h);
}

Task<Then> structured_reply(Handshake& h, uint32_t option, ConstBytes data) {
  if (data.empty()) h.session.structured_replies = true;
  const OptionReply reply = data.empty() ? OptionReply::kAck : OptionReply::kErrInvalid;
  const Then then = co_await answer(h, option, reply);
  co_return then;
}

/// LIST_META_CONTEXT and SET_META_CONTEXT.
Task<Then> meta_context(Handshake& h, uint32_t option, ConstBytes data) {
  const bool set = option == static_cast<uint32_t>(Option::kSetMetaContext);
  if (set) h.wants_block_status = false;  // each SET replaces the one before, also when it fails
  const std::optional<MetaRequest> request = decode_meta_request(data);
  OptionReply error = OptionReply::kAck;
  if (!request || !h.session.structured_replies) {
    error = OptionReply::kErrInvalid;
  } else if (!h.names_export(request->name)) {
    error = OptionReply::kErrUnknown;
  }
  if (error != OptionReply::kAck) {
    const Then then = co_await answer(h, option, error);
    co_return then;
  }
  const bool listed = !set && (request->queries == 0 || request->names_base_prefix);
  if (request->names_allocation || listed) {
    h.wants_block_status = h.wants_block_status || set;
    store_be32(reply_data(h), kAllocationContextId);
    const std::size_t size = 4 + put_text(reply_data(h) + 4, kAllocationContext);
    const Then then = co_await answer(h, option, OptionReply::kMetaContext, size);
    if (then == Then::kClose) co_return then;
  }
  const Then then = co_await answer(h, option, OptionReply::kAck);
  co_return then;
}

Task<Then> obey(Handshake& h, uint32_t option, ConstBytes data) {
  Then then = Then::kClose;
  switch (static_cast<Option>(option)) {
    case Option::kExportName:
      then = co_await export_name(h, data);
      break;
    case Option::kAbort:
      co_await answer(h, option, OptionReply::kAck);
      break;
    case Option::kList:
      then = co_await list(h, option, data);
      break;
    case Option::kInfo:
    case Option::kGo:
      then = co_await info(h, option, data);
      break;
    case Option::kStructuredReply:
      then = co_await structured_reply(h, option, data);
      break;
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      then = co_await meta_context(h, option, data);
      break;
    default:
      then = co_await answer(h, option, OptionReply::kErrUnsupported);
  }
  co_return then;
}

/// Receives an option's data that is too long for us, and says so.
Task<Then> refuse_long(Handshake& h, const OptionHeader& header) {
  std::size_t left = header.length;
  if (left > kOptionBytesSkipped) co_return Then::kClose;
  while (left > 0) {
    const Bytes into = Bytes(h.data).first(left < h.data.size() ? left : h.data.size());
    const int error = co_await recv_exact(h.stream, into);
    if (error != 0) co_return Then::kClose;
    left -= into.size();
  }
  if (header.option == static_cast<uint32_t>(Option::kExportName)) co_return Then::kClose;
  const Then then = co_await answer(h, header.option, OptionReply::kErrTooBig);
  co_return then;
}

Task<Then> next_option(Handshake& h) {
  std::array<std::byte, kOptionHeaderBytes> bytes;
  const int error = co_await recv_exact(h.stream, bytes);
  if (error != 0) co_return Then::kClose;
  const std::optional<OptionHeader> header = decode_option(bytes.data());
  if (!header) co_return Then::kClose;
  if (header->length > h.data.size()) {
    const Then then = co_await refuse_long(h, *header);
    co_return then;
  }
  const Bytes data = Bytes(h.data).first(header->length);
  const int data_error = co_await recv_exact(h.stream, data);
  if (data_error != 0) co_return Then::kClose;
  const Then then = co_await obey(h, header->option, data);
  co_return then;
}

/// Greeting and the client's flags. False when this is no client for us.
Task<bool> greet(Handshake& h) {
  const std::size_t size = encode_greeting(h.reply.data());
  const int send_error = co_await send_bytes(h.stream, ConstBytes(h.reply).first(size));
  if (send_error != 0) co_return false;
  std::array<std::byte, kClientFlagsBytes> bytes;
  const int error = co_await recv_exact(h.stream, bytes);
  if (error != 0) co_return false;
  const uint32_t flags = load_be32(bytes.data());
  h.no_zeroes = (flags & kNoZeroes) != 0;
  co_return (flags & ~kKnownClientFlags) == 0;
}

}  // namespace

Task<Session> negotiate(Stream& stream, const Export& offered) {
  const std::unique_ptr<Handshake> h(new Handshake(stream, offered));
  HAST_ASSERT_OP(offered.name.size(), <=, kNameBytesMax);
  const bool greeted = co_await greet(*h);
  Then then = greeted ? Then::kNextOption : Then::kClose;
  while (then == Then::kNextOption) then = co_await next_option(*h);
  co_return h->session;
}

}  // namespace hast::nbd
