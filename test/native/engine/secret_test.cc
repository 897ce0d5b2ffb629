// A secret that both nodes, one of them or neither has.

#include <algorithm>

#include "harness.h"
#include "sim/pair.h"
#include "vectors.h"

namespace hast::test {

namespace {

constexpr uint64_t kSecond = 1'000'000;
constexpr const char* kFailed = "Authentication failed: the secrets differ.";

PairOptions with_secrets(const char* a, const char* b) {
  PairOptions options;
  options.secret = {a, b};
  return options;
}

/// Node a as primary, for long enough to try several times.
void try_to_connect(Pair& pair) {
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.loop.advance(30 * kSecond);
  CHECK(!pair.a().primary()->stats().complete);
}

/// Both know each other and are equal; then the secrets change.
void connect_then_change(Pair& pair, const char* a, const char* b) {
  pair.connect();
  CHECK_EQ(pair.write(pair.a(), 0, pattern(1, 4096)), 0);
  CHECK_EQ(pair.flush(pair.a()), 0);
  pair.a().become_init();
  pair.b().become_init();
  pair.options.secret = {a, b};
}

/// An attacker who can reach node b, and what one message is answered there.
class Attacker {
 public:
  explicit Attacker(Pair& pair) : pair_(pair) {}
  ~Attacker() {
    for (const std::unique_ptr<Stream>& stream : streams_) {
      if (stream != nullptr) stream->shut_down();
    }
    pair_.loop.advance(kSecond);
  }

  ByteVector send(const ByteVector& message) {
    streams_.emplace_back();
    ByteVector answer;
    bool done = false;
    scope_.spawn(exchange(streams_.back(), message, answer, done));
    pair_.loop.run_until([&done] { return done; }, 5 * kSecond);
    CHECK(done);
    return answer;
  }
  /// Text of a refusal; empty for any other answer.
  std::string refusal(const ByteVector& message) {
    const ByteVector answer = send(message);
    if (answer.size() <= kHeadBytes) return "";
    const Result<FirstReply> reply = decode_first_reply(ConstBytes(answer).subspan(kHeadBytes));
    return reply && reply->errmsg ? std::string(*reply->errmsg) : "";
  }
  /// The answer to a first message with a nonce of ours.
  void begin(AuthKey& key, Token& token) {
    key.primary.fill(std::byte{7});
    FirstRequest message;
    message.resource = "data";
    message.ext = kExtExtended;
    message.nonce = key.primary;
    ByteVector out(1024);
    out.resize(encode_first_request(out, 2, message));
    const ByteVector answer = send(out);
    REQUIRE(answer.size() > kHeadBytes);
    const Result<FirstReply> reply = decode_first_reply(ConstBytes(answer).subspan(kHeadBytes));
    REQUIRE(reply.has_value() && reply->nonce.has_value());
    key.secondary = *reply->nonce;
    token = reply->token;
  }

 private:
  Task<void> exchange(std::unique_ptr<Stream>& stream, ByteVector message, ByteVector& answer,
                      bool& done) {
    const int rc = co_await pair_.network.connect("b", 0, kSecond, stream);
    if (rc == 0) {
      iovec part{message.data(), message.size()};
      co_await send_all(*stream, std::span<iovec>(&part, 1));
      answer.resize(1024);
      const int count = co_await stream->recv(Bytes(answer));
      answer.resize(count > 0 ? static_cast<size_t>(count) : 0);
    }
    done = true;
  }

