// Addresses and secrets.
#include "rpc/address.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/core/error.h"
#include "rpc/coordinator.h"
#include "rpc/secret.h"
#include "tests/rpc/tcp_relay.h"
#include "tests/rpc/test_job.h"

namespace spillway {
namespace {

TEST(Address, GoodOnesComeApartAndTogether) {
  const std::pair<const char*, HostPort> cases[] = {
      {"127.0.0.1:7000", {"127.0.0.1", 7000}},
      {"node-a.cluster:1", {"node-a.cluster", 1}},
      {"[::1]:65535", {"::1", 65535}},
      {"0.0.0.0:0", {"0.0.0.0", 0}},
  };
  for (const auto& [text, expected] : cases) {
    const HostPort parsed = parse_host_port(text, true);
    EXPECT_EQ(parsed.host, expected.host) << text;
    EXPECT_EQ(parsed.port, expected.port) << text;
    EXPECT_EQ(to_string(parsed), text);
  }
}

TEST(Address, BadOnesAreErrorsWithAnExample) {
  for (const std::string bad : {"",
                                ":",
                                "host",
                                "host:",
                                ":80",
                                "::1",
                                "::1:80",
                                "[::1]",
                                "[::1]:",
                                "[1.2.3.4]:80",
                                "[]:80",
                                "host:65536",
                                "host:99999999999",
                                "host:-1",
                                "host:+1",
                                "host:8 0",
                                "ho st:80",
                                "host:0x10",
                                "http://host:80",
                                "a\nb:80"}) {
    try {
      parse_host_port(bad, true);
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_TRUE(testing::has(error.what(), "127.0.0.1:7000")) << error.what();
    }
  }
  EXPECT_THROW(parse_host_port("host:0", false), Error);
}

TEST(Address, ListeningNeedsAFreePortOfThisHost) {
  EXPECT_EQ(resolve_for_listening({"127.0.0.1", 0}).host, "127.0.0.1");
  EXPECT_EQ(resolve_for_listening({"localhost", 0}).host, "127.0.0.1");
  EXPECT_THROW(resolve_for_listening({"203.0.113.7", 0}), Error);  // documentation range
  int port = 0;
  const int fd = testing::listen_on_loopback(&port, testing::own_loopback());
  const HostPort own = parse_host_port(testing::address_text(testing::own_loopback(), port), false);
  EXPECT_THROW(resolve_for_listening(own), Error);
  ::close(fd);
  EXPECT_EQ(resolve_for_listening(own).port, port);
}

TEST(Address, OthersNeedANumberTheyCanReach) {
  EXPECT_EQ(reachable({"10.1.2.3", 5}).host, "10.1.2.3");
  EXPECT_NE(reachable({"0.0.0.0", 5}).host, "0.0.0.0");
  EXPECT_NE(reachable({"::", 5}).host, "::");
}

TEST(Address, TargetsBypassTheResolverWhenNumeric) {
  EXPECT_EQ(grpc_target({"127.0.0.1", 5}), "ipv4:127.0.0.1:5");
  EXPECT_EQ(grpc_target({"::1", 5}), "ipv6:[::1]:5");
  EXPECT_EQ(grpc_target({"node", 5}), "dns:///node:5");
}

TEST(Address, OnlyLoopbackIsLoopback) {
  for (const char* peer : {"ipv4:127.0.0.1:40", "ipv4:127.9.9.9:40", "ipv6:[::1]:40",
                           "ipv6:%5B::1%5D:40", "ipv6:[::ffff:127.0.0.1]:40"}) {
    EXPECT_TRUE(peer_is_loopback(peer)) << peer;
  }
  for (const char* peer :
       {"ipv4:10.0.0.1:40", "ipv4:128.0.0.1:40", "ipv6:[fe80::1]:40", "ipv6:[::]:40",
        "ipv6:[::ffff:10.0.0.1]:40", "ipv4:127.0.0.1.evil:40", "unix:/127.0.0.1:1", "", "ipv4:"}) {
    EXPECT_FALSE(peer_is_loopback(peer)) << peer;
  }
}

TEST(Secret, IsLongAndNeverTheSame) {
  std::set<std::string> seen;
  for (int i = 0; i < 50; ++i) {
    const std::string secret = make_job_secret();
    EXPECT_EQ(secret.size(), 64u);
    EXPECT_EQ(secret.find_first_not_of("0123456789abcdef"), std::string::npos);
    EXPECT_TRUE(seen.insert(secret).second);
  }
}

TEST(Secret, EqualMeansEqual) {
  EXPECT_TRUE(secrets_equal("abc", "abc"));
  EXPECT_TRUE(secrets_equal("", ""));
  for (const char* other : {"", "ab", "abd", "xbc", "abcabc", "abca", "ABC"}) {
    EXPECT_FALSE(secrets_equal("abc", other)) << other;
  }
  EXPECT_FALSE(secrets_equal("", "a"));
  EXPECT_FALSE(secrets_equal("abc", std::string("abc\0", 4)));
}

}  // namespace
}  // namespace spillway
