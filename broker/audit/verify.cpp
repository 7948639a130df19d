#include "broker/audit/verify.h"

#include <utility>

#include "broker/setting_values.h"
#include "broker/text.h"

namespace broker::audit {
namespace {

std::string number(std::uint64_t value) { return std::to_string(value); }

std::string events_text(std::uint64_t first, std::uint64_t last) {
  if (first == last) return "event " + number(first) + " is";
  return "events " + number(first) + " to " + number(last) + " are";
}

// A journal keeps no place for the head of a chain, so each run of the broker begins one.
bool begins_run_in_journal(const ParsedLine& line) {
  return line.value("event") == name_of(Kind::kAuditOpened) && line.value("sink") == "journal";
}

}  // namespace

void Verifier::line(std::string_view where, std::string_view text) {
  auto parsed = parse_line(text);
  if (parsed) return event(where, *parsed);
  say_broken(0);
  broken_ = Broken{std::string(where), parsed.error(), text.size()};
}

bool Verifier::finish() {
  say_broken(0);
  if (expected_ && !expected_seen_) {
    wrong("",
          "event " + number(expected_->seq) +
              (expected_broken_ ? " is another one" : " is missing") + ": the log was " +
              (expected_broken_ ? "rewritten" : "cut off at its end, or a file of it is missing"));
  }
  if (events_ == 0 && !any_wrong_) note("", "there is no event");
  if (events_ != 0 && !ended_) {
    note("",
         "the last event is not the broker's end: it still runs, or was killed; or the end of "
         "the log was cut off, which a head noted elsewhere would show (--head)");
  }
  return !any_wrong_;
}

void Verifier::event(std::string_view where, const ParsedLine& line) {
  say_broken(parse_number<std::uint64_t>(line.value(name_of(Key::kTornBytes))).value_or(0));
  if (!line.hash_fits) {
    wrong(where, "event " + number(line.seq) + " was changed after it was written");
  }
  if (events_++ == 0) {
    first(where, line);
  } else {
    next(where, line);
  }
  if (expected_ && line.seq == expected_->seq) {
    expected_seen_ = line.hash == expected_->hash && line.hash_fits;
    expected_broken_ = !expected_seen_;
  }
  if (line.value("event") == name_of(Kind::kEventsLost)) {
    note(where, clean_text(line.value(name_of(Key::kAmount))) + " events were lost before event " +
                    number(line.seq) + ": " + clean_text(line.value(name_of(Key::kCause))));
  }
}

void Verifier::first(std::string_view where, const ParsedLine& line) {
  head_ = line.head();
  ended_ = line.value("event") == name_of(Kind::kBrokerStopped);
  if (line.seq == 1 && line.prev != Head{}.hash) {
    wrong(where, "event 1 follows another one, which cannot be");
  } else if (line.seq != 1) {
    note(where, "begins with event " + number(line.seq) +
                    "; those before it are in older files, if at all");
  }
}

void Verifier::next(std::string_view where, const ParsedLine& line) {
  if (line.seq == 1 && line.prev == Head{}.hash) {
    if (begins_run_in_journal(line)) {
      note(where, "a new run of the broker begins after event " + number(head_.seq));
    } else {
      wrong(where, "a new chain begins after event " + number(head_.seq) +
                       ": the file was emptied or replaced while no broker ran");
    }
  } else if (line.seq <= head_.seq) {
    return wrong(where, "event " + number(line.seq) + " comes after event " + number(head_.seq) +
                            ": the order was changed, or it was put in twice");
  } else if (line.seq > head_.seq + 1) {
    wrong(where,
          events_text(head_.seq + 1, line.seq - 1) + " missing before event " + number(line.seq));
  } else if (line.prev != head_.hash) {
    wrong(where, "event " + number(line.seq) + " was not written after the event " +
                     number(head_.seq) + " that stands before it: one of them was replaced");
  }
  head_ = line.head();
  ended_ = line.value("event") == name_of(Kind::kBrokerStopped);
}

void Verifier::say_broken(std::uint64_t torn_bytes) {
  if (!broken_) return;
  const Broken broken = *std::exchange(broken_, std::nullopt);
  if (torn_bytes != 0 && torn_bytes == broken.bytes) {
    return note(
        broken.where,
        "was cut off while it was written (a crash, or a full disk), as the next event says");
  }
  wrong(broken.where, broken.what);
}

void Verifier::wrong(std::string_view where, const std::string& what) {
  any_wrong_ = true;
  tell_({true, (where.empty() ? "" : clean_text(where) + ": ") + what});
}

void Verifier::note(std::string_view where, const std::string& what) {
  tell_({false, (where.empty() ? "" : clean_text(where) + ": ") + what});
}

}  // namespace broker::audit
