// broker/exporter/http.h: HTTP/1.1, of which there is one thing to get: /metrics. libmicrohttpd
// lives in http.cpp only.
//
// Not trusted: whoever connects. Each limit is one of ours: connections, what one may send, how
// long it may take in all (not only between two bytes), and how often the page is made anew.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "broker/config.h"
#include "common/fd.h"

namespace broker::exporter {

inline constexpr unsigned kConnectionsMax = 16;
inline constexpr std::size_t kRequestBytesMax = std::size_t{16} * 1024;
// From connecting to the last byte of the answer.
inline constexpr std::chrono::seconds kDeadline{20};
// A page is given to all who ask within this.
inline constexpr std::chrono::seconds kFresh{1};

struct HttpLimits {
  std::chrono::milliseconds deadline = kDeadline;
  std::chrono::milliseconds fresh = kFresh;
};

class HttpServer {
 public:
  // The page, or why there is none: one sentence.
  using Page = std::function<Answer<std::string>()>;

  // `listener`: a TCP socket that listens.
  [[nodiscard]] static Answer<std::unique_ptr<HttpServer>> make(common::Fd listener, Page page,
                                                                HttpLimits limits = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // One pass of the loop; waits for something to do, but no longer than `longest`, where there is
  // one. An error is the end.
  // syscalls: epoll_wait, epoll_ctl, accept4, recvfrom, setsockopt, sendto, clock_gettime
  [[nodiscard]] Answer<void> turn(std::chrono::milliseconds longest = std::chrono::milliseconds{
                                      -1});

  // What it waits with.
  [[nodiscard]] common::FdRef events() const noexcept;

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace broker::exporter
