// policy/capability_aside.h: does without a capability for a while, to find out what works without.
#pragma once

namespace policy {

// Takes a capability (CAP_*) out of this thread's effective set, and puts it back at the end of the
// scope where it was there.
class CapabilityAside {
 public:
  explicit CapabilityAside(unsigned capability) noexcept;
  CapabilityAside(const CapabilityAside&) = delete;
  CapabilityAside& operator=(const CapabilityAside&) = delete;
  ~CapabilityAside();

 private:
  unsigned capability_;
  bool aside_;
};

}  // namespace policy
