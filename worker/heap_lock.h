// worker/heap_lock.h: the memory of a worker: made before it is sealed, never given back, and not
// one allocation after.
//
// Everything that serving needs is made before (BlkQueue::create), so memory stays bounded whatever
// a guest does. Linking this file replaces the global operator new and delete. The C library's own
// malloc() is not replaced: no code of ours calls it while serving, and when it runs out it needs
// brk() or mmap(), which no sealed worker may make.
#pragma once

namespace worker {

// From here on operator new carves from fresh memory without headers, small things together and
// large ones apart, and delete does nothing. A table of a thousand entries then costs only the
// pages of those that are used: an idle worker stays below 100 KiB. Sanitizer builds go on as
// before.
void start_lasting_heap() noexcept;

// From here on operator new and delete trap. There is no way back.
void lock_heap() noexcept;

}  // namespace worker
