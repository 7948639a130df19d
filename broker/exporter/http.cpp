#include "broker/exporter/http.h"

#include <microhttpd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdarg>
#include <ctime>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

namespace broker::exporter {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// How often connections are looked at, while there are any.
constexpr milliseconds kLook{250};

struct DestroyResponse {
  void operator()(MHD_Response* response) const noexcept { MHD_destroy_response(response); }
};
using Response = std::unique_ptr<MHD_Response, DestroyResponse>;

Response make_response(std::string_view body, const char* type) {
  // The library copies what it is given where it is told to, and asks for no const.
  Response response(MHD_create_response_from_buffer(body.size(), const_cast<char*>(body.data()),
                                                    MHD_RESPMEM_MUST_COPY));
  if (!response) return response;
  (void)MHD_add_response_header(response.get(), MHD_HTTP_HEADER_CONTENT_TYPE, type);
  // One request each: a connection's time is counted from its beginning.
  (void)MHD_add_response_header(response.get(), MHD_HTTP_HEADER_CONNECTION, "close");
  return response;
}

MHD_Result reply(MHD_Connection* connection, unsigned status, std::string_view text,
                 const char* allow = nullptr) {
  const Response response = make_response(text, "text/plain; charset=utf-8");
  if (!response) return MHD_NO;
  if (allow != nullptr) (void)MHD_add_response_header(response.get(), MHD_HTTP_HEADER_ALLOW, allow);
  return MHD_queue_response(connection, status, response.get());
}

// Of a time zone the C library has a file, which it reads with the first date that it writes, GMT's
// included: now, since later no file can be opened.
void know_time_zone() {
  const std::time_t whenever = 0;
  std::tm unused{};
  (void)::gmtime_r(&whenever, &unused);
}

// What clients do wrong is theirs to know, and must not fill our log.
__attribute__((format(printf, 2, 0))) void say_nothing(void*, const char*, va_list) {}

}  // namespace

struct HttpServer::State {
  State(Page made_by, HttpLimits with) : page(std::move(made_by)), limits(with) {}

  struct Stop {
    void operator()(MHD_Daemon* started) const noexcept { MHD_stop_daemon(started); }
  };
  struct Connected {
    int socket;
    Clock::time_point since;
    bool cut = false;
  };

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url,
                               const char* method, const char* version, const char* upload,
                               std::size_t* upload_bytes, void** context) noexcept;
  static void on_connection(void* self, MHD_Connection* connection, void** context,
                            MHD_ConnectionNotificationCode code) noexcept;
  [[nodiscard]] MHD_Result answer(MHD_Connection* connection, std::string_view method,
                                  std::string_view path);
  [[nodiscard]] MHD_Result answer_page(MHD_Connection* connection);
  void note(MHD_Connection* connection, bool begins);
  void cut_off_late();

  Page page;
  HttpLimits limits;
  std::map<MHD_Connection*, Connected> connected;
  // All who ask within a second get the same one: whatever they do, the broker is asked that often.
  Response kept;
  unsigned kept_status = MHD_HTTP_OK;
  Clock::time_point kept_since{};
  // Before what its callbacks use: destroyed first.
  std::unique_ptr<MHD_Daemon, Stop> daemon;
};

MHD_Result HttpServer::State::answer(MHD_Connection* connection, std::string_view method,
                                     std::string_view path) {
  if (path != "/metrics") {
    return reply(connection, MHD_HTTP_NOT_FOUND, "There is /metrics, and nothing else.\n");
  }
  if (method != "GET") {
    return reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "Only GET is answered.\n", "GET");
  }
  return answer_page(connection);
}

MHD_Result HttpServer::State::answer_page(MHD_Connection* connection) {
  if (!kept || Clock::now() - kept_since >= limits.fresh) {
    const Answer<std::string> made = page();
    kept_since = Clock::now();
    kept_status = made ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
    kept = made ? make_response(*made, "text/plain; version=0.0.4; charset=utf-8")
                : make_response(made.error() + "\n", "text/plain; charset=utf-8");
    if (!kept) return MHD_NO;
  }
  return MHD_queue_response(connection, kept_status, kept.get());
}

void HttpServer::State::note(MHD_Connection* connection, bool begins) {
  if (!begins) {
    connected.erase(connection);
    return;
  }
  const MHD_ConnectionInfo* const info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info != nullptr) connected[connection] = {info->connect_fd, Clock::now()};
}

// The library's own time-out begins anew with every byte. A socket that is shut down is closed by
// it in its next pass.
void HttpServer::State::cut_off_late() {  // syscalls: shutdown
  const auto now = Clock::now();
  for (auto& [connection, one] : connected) {
    if (one.cut || now - one.since < limits.deadline) continue;
    one.cut = true;
    (void)::shutdown(one.socket, SHUT_RDWR);
  }
}

MHD_Result HttpServer::State::on_request(void* self, MHD_Connection* connection, const char* url,
                                         const char* method, const char*, const char*, std::size_t*,
                                         void**) noexcept {
  return static_cast<State*>(self)->answer(connection, method, url);
}

void HttpServer::State::on_connection(void* self, MHD_Connection* connection, void**,
                                      MHD_ConnectionNotificationCode code) noexcept {
  static_cast<State*>(self)->note(connection, code == MHD_CONNECTION_NOTIFY_STARTED);
}

HttpServer::HttpServer(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
HttpServer::~HttpServer() = default;

Answer<std::unique_ptr<HttpServer>> HttpServer::make(common::Fd listener, Page page,
                                                     HttpLimits limits) {
  know_time_zone();
  auto state = std::make_unique<State>(std::move(page), limits);
  const auto timeout_s = std::chrono::duration_cast<std::chrono::seconds>(kDeadline).count();
  state->daemon.reset(
      MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, nullptr, nullptr, &State::on_request,
                       state.get(), MHD_OPTION_EXTERNAL_LOGGER, &say_nothing, nullptr,    //
                       MHD_OPTION_LISTEN_SOCKET, listener.ref().number,                   //
                       MHD_OPTION_CONNECTION_LIMIT, kConnectionsMax,                      //
                       MHD_OPTION_CONNECTION_MEMORY_LIMIT, kRequestBytesMax,              //
                       MHD_OPTION_CONNECTION_TIMEOUT, static_cast<unsigned>(timeout_s),   //
                       MHD_OPTION_STRICT_FOR_CLIENT, 1,                                   //
                       MHD_OPTION_NOTIFY_CONNECTION, &State::on_connection, state.get(),  //
                       MHD_OPTION_END));
  if (!state->daemon) {
    return common::fail(std::string("libmicrohttpd does not start; is there memory left?"));
  }
  (void)listener.release();  // The library closes it.
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

Answer<void> HttpServer::turn(milliseconds longest) {
  const milliseconds look = state_->connected.empty() ? longest : kLook;
  const milliseconds wait = longest < milliseconds{0} ? look : std::min(longest, look);
  if (MHD_run_wait(state_->daemon.get(), static_cast<std::int32_t>(wait.count())) != MHD_YES) {
    return common::fail(std::string("libmicrohttpd has failed"));
  }
  state_->cut_off_late();
  return {};
}

common::FdRef HttpServer::events() const noexcept {
  const MHD_DaemonInfo* const info =
      MHD_get_daemon_info(state_->daemon.get(), MHD_DAEMON_INFO_EPOLL_FD);
  return common::FdRef{info == nullptr ? -1 : info->epoll_fd};
}

}  // namespace broker::exporter
