// What the owners of host memory share: every page asked for at once, and the words when it cannot
// be had. Used by arena.cc and host_pages.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/error.h"

namespace spillway {

// Asks for every page of [base, base + bytes), a mapping's part, now. Returns 0 or the error's
// number.
int populate(std::byte* base, int64_t bytes);

// name: of the ledger's line; todo: what lets less be asked for.
Error cannot_reserve(const std::string& name, int64_t bytes, int error_number, const char* todo);

}  // namespace spillway
