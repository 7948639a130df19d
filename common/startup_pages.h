// common/startup_pages.h: gives back the code that only starting needed.
#pragma once

namespace common {

// Takes the pages of every loaded object that nobody can write (code, constants) out of this
// process's memory map. They stay in the page cache, and those that serving needs come back when
// they are touched: about a third of what setting up has mapped. Without it, each of many brokers,
// sessions and workers would be charged for code that it never runs again: 2 MB for a device.
void give_back_startup_pages() noexcept;

}  // namespace common