  Pair& pair_;
  std::vector<std::unique_ptr<Stream>> streams_;
  Scope scope_;
};

ByteVector second_request(const Token& token, const AuthKey& key) {
  SecondRequest message;
  message.resource = "data";
  message.token = token;
  message.resuid = 77;
  message.localcnt = 99;
  message.extension.ext = kExtExtended;
  ByteVector out(1024);
  const size_t plain = encode_second_request(out, 2, message);
  out.resize(sign_second_request(out, plain, key));
  return out;
}

}  // namespace

TEST(secret, "two nodes with the same secret connect in every mode (rule 19)") {
  for (const Replication mode :
       {Replication::kFullsync, Replication::kMemsync, Replication::kAsync}) {
    PairOptions options = with_secrets("the same", "the same");
    options.replication = mode;
    Pair pair(options);
    pair.connect();
    CHECK_EQ(pair.write(pair.a(), 4096, pattern(2, 4096)), 0);
    pair.cut();
    CHECK(pair.settle(pair.a()));
    CHECK(pair.equal());
  }
}

TEST(secret, "different secrets are told on both sides, and nothing is touched (rule 19)") {
  Pair pair(with_secrets("one", "one"));
  connect_then_change(pair, "one", "two");
  const Metadata before = pair.b().metadata();
  const Extra extra = pair.b().extra();
  try_to_connect(pair);
  CHECK(pair.a().logged(kFailed));
  CHECK(pair.b().logged(kFailed));
  CHECK(pair.b().metadata() == before);
  CHECK(pair.b().extra() == extra);
  // Corrected, it connects without anything else.
  pair.options.secret[1] = "one";
  CHECK(pair.settle(pair.a()));
}

TEST(secret, "a secret that only the secondary has is asked for (rule 19)") {
  Pair pair(with_secrets("", "two"));
  try_to_connect(pair);
  CHECK(pair.a().logged("Authentication required: this node has a secret"));
  CHECK_EQ(pair.b().metadata().resuid, 0u);
}

TEST(secret, "a secret that only the primary has ends the set-up (rule 19)") {
  Pair pair(with_secrets("one", ""));
  try_to_connect(pair);
  CHECK(pair.a().logged("the peer has no secret for the resource"));
  CHECK_EQ(pair.b().metadata().resuid, 0u);
  CHECK_EQ(pair.a().metadata().resuid, 0u);  // not even asked who we are
}

TEST(secret, "an original cannot be authenticated (rule 19)") {
  PairOptions options = with_secrets("one", "one");
  options.original_peer = true;
  Pair pair(options);
  try_to_connect(pair);
  CHECK(pair.a().logged("Authentication required"));
}

TEST(secret, "a first answer that was made an old version's is not gone along with (rule 19)") {
  PairOptions options = with_secrets("the same", "the same");
  options.version = 1;
  Pair pair(options);
  pair.b().become_secondary();
  pair.a().become_primary();
  CHECK(pair.run_until_serving(pair.a()));
  pair.loop.advance(20 * kSecond);
  CHECK(!pair.a().primary()->stats().complete);
}

TEST(secret, "a replayed second message does not disturb a running session (rules 17, 19)") {
  Pair pair(with_secrets("one", "one"));
  pair.connect();
  const Secondary* session = pair.b().life()->secondary.get();
  const Metadata before = pair.b().metadata();
  Attacker attacker(pair);
  Token token;
  AuthKey old, fresh;
  old.secret = "one";
  attacker.begin(old, token);
  const ByteVector recorded = second_request(token, old);  // as it was seen on the way
  attacker.begin(fresh, token);
  CHECK(fresh.secondary != old.secondary);
  CHECK(attacker.refusal(recorded) == "Token doesn't match.");
  attacker.begin(fresh, token);
  ByteVector renewed = second_request(token, {});
  ByteVector signature(recorded.end() - 46, recorded.end());
  renewed.insert(renewed.end(), signature.begin(), signature.end());
  store_le(renewed.data() + 1, static_cast<uint32_t>(renewed.size() - kHeadBytes));
  CHECK(attacker.refusal(renewed) == kFailed);
  attacker.begin(fresh, token);
  CHECK(attacker.refusal(second_request(token, {})) == kFailed);
  pair.loop.advance(kSecond);
  CHECK(pair.b().life()->secondary.get() == session);
  CHECK(pair.b().metadata() == before);
  CHECK_EQ(pair.write(pair.a(), 8192, pattern(3, 4096)), 0);
  CHECK(pair.a().primary()->stats().complete);
}

TEST(secret, "a secondary that does not know the secret is not believed (rule 19)") {
  // Node b lets everybody in and signs with what it knows.
  Pair pair(with_secrets("one", "one"));
  connect_then_change(pair, "one", "one");
  pair.options.lax = true;
  pair.options.secret[1] = "two";
  try_to_connect(pair);
  CHECK(pair.a().logged("the peer could not prove that it knows the secret"));
}

}  // namespace hast::test
