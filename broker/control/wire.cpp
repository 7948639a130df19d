#include "broker/control/wire.h"

namespace broker::control {

Told told(Outcome outcome, std::string_view text) noexcept {
  Told answer;
  answer.outcome = static_cast<std::uint32_t>(outcome);
  put_text(answer.text, text);
  return answer;
}

}  // namespace broker::control
