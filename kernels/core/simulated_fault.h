// A fault that a test asks for: one allocation, pin, read or write of the ledger, or one thread, is
// refused, as if the machine had no memory, no disk, no right to it. Owners ask here just before
// they ask the system; without a simulated fault that is the load of a pointer.
//   State of the process, and no argument as STYLE.md wants it: every owner, from the weights'
//   arena to a mailbox on a GPU, would hand it down for the tests alone.
//   Thread: simulate_fault() before any other thread is there; fault_simulated() from any.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spillway {

// "allocate host kv", or "read disk weights #40" for the 40th time and every later one. An owner's
// words are a deed, what is done to which kind of memory, and its name in the ledger:
//   allocate host|gpu|disk NAME   pin NAME   read|write disk NAME   map NAME
// or the start of threads for an owner of them (start_thread.h):   start NAME
// "" ends it. Throws Error when the text is none of these.
void simulate_fault(const std::string& text);

// Whether this deed on this line is to be refused; counts how often it was asked.
bool fault_simulated(std::string_view deed, std::string_view name);
// Whether it is to be refused some time; not counted.
bool fault_awaited(std::string_view deed, std::string_view name);

}  // namespace spillway
